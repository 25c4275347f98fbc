package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

func memberExpecting(n int) func(*cluster.Meta, *membershipConfig) {
	return func(m *cluster.Meta, _ *membershipConfig) { m.Expect = n }
}

func memberWantCode(t *testing.T, err error, code apiv1.Code, part string) {
	t.Helper()
	if apiv1.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error is %v; want %v with %q", err, code, part)
	}
}

func memberJoinRequest(id string) *apiv1.JoinRequest {
	return &apiv1.JoinRequest{NodeId: id, RaftAddress: id + ":2", ClusterId: "c1", Version: "v1"}
}

func TestWipedVoterIsRefusedUntilRemoved(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		wiped := w.other()
		wiped.crash()
		again := w.fresh(wiped.id, memberExpecting(3)) // same name, empty disk
		_, err := again.m.formOrJoin(t.Context())
		memberWantCode(t, errors.Unwrap(err), apiv1.CodeDenied, "locknode members remove "+wiped.id)
		if role := w.role(wiped.id); role != "voter" {
			t.Errorf("%s is %q: a refusal changes nothing", wiped.id, role)
		}

		if err := w.leader().m.removeMember(t.Context(), wiped.id); err != nil {
			t.Fatal(err)
		}
		if _, err := again.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.await(wiped.id, "voter", time.Minute)
	})
}

func TestWipedNonvoterIsTakenAgain(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		m := w.leader().m
		for _, addr := range []string{"d:2", "d:2", "d:9"} {
			req := memberJoinRequest("d")
			req.RaftAddress = addr
			if res, err := m.join(t.Context(), req); err != nil || res.GetClusterId() != "c1" {
				t.Fatalf("join at %s: %v, %v", addr, res, err)
			}
		}
		s, ok := membershipFind(membershipServers(w.leader().running()), "d")
		if !ok || s.Suffrage != raft.Nonvoter || s.Address != "d:9" {
			t.Errorf("d is %+v", s)
		}
	})
}

func TestUnfitJoinIsRefused(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		change := func(f func(*apiv1.JoinRequest)) *apiv1.JoinRequest {
			r := memberJoinRequest("d")
			f(r)
			return r
		}
		tests := []struct {
			name string
			req  *apiv1.JoinRequest
			code apiv1.Code
			part string
		}{
			{"no ID", change(func(r *apiv1.JoinRequest) { r.NodeId = "" }), apiv1.CodeInvalid, "node_id"},
			{"long ID", change(func(r *apiv1.JoinRequest) { r.NodeId = strings.Repeat("x", 129) }), apiv1.CodeInvalid, "node_id"},
			{"no port", change(func(r *apiv1.JoinRequest) { r.RaftAddress = "d" }), apiv1.CodeInvalid, "raft_address"},
			{"port 0", change(func(r *apiv1.JoinRequest) { r.RaftAddress = "d:0" }), apiv1.CodeInvalid, "raft_address"},
			{"no host", change(func(r *apiv1.JoinRequest) { r.RaftAddress = ":2" }), apiv1.CodeInvalid, "raft_address"},
			{"other cluster", change(func(r *apiv1.JoinRequest) { r.ClusterId = "c2" }), apiv1.CodeDenied, `asks for cluster "c2"`},
			{"a voter's ID", change(func(r *apiv1.JoinRequest) { r.NodeId = "b" }), apiv1.CodeDenied, "locknode members remove b"},
			{"a member's address", change(func(r *apiv1.JoinRequest) { r.RaftAddress = "b:2" }), apiv1.CodeDenied, "locknode members remove b"},
		}
		for _, tt := range tests {
			_, err := leader.m.join(t.Context(), tt.req)
			if apiv1.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.part) {
				t.Errorf("%s: %v; want %v with %q", tt.name, err, tt.code, tt.part)
			}
		}
		if _, err := w.other().m.join(t.Context(), memberJoinRequest("d")); apiv1.CodeOf(err) != apiv1.CodeNotLeader {
			t.Errorf("a follower said %v", err)
		}
		w.fresh("e", func(m *cluster.Meta, _ *membershipConfig) { m.Raft = "d:2" })
		_, err := leader.m.join(t.Context(), memberJoinRequest("d"))
		memberWantCode(t, err, apiv1.CodeNotReady, `"e" says that its Raft address is d:2`)
		w.mu.Lock()
		w.clusterID = ""
		w.mu.Unlock()
		_, err = leader.m.join(t.Context(), memberJoinRequest("f"))
		memberWantCode(t, err, apiv1.CodeNotReady, "no ID yet")
		if n := len(membershipServers(leader.running())); n != 3 {
			t.Errorf("the cluster has %d members", n)
		}
	})
}

func TestChangedAddressIsFollowed(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		mover := w.other()
		w.show(mover.id, func(p *cluster.Peer) { p.Raft = "new:2" })
		memberAwaitAddress(t, w, mover.id, "new:2")
		leader := w.leader()
		w.show(leader.id, func(p *cluster.Peer) { p.Raft = "own:2" })
		memberAwaitAddress(t, w, leader.id, "own:2")
		for _, s := range membershipServers(w.leader().running()) {
			if s.Suffrage != raft.Voter {
				t.Errorf("%s lost its vote", s.ID)
			}
		}
	})
}

func memberAwaitAddress(t *testing.T, w *memberWorld, id, addr string) {
	t.Helper()
	for range 1000 {
		if s, _ := membershipFind(membershipServers(w.leader().running()), id); string(s.Address) == addr {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("the address of %s is not %s: %+v", id, addr, membershipServers(w.leader().running()))
}

func TestSwappedAddressesAreRefused(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		w.show("a", func(p *cluster.Peer) { p.Raft = "b:2" })
		w.show("b", func(p *cluster.Peer) { p.Raft = "a:2" })
		time.Sleep(5 * time.Minute)
		for _, s := range membershipServers(leader.running()) {
			if string(s.Address) != string(s.ID)+":2" {
				t.Errorf("%s moved to %s", s.ID, s.Address)
			}
		}
		if warned := leader.log.count("not swapped"); warned != 2 {
			t.Errorf("%d warnings, want one for each of the two", warned)
		}
	})
}

func TestAddressOfAnotherClustersNodeIsNotFollowed(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		id := w.other().id
		w.show(id, func(p *cluster.Peer) { p.Raft, p.ClusterID = "new:2", "c2" })
		time.Sleep(time.Minute)
		if s, _ := membershipFind(membershipServers(w.leader().running()), id); s.Address == "new:2" {
			t.Error("moved to a node of another cluster")
		}
	})
}

func TestRemovalThatBreaksTheMajorityIsRefused(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		dead := w.other()
		dead.crash()
		alive := w.other()
		memberWantCode(t, leader.m.removeMember(t.Context(), alive.id), apiv1.CodeDenied, "of the 2 voters that would remain only 1 are alive")
		memberWantCode(t, leader.m.removeMember(t.Context(), "nobody"), apiv1.CodeNoMember, "nobody")
		if err := leader.m.removeMember(t.Context(), dead.id); err != nil {
			t.Fatal(err)
		}
		if err := leader.m.removeMember(t.Context(), alive.id); err != nil {
			t.Fatal(err)
		}
		memberWantCode(t, leader.m.removeMember(t.Context(), leader.id), apiv1.CodeDenied, "no majority")
	})
}

// TestAChangeThatIsNotCommittedIsNotToldAsDone: the leader has it in its log, and
// nobody else has. Who is told that it was removed forgets its data.
func TestAChangeThatIsNotCommittedIsNotToldAsDone(t *testing.T) {
	for _, change := range []string{"remove", "join"} {
		inMemberWorld(t, func(t *testing.T, w *memberWorld) {
			w.voters("a", "b", "c")
			leader, other := w.leader(), w.other()
			r := leader.running()
			w.trans[raft.ServerAddress(leader.id+":2")].DisconnectAll()
			var err error
			if change == "remove" {
				r.RemoveServer(raft.ServerID(other.id), 0, time.Second)
				synctest.Wait()
				err = leader.m.removeMember(t.Context(), other.id)
			} else {
				r.AddNonvoter("d", "d:2", 0, time.Second)
				synctest.Wait()
				_, err = leader.m.join(t.Context(), memberJoinRequest("d"))
			}
			switch apiv1.CodeOf(err) {
			case apiv1.CodeUnavailable, apiv1.CodeNotLeader:
			default:
				t.Errorf("%s, asked again while it is not committed: %v, want that nothing is known", change, err)
			}
		})
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		leader.m.changing <- struct{}{} // a change that hangs
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error)
		for range 2 * membershipMaxAsked {
			go func() { _, err := leader.m.join(ctx, memberJoinRequest("d")); errs <- err }()
		}
		count := make(map[apiv1.Code]int)
		for range 2 * membershipMaxAsked {
			count[apiv1.CodeOf(<-errs)]++
		}
		if count[apiv1.CodeUnavailable] != membershipMaxAsked || count[apiv1.CodeOverloaded] != membershipMaxAsked {
			t.Errorf("answers: %v; want half unavailable, half overloaded", count)
		}
		<-leader.m.changing
		if _, err := leader.m.join(t.Context(), memberJoinRequest("d")); err != nil {
			t.Error(err)
		}
	})
}

func TestMembersJoinConfigurationAndGossip(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		dead := w.other()
		dead.crash()
		w.fresh("z", nil) // gossips, and is no member
		var unknown string
		for id := range w.nodes {
			if id != "z" && id != leader.id && id != dead.id {
				unknown = id
			}
		}
		w.hide(unknown)
		got := make(map[string]string)
		for _, e := range leader.m.members().GetMembers() {
			got[e.GetId()] = e.GetRole() + " " + e.GetHealth()
			if e.GetRaftAddress() != e.GetId()+":2" {
				t.Errorf("%s has Raft address %q", e.GetId(), e.GetRaftAddress())
			}
			if e.GetHealth() != "unknown" && (e.GetApiAddress() != e.GetId()+":0" || e.GetHttpAddress() != e.GetId()+":1" ||
				e.GetGossipAddress() != e.GetId()+":3" || e.GetVersion() != "v1" || e.GetZone() != "z") {
				t.Errorf("%s is described as %v", e.GetId(), e)
			}
		}
		want := map[string]string{leader.id: "leader alive", dead.id: "voter failed", unknown: "voter unknown", "z": "none alive"}
		for id, w := range want {
			if got[id] != w {
				t.Errorf("%s is %q, want %q", id, got[id], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("members are %v", got)
		}
	})
}

func TestRaftDialsWhereGossipSeesAMember(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader, other := w.leader(), w.other()
		other.stop() // its new address is not in the configuration yet
		want := func(id raft.ServerID, addr string) {
			t.Helper()
			if got, err := leader.m.ServerAddr(id); string(got) != addr || (err == nil) != (addr != "") {
				t.Errorf("ServerAddr(%s) = %q, %v; want %q", id, got, err, addr)
			}
		}
		want(raft.ServerID(other.id), other.id+":2")
		leader.m.changing <- struct{}{}
		defer func() { <-leader.m.changing }()
		w.show(other.id, func(p *cluster.Peer) { p.Raft = "new:2" })
		want(raft.ServerID(other.id), "new:2")
		w.show(other.id, func(p *cluster.Peer) { p.State = cluster.Failed })
		want(raft.ServerID(other.id), other.id+":2")
		w.show(other.id, func(p *cluster.Peer) { p.State, p.Formed = cluster.Alive, false })
		want(raft.ServerID(other.id), other.id+":2")
		want(raft.ServerID(leader.id), leader.id+":2")
		want("nobody", "")
		if got := leader.m.apiAddress(other.id); got != other.id+":0" {
			t.Errorf("apiAddress = %q", got)
		}
		if got := leader.m.apiAddress("nobody"); got != "" {
			t.Errorf("apiAddress of nobody = %q", got)
		}
	})
}

func TestFollowingEndsTheWork(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		leader.m.follow()
		leader.m.follow()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := leader.m.close(ctx); err != nil {
			t.Error(err)
		}
	})
}

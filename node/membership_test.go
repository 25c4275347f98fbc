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

// form runs formOrJoin and then Raft, as a node does.
func (n *memberNode) form(ctx context.Context) (membershipStart, error) {
	s, err := n.m.formOrJoin(ctx)
	if err == nil {
		n.start(s.bootstrap)
	}
	return s, err
}

func TestFreshNodesFormOneCluster(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		starts := make(chan membershipStart, 3)
		for _, id := range []string{"n3", "n1", "n2"} {
			n := w.fresh(id, memberExpecting(3))
			go func() {
				s, err := n.form(t.Context())
				if err != nil {
					t.Error(err)
				}
				starts <- s
			}()
			time.Sleep(time.Second) // the others come later
		}
		for range 3 {
			s := <-starts
			if len(s.bootstrap) != 3 || s.bootstrap[0].ID != "n1" || s.bootstrap[1].ID != "n2" || s.bootstrap[2].Address != "n3:2" {
				t.Errorf("a founder starts with %+v", s.bootstrap)
			}
		}
		for _, id := range []string{"n1", "n2", "n3"} {
			w.await(id, "voter", time.Second)
		}
		// A fourth one that expects three finds the cluster and is taken in.
		n4 := w.fresh("n4", memberExpecting(3))
		s, err := n4.form(t.Context())
		if err != nil || s.bootstrap != nil || s.clusterID != "c1" {
			t.Fatalf("n4 starts with %+v, %v", s, err)
		}
		w.await("n4", "voter", time.Minute)
	})
}

func TestJoinerIsPromotedOnlyWhenStable(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q at first", role)
		}
		stable := w.leader().m.times.stable
		if took := w.await("d", "voter", time.Minute); took < stable {
			t.Errorf("d became a voter after %v, has to be stable for %v", took, stable)
		}
	})
}

func TestSilentJoinerIsNotPromoted(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		d.mute = true
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q and has never answered", role)
		}
		d.mu.Lock()
		d.mute = false
		d.mu.Unlock()
		w.await("d", "voter", time.Minute)
	})
}

func TestNonvoterStaysNonvoter(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", func(m *cluster.Meta, _ *membershipConfig) { m.Nonvoter = true })
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Errorf("d is %q", role)
		}
	})
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

func TestLeaverIsRemovedAndCrasherIsKept(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c", "d", "e")
		leaver := w.other()
		leaver.stop()
		w.show(leaver.id, func(p *cluster.Peer) { p.State, p.Leaving, p.Since = cluster.Left, true, time.Now() })
		w.await(leaver.id, "none", time.Minute)

		crasher := w.other()
		crasher.crash()
		time.Sleep(11 * time.Minute)
		if role := w.role(crasher.id); role != "voter" {
			t.Fatalf("%s is %q after 11 minutes", crasher.id, role)
		}
		time.Sleep(time.Minute)
		w.await(crasher.id, "none", time.Minute)
	})
}

// Other than autopilot's default: a member that gossip does not know at all, for
// instance because everyone was restarted after it died.
func TestUnknownMemberIsTreatedAsFailed(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		lost := w.other()
		lost.stop()
		w.hide(lost.id)
		time.Sleep(11 * time.Minute)
		if role := w.role(lost.id); role != "voter" {
			t.Fatalf("%s is %q after 11 minutes", lost.id, role)
		}
		time.Sleep(time.Minute)
		w.await(lost.id, "none", time.Minute)
	})
}

func TestReturningMemberIsKept(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		id := w.other().id
		for range 5 {
			w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
			time.Sleep(10 * time.Minute)
			w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Alive, time.Now() })
			time.Sleep(time.Minute)
		}
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q", id, role)
		}
	})
}

func TestNegativeRemoveFailedAfterKeepsForEver(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		for _, n := range w.nodes {
			n.m.cfg.removeFailedAfter = -1
		}
		id := w.other().id
		w.nodes[id].crash()
		time.Sleep(40 * time.Minute)
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q", id, role)
		}
	})
}

// Gossip is wrong about most of the members, Raft is fine: nobody is removed.
func TestGossipAloneCannotBreakTheMajority(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c", "d", "e")
		leader := w.leader()
		for id := range w.nodes {
			if id != leader.id && id != w.other().id {
				w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
			}
		}
		time.Sleep(20 * time.Minute)
		if n := len(membershipServers(leader.running())); n != 5 {
			t.Errorf("%d members are left", n)
		}
		leader.log.mu.Lock()
		defer leader.log.mu.Unlock()
		warned := 0
		for _, l := range leader.log.lines {
			if strings.Contains(l, "member that is gone not removed") {
				warned++
			}
		}
		if warned > 3 {
			t.Errorf("%d warnings for 3 causes", warned)
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
		leader.log.mu.Lock()
		defer leader.log.mu.Unlock()
		warned := 0
		for _, l := range leader.log.lines {
			if strings.Contains(l, "not swapped") {
				warned++
			}
		}
		if warned != 2 {
			t.Errorf("%d warnings, want one for each of the two:\n%s", warned, strings.Join(leader.log.lines, ""))
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

// Autopilot acts on what it saw some seconds ago. Promoting means adding: a
// member that was removed meanwhile must not come back that way.
func TestStalePromotionDoesNotAddARemovedMember(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader := w.leader()
		if _, err := leader.m.join(t.Context(), memberJoinRequest("d")); err != nil {
			t.Fatal(err)
		}
		if err := leader.m.removeMember(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		leader.m.mu.Lock()
		changes := membershipChanges{leader.m.term}
		leader.m.mu.Unlock()
		if err := changes.AddVoter("d", "d:2", 0, 0).Error(); err != nil {
			t.Error(err)
		}
		if role := w.role("d"); role != "none" {
			t.Errorf("d is %q", role)
		}
		for what, f := range map[string]raft.Future{
			"add":      changes.AddNonvoter("d", "d:2", 0, 0),
			"remove":   changes.RemoveServer("a", 0, 0),
			"demote":   changes.DemoteVoter("a", 0, 0),
			"transfer": changes.LeadershipTransferToServer("a", "a:2"),
		} {
			if f.Error() == nil {
				t.Errorf("autopilot may %s", what)
			}
		}
	})
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

func TestFormOrJoinEndsWithItsContext(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", memberExpecting(3))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("enough"))
		defer cancel()
		if _, err := n.m.formOrJoin(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("error is %v", err)
		}
		if last := n.reasons[len(n.reasons)-1]; last != "1 of 3 fresh voters are seen" {
			t.Errorf("waited for %q", last)
		}
	})
}

func TestUnwrittenPromiseIsNotAdvertised(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", func(m *cluster.Meta, cfg *membershipConfig) {
			m.Expect = 1
			cfg.keepPromise = func([]cluster.Founder) error { return errors.New("disk full") }
		})
		if _, err := n.m.formOrJoin(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("error is %v", err)
		}
		if p := n.gossip.Meta().Promise; p != "" {
			t.Errorf("promise %q is advertised", p)
		}
	})
}

func TestPromiseOnDiskIsKeptAfterRestart(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		list := []cluster.Founder{{NodeID: "a", Raft: "old:2"}, {NodeID: "b", Raft: "b:2"}}
		a := w.fresh("a", func(m *cluster.Meta, cfg *membershipConfig) { m.Expect, cfg.promised = 2, list })
		w.fresh("b", func(m *cluster.Meta, _ *membershipConfig) { m.Expect, m.Promise = 2, cluster.Hash(list) })
		s, err := a.m.formOrJoin(t.Context())
		if err != nil || len(s.bootstrap) != 2 || s.bootstrap[0].Address != "old:2" {
			t.Errorf("a starts with %+v, %v; its address at the time of the promise was old:2", s, err)
		}
		if a.promised != nil {
			t.Errorf("a promised %v once more", a.promised)
		}
	})
}

func TestNodeWhoseIDIsInUseWaits(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", memberExpecting(1))
		n.gossip.conflict = "elsewhere:3"
		done := make(chan error, 1)
		go func() { _, err := n.m.formOrJoin(t.Context()); done <- err }()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a went on under a name that is in use: %v", err)
		default:
		}
		if last := n.reasons[len(n.reasons)-1]; !strings.Contains(last, "elsewhere:3") {
			t.Errorf("waited for %q", last)
		}
		w.mu.Lock()
		n.gossip.conflict = ""
		w.mu.Unlock()
		w.show("a", func(*cluster.Peer) {})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The cluster has no leader when the node asks.
func TestJoinIsTriedUntilThereIsALeader(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		w.mu.Lock()
		for _, tr := range w.trans {
			tr.DisconnectAll()
		}
		w.mu.Unlock()
		d := w.fresh("d", nil)
		done := make(chan error, 1)
		go func() { _, err := d.form(t.Context()); done <- err }()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("joined without a leader: %v", err)
		default:
		}
		w.mu.Lock()
		for a, tr := range w.trans {
			for b, other := range w.trans {
				if a != b {
					tr.Connect(b, other)
				}
			}
		}
		w.mu.Unlock()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.await("d", "voter", time.Minute)
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

package membership

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
)

func expecting(n int) func(*cluster.Meta, *Config) {
	return func(m *cluster.Meta, _ *Config) { m.Expect = n }
}

func wantCode(t *testing.T, err error, code apiv1.Code, part string) {
	t.Helper()
	if apiv1.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error is %v; want %v with %q", err, code, part)
	}
}

func joinRequest(id string) *peerapi.JoinRequest {
	return &peerapi.JoinRequest{NodeId: id, RaftAddress: id + ":2", ApiAddress: id + ":4", ClusterId: "c1", Version: "v1"}
}

func TestWipedVoterIsRefusedUntilRemoved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		wiped := w.other()
		wiped.crash()
		again := w.fresh(wiped.id, expecting(3)) // same name, empty disk
		_, err := again.m.FormOrJoin(t.Context())
		wantCode(t, errors.Unwrap(err), apiv1.CodeDenied, "locknode members remove "+wiped.id)
		if role := w.role(wiped.id); role != "voter" {
			t.Errorf("%s is %q: a refusal changes nothing", wiped.id, role)
		}

		if err := w.leader().m.Remove(t.Context(), wiped.id); err != nil {
			t.Fatal(err)
		}
		if _, err := again.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.await(wiped.id, "voter", time.Minute)
	})
}

func TestNodeOfAnotherClusterNameIsNotTakenIn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		named := func(name string) func(*cluster.Meta, *Config) {
			return func(_ *cluster.Meta, cfg *Config) { cfg.ClusterName = name }
		}
		w.voters("a", "b", "c")
		for _, n := range w.nodes {
			n.m.cfg.ClusterName = "blue"
		}
		for name, want := range map[string]string{"": `cluster_name: is "", must be "blue"`, "green": `cluster_name: is "green"`} {
			other := w.fresh("d"+name, named(name))
			_, err := other.m.FormOrJoin(t.Context())
			wantCode(t, errors.Unwrap(err), apiv1.CodeDenied, want)
			if role := w.role(other.id); role != "none" {
				t.Errorf("with cluster_name %q it is %q in a cluster called blue", name, role)
			}
		}
		if _, err := w.fresh("e", named("blue")).form(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.await("e", "voter", time.Minute)
	})
}

func TestWipedNonvoterIsTakenAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		m := w.leader().m
		w.fresh("d", nil)
		for _, addr := range []string{"d:2", "d:2", "d:9"} {
			w.show("d", func(p *cluster.Peer) { p.Raft = addr })
			req := joinRequest("d")
			req.RaftAddress = addr
			if res, err := m.Join(t.Context(), req); err != nil || res.GetClusterId() != "c1" {
				t.Fatalf("join at %s: %v, %v", addr, res, err)
			}
		}
		s, ok := Find(Servers(w.leader().running()), "d")
		if !ok || s.Suffrage != raft.Nonvoter || Place(s) != "d:9" {
			t.Errorf("d is %+v", s)
		}
	})
}

func TestUnfitJoinIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		change := func(f func(*peerapi.JoinRequest)) *peerapi.JoinRequest {
			r := joinRequest("d")
			f(r)
			return r
		}
		tests := []struct {
			name string
			req  *peerapi.JoinRequest
			code apiv1.Code
			part string
		}{
			{"no ID", change(func(r *peerapi.JoinRequest) { r.NodeId = "" }), apiv1.CodeInvalid, "node_id"},
			{"long ID", change(func(r *peerapi.JoinRequest) { r.NodeId = strings.Repeat("x", 129) }), apiv1.CodeInvalid, "node_id"},
			{"no port", change(func(r *peerapi.JoinRequest) { r.RaftAddress = "d" }), apiv1.CodeInvalid, "raft_address"},
			{"port 0", change(func(r *peerapi.JoinRequest) { r.RaftAddress = "d:0" }), apiv1.CodeInvalid, "raft_address"},
			{"no host", change(func(r *peerapi.JoinRequest) { r.RaftAddress = ":2" }), apiv1.CodeInvalid, "raft_address"},
			{"no API", change(func(r *peerapi.JoinRequest) { r.ApiAddress = "" }), apiv1.CodeInvalid, "api_address"},
			{"nobody there", joinRequest("nobody"), apiv1.CodeNotReady, "does not answer the leader at its API address nobody:4"},
			{"another one there", change(func(r *peerapi.JoinRequest) { r.ApiAddress = "c:4" }), apiv1.CodeNotReady, "does not answer the leader"},
			{"another address", change(func(r *peerapi.JoinRequest) { r.RaftAddress = "e:2" }), apiv1.CodeNotReady, "it says itself that its Raft address is d:2"},
			{"a member elsewhere", &peerapi.JoinRequest{NodeId: "m", RaftAddress: "m:2", ApiAddress: "m:4"}, apiv1.CodeNotReady, "it has data"},
			{"other cluster", change(func(r *peerapi.JoinRequest) { r.ClusterId = "c2" }), apiv1.CodeDenied, `cluster: is "c2"`},
			{"a voter's ID", change(func(r *peerapi.JoinRequest) { r.NodeId = "b" }), apiv1.CodeDenied, "locknode members remove b"},
		}
		w.fresh("d", nil)
		w.fresh("m", func(m *cluster.Meta, _ *Config) { m.Formed = true })
		for _, tt := range tests {
			_, err := leader.m.Join(t.Context(), tt.req)
			if apiv1.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.part) {
				t.Errorf("%s: %v; want %v with %q", tt.name, err, tt.code, tt.part)
			}
		}
		if _, err := w.other().m.Join(t.Context(), joinRequest("d")); apiv1.CodeOf(err) != apiv1.CodeNotLeader {
			t.Errorf("a follower said %v", err)
		}
		w.mu.Lock()
		w.clusterID = ""
		w.mu.Unlock()
		_, err := leader.m.Join(t.Context(), joinRequest("f"))
		wantCode(t, err, apiv1.CodeNotReady, "no ID yet")
		if n := len(Servers(leader.running())); n != 3 {
			t.Errorf("the cluster has %d members", n)
		}
	})
}

func TestChangedAddressIsFollowed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		mover := w.other()
		w.show(mover.id, func(p *cluster.Peer) { p.Raft = "new:2" })
		awaitAddress(t, w, mover.id, "new:2")
		leader := w.leader()
		w.show(leader.id, func(p *cluster.Peer) { p.Raft = "own:2" })
		awaitAddress(t, w, leader.id, "own:2")
		for _, s := range Servers(w.leader().running()) {
			if s.Suffrage != raft.Voter {
				t.Errorf("%s lost its vote", s.ID)
			}
		}
	})
}

func awaitAddress(t *testing.T, w *world, id, addr string) {
	t.Helper()
	for range 1000 {
		if s, _ := Find(Servers(w.leader().running()), id); Place(s) == addr {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("the address of %s is not %s: %+v", id, addr, Servers(w.leader().running()))
}

// Raft's configuration refuses equal addresses: neither of two members that have
// exchanged theirs can be moved first, if an address is all that is in it.
func TestExchangedAddressesAreFollowed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		w.show("a", func(p *cluster.Peer) { p.Raft = "b:2" })
		w.show("b", func(p *cluster.Peer) { p.Raft = "a:2" })
		awaitAddress(t, w, "a", "b:2")
		awaitAddress(t, w, "b", "a:2")
		for _, s := range Servers(w.leader().running()) {
			if s.Suffrage != raft.Voter {
				t.Errorf("%s lost its vote", s.ID)
			}
		}
		if warned := leader.log.count("not followed"); warned != 0 {
			t.Errorf("%d warnings, want none", warned)
		}
	})
}

// A container gets the address of one that has failed: the member at this address is
// not in the way of the one that is new or has moved.
func TestAddressOfADeadMemberCanBeTaken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c", "d", "e")
		leader := w.leader()
		others := slices.DeleteFunc([]string{"a", "b", "c", "d", "e"}, func(id string) bool { return id == leader.id })
		dead, mover := others[0], others[1]
		w.nodes[dead].stop()
		w.show(dead, func(p *cluster.Peer) { p.State = cluster.Failed })
		w.show(mover, func(p *cluster.Peer) { p.Raft = dead + ":2" })
		awaitAddress(t, w, mover, dead+":2")
		req := joinRequest("f")
		req.RaftAddress = dead + ":2"
		w.fresh("f", func(m *cluster.Meta, _ *Config) { m.Raft = dead + ":2" })
		w.show(mover, func(p *cluster.Peer) { p.Raft = mover + ":2" })
		awaitAddress(t, w, mover, mover+":2")
		if _, err := leader.m.Join(t.Context(), req); err != nil {
			t.Errorf("join at the address of a dead member: %v", err)
		}
	})
}

func TestAddressOfAnotherClustersNodeIsNotFollowed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		id := w.other().id
		w.show(id, func(p *cluster.Peer) { p.Raft, p.ClusterID = "new:2", "c2" })
		time.Sleep(time.Minute)
		if s, _ := Find(Servers(w.leader().running()), id); Place(s) == "new:2" {
			t.Error("moved to a node of another cluster")
		}
	})
}

func TestRemovalThatBreaksTheMajorityIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		dead := w.other()
		dead.crash()
		alive := w.other()
		wantCode(t, leader.m.Remove(t.Context(), alive.id), apiv1.CodeDenied, "of the 2 voters that there would be, only 1 answer")
		wantCode(t, leader.m.Remove(t.Context(), "nobody"), apiv1.CodeNoMember, "nobody")
		if err := leader.m.Remove(t.Context(), dead.id); err != nil {
			t.Fatal(err)
		}
		if err := leader.m.Remove(t.Context(), alive.id); err != nil {
			t.Fatal(err)
		}
		wantCode(t, leader.m.Remove(t.Context(), leader.id), apiv1.CodeDenied, "no majority")
	})
}

// Gossip says for seconds of a node that died that it is alive. If another one were
// removed meanwhile, the two that remain would commit nothing any more, and if the dead
// one has lost its disk, nothing ever again.
func TestAMemberThatGossipStillSeesAliveIsNotCountedOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		dead := w.other()
		dead.stop() // gossip has not noticed
		alive := w.other()
		if p, _ := leader.gossip.Peer(dead.id); p.State != cluster.Alive {
			t.Fatalf("gossip says %v of the dead node", p.State)
		}
		wantCode(t, leader.m.Remove(t.Context(), alive.id), apiv1.CodeDenied, "of the 2 voters that there would be, only 1 answer")
		if leader.m.CanDoWithout(t.Context(), leader.id) {
			t.Error("the leader thinks that the others can do without it")
		}
		w.show(alive.id, func(p *cluster.Peer) { p.Nonvoter = true })
		w.show(alive.id, func(p *cluster.Peer) { p.State, p.Leaving, p.Since = cluster.Left, true, time.Now() })
		time.Sleep(5 * time.Minute)
		if role := w.role(alive.id); role != "voter" {
			t.Errorf("%s is %q", alive.id, role)
		}
	})
}

// The other way round: gossip takes a node for dead that Raft hears.
func TestAMemberThatRaftHearsIsNotRemovedForGossip(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		id := w.other().id
		w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
		time.Sleep(time.Hour)
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q", id, role)
		}
		w.nodes[id].stop()
		time.Sleep(11 * time.Minute)
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q 11 minutes after Raft last heard it", id, role)
		}
		w.await(id, "none", 2*time.Minute)
	})
}

// A new leader has heard nobody yet when it looks for the first time.
func TestANewLeaderDoesNotRemoveWhomRaftHears(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader, id := w.leader(), w.other().id
		w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now().Add(-time.Hour) })
		e := leader.epoch()
		leader.contact.mu.Lock()
		clear(leader.contact.sent)
		leader.contact.mu.Unlock()
		if err := e.remove(id); err != nil {
			t.Error(err)
		}
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q", id, role)
		}
	})
}

// A cluster of one would wait for a second voter for ever if that died while it was
// being made one.
func TestANodeThatDoesNotAnswerRaftIsNotPromoted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a")
		leader := w.leader()
		w.fresh("d", nil)
		if _, err := leader.m.Join(t.Context(), joinRequest("d")); err != nil {
			t.Fatal(err)
		}
		err := leader.epoch().promote("d", network.MemberAddress("d", "d:2"))
		wantCode(t, err, apiv1.CodeDenied, "of the 2 voters that there would be, only 1 answer")
		if leader.running().State() != raft.Leader || w.role("d") != "nonvoter" {
			t.Errorf("d is %q", w.role("d"))
		}
	})
}

func TestARemovalThatIsCutOffSaysThatItMayHaveBeenDone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader, other := w.leader(), w.other()
		leader.contact.mu.Lock()
		leader.contact.check = w.trans[network.MemberAddress(leader.id, leader.id+":2")].DisconnectAll // it is cut off right after the check
		leader.contact.mu.Unlock()
		err := leader.m.Remove(t.Context(), other.id)
		wantCode(t, err, apiv1.CodeUnknownOutcome, "may have been done")
		if !strings.Contains(err.Error(), "locknode members") {
			t.Errorf("%v does not say how to look", err)
		}
		if e := leader.m.Electorate(); len(e.Voters) != 0 {
			t.Errorf("the leader says that %v vote, which is not committed", e.Voters)
		}
	})
}

func TestTheLeaderKnowsWhoIsSilent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader, dead := w.leader(), w.other()
		time.Sleep(time.Second)
		if e := leader.m.Electorate(); len(e.Voters) != 3 || len(e.Silent) != 0 {
			t.Errorf("electorate is %+v", e)
		}
		dead.stop()
		time.Sleep(silentAfter * leader.m.cfg.Timing)
		if e := leader.m.Electorate(); len(e.Voters) != 3 || len(e.Silent) != 1 || e.Silent[0] != dead.id {
			t.Errorf("electorate is %+v, and %s is dead", e, dead.id)
		}
	})
}

// TestAChangeThatIsNotCommittedIsNotToldAsDone: the leader has it in its log, and
// nobody else has. Who is told that it was removed forgets its data.
func TestAChangeThatIsNotCommittedIsNotToldAsDone(t *testing.T) {
	for _, change := range []string{"remove", "join"} {
		inWorld(t, func(t *testing.T, w *world) {
			w.voters("a", "b", "c")
			leader, other := w.leader(), w.other()
			r := leader.running()
			w.trans[network.MemberAddress(leader.id, leader.id+":2")].DisconnectAll()
			var err error
			if change == "remove" {
				r.RemoveServer(raft.ServerID(other.id), 0, time.Second)
				synctest.Wait()
				err = leader.m.Remove(t.Context(), other.id)
			} else {
				w.fresh("d", nil)
				r.AddNonvoter("d", "d@d:2", 0, time.Second)
				synctest.Wait()
				_, err = leader.m.Join(t.Context(), joinRequest("d"))
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
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		w.fresh("d", nil)
		leader.m.changing <- struct{}{} // a change that hangs
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error)
		for range 2 * maxAsked {
			go func() { _, err := leader.m.Join(ctx, joinRequest("d")); errs <- err }()
		}
		count := make(map[apiv1.Code]int)
		for range 2 * maxAsked {
			count[apiv1.CodeOf(<-errs)]++
		}
		if count[apiv1.CodeUnavailable] != maxAsked || count[apiv1.CodeOverloaded] != maxAsked {
			t.Errorf("answers: %v; want half unavailable, half overloaded", count)
		}
		<-leader.m.changing
		if _, err := leader.m.Join(t.Context(), joinRequest("d")); err != nil {
			t.Error(err)
		}
	})
}

func TestMembersJoinConfigurationAndGossip(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
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
		for _, e := range leader.m.Members().GetMembers() {
			got[e.GetId()] = e.GetRole() + " " + e.GetHealth()
			if e.GetRaftAddress() != e.GetId()+":2" {
				t.Errorf("%s has Raft address %q", e.GetId(), e.GetRaftAddress())
			}
			if e.GetHealth() != "unknown" && (e.GetApiAddress() != e.GetId()+":4" || e.GetHttpAddress() != e.GetId()+":1" ||
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

// Where the configuration has a member comes first, then what it has told Raft, and then
// gossip.
func TestAMemberIsLookedForWhereGossipHasItOnlyIfItIsNotAtHome(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader, other := w.leader(), w.other()
		leader.m.changing <- struct{}{} // nothing is written into the configuration
		defer func() { <-leader.m.changing }()
		want := func(when string, api, raftAddrs []string) {
			t.Helper()
			for range 2 { // the first look asks
				leader.m.APIAddresses(other.id)
				leader.m.RaftAddresses(raft.ServerID(other.id))
				time.Sleep(2 * leader.m.times.home)
			}
			if got := leader.m.RaftAddresses(raft.ServerID(other.id)); !slices.Equal(got, raftAddrs) {
				t.Errorf("%s: RaftAddresses = %q, want %q", when, got, raftAddrs)
			}
			if got := leader.m.APIAddresses(other.id); !slices.Equal(got, api) {
				t.Errorf("%s: apiAddresses = %q, want %q", when, got, api)
			}
		}
		said := func(api string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.said[other.id] = api
		}
		home := other.id + ":4"
		want("all agree", []string{home}, nil)
		w.lie(other.id, func(p *cluster.Peer) { p.API, p.Raft = "false:4", "false:2" })
		w.lie(other.id, func(p *cluster.Peer) {
			p.Claims = []cluster.Meta{{NodeID: other.id, Formed: true, API: "false:5", Raft: "false:3"}}
		})
		want("gossip has it elsewhere", []string{home}, nil)
		said("false:6")
		want("somebody has shaken hands in its name", []string{home}, nil)
		said("")
		w.show(other.id, func(p *cluster.Peer) { p.API, p.Raft, p.Claims = "moved:4", "moved:2", nil })
		want("it has moved", []string{"moved:4"}, []string{"moved:2"})
		w.lie(other.id, func(p *cluster.Peer) {
			p.Claims = []cluster.Meta{{NodeID: other.id, Formed: true, API: "newer:4", Raft: "newer:2"}}
		})
		want("it has moved, and again", []string{"moved:4", "newer:4"}, []string{"moved:2", "newer:2"})
		said("newer:4")
		want("Raft reaches it there", []string{"newer:4"}, []string{"moved:2", "newer:2"})
		other.stop()
		time.Sleep(10 * leader.m.cfg.Timing)
		want("it has moved, and Raft does not reach it", []string{"newer:4", "moved:4"}, []string{"moved:2", "newer:2"})
		w.lie(other.id, func(p *cluster.Peer) { p.State = cluster.Failed })
		want("gossip takes it for failed", []string{"newer:4", "moved:4"}, []string{"newer:2"})
		w.lie(other.id, func(p *cluster.Peer) { p.State, p.Formed, p.Claims = cluster.Alive, false, nil })
		want("it is a fresh one", []string{"newer:4", "moved:4"}, nil)
		if got := leader.m.APIAddresses("nobody"); len(got) != 0 {
			t.Errorf("apiAddresses of nobody = %q", got)
		}
		if got := leader.m.RaftAddresses("nobody"); len(got) != 0 {
			t.Errorf("RaftAddresses of nobody = %q", got)
		}
	})
}

func TestFollowingEndsTheWork(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		leader.m.Follow()
		leader.m.Follow()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := leader.m.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A busy member does not answer in time. It is where it was, and nobody looks for it where
// gossip points, until it has been silent for long.
func TestAMemberThatIsSlowIsNotLookedForWhereGossipHasIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		var asks, asked *member // two followers: Raft has told neither where the other one is
		for _, n := range w.nodes {
			switch {
			case n == leader:
			case asks == nil:
				asks = n
			default:
				asked = n
			}
		}
		slow := func(id string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.slow = id
		}
		look := func() (api, raftAddrs []string) {
			api, raftAddrs = asks.m.APIAddresses(asked.id), asks.m.RaftAddresses(raft.ServerID(asked.id))
			time.Sleep(time.Second + 2*asks.m.times.home) // longer than a question and its pause
			return api, raftAddrs
		}
		slow(asked.id)
		w.lie(asked.id, func(p *cluster.Peer) { p.API, p.Raft = "false:4", "false:2" })
		for i := range homeSilences {
			if api, at := look(); len(api)+len(at) > 0 {
				t.Errorf("after %d questions without an answer: looked for at %q and %q", i, api, at)
			}
		}
		if api, _ := look(); !slices.Contains(api, "false:4") {
			t.Errorf("after %d questions without an answer: looked for at %q", homeSilences, api)
		}
		slow("")
		look()
		slow(asked.id)
		for i := range homeSilences {
			if api, at := look(); !slices.Equal(api, []string{asked.id + ":4"}) || len(at) > 0 {
				t.Errorf("after an answer and %d questions without: looked for at %q and %q", i, api, at)
			}
		}
	})
}

// A node's ID is in Raft's configuration, and any process that reaches the port may ask to join.
func TestNodesWithNamesThatCannotBePrintedDoNotJoin(t *testing.T) {
	good := func() *peerapi.JoinRequest {
		return &peerapi.JoinRequest{NodeId: "größe-1", RaftAddress: "10.0.0.1:7402", Version: "v1"}
	}
	if err := checkTexts(good()); err != nil {
		t.Error(err)
	}
	for field, spoil := range map[string]func(*peerapi.JoinRequest){
		"node_id":      func(r *peerapi.JoinRequest) { r.NodeId = "n1\u202e" },
		"raft_address": func(r *peerapi.JoinRequest) { r.RaftAddress = "a\x1b[2J:7402" },
		"version":      func(r *peerapi.JoinRequest) { r.Version = "v1\n" },
	} {
		req := good()
		spoil(req)
		if err := checkJoin(req); apiv1.CodeOf(err) != apiv1.CodeInvalid || !strings.HasPrefix(apiv1.AsError(err).GetMessage(), field) {
			t.Errorf("%s: %v, want it refused", field, err)
		}
	}
}

package membership

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
)

func TestJoinerIsPromotedOnlyWhenStable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
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
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		d.mute = true // since it was taken in
		d.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q and does not answer", role)
		}
		d.mu.Lock()
		d.mute = false
		d.mu.Unlock()
		w.await("d", "voter", time.Minute)
	})
}

// A few entries do not count as behind, but a node that lacks its own joining does
// not vote yet, and nobody may count on it.
func TestJoinerThatLacksItsJoiningIsNotPromoted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		d.behind = true
		begin, err := d.form(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if begin.VotesFrom < 2 {
			t.Errorf("d may vote from entry %d on", begin.VotesFrom)
		}
		d.mu.Lock()
		d.votesFrom = begin.VotesFrom
		d.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q and has only the first entry", role)
		}
		d.mu.Lock()
		d.behind = false
		d.mu.Unlock()
		w.await("d", "voter", time.Minute)
	})
}

// What it said a while ago does not count.
func TestJoinerThatFallsSilentIsNotPromoted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(w.leader().m.times.stable / 2)
		d.mu.Lock()
		d.mute = true
		d.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Errorf("d is %q", role)
		}
	})
}

func TestOnlyTheRightNodeVouchesForItsHealth(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader, other := w.leader(), w.other()
		e := leader.epoch()
		isWell := func(addr raft.ServerAddress, terms uint64) bool {
			r := leader.running()
			return e.isWell(t.Context(), raft.Server{ID: raft.ServerID(other.id), Address: addr}, r.CurrentTerm()+terms, r.LastIndex())
		}
		home := network.MemberAddress(other.id, other.id+":2")
		for range 100 { // until the other one has heard of its leader
			if isWell(home, 0) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if !isWell(home, 0) {
			t.Error("a member that follows its leader is not well")
		}
		if isWell(home, 1) {
			t.Error("a member is well that is in an earlier term")
		}
		if isWell("elsewhere:2", 0) {
			t.Error("a member is well at an address that is not the configuration's")
		}
		w.show(other.id, func(p *cluster.Peer) { p.API = leader.id + ":4" })
		leader.m.APIAddresses(other.id)
		time.Sleep(2 * leader.m.times.home) // it is asked again where it is
		if isWell(home, 0) {
			t.Error("another node answers for the member, which is well")
		}
	})
}

func TestNonvoterStaysNonvoter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", func(m *cluster.Meta, _ *Config) { m.Nonvoter = true })
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Errorf("d is %q", role)
		}
	})
}

func TestCrasherIsKeptForSomeTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c", "d", "e")
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

// A member that gossip does not know at all, for
// instance because everyone was restarted after it died.
func TestUnknownMemberIsTreatedAsFailed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
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
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		id := w.other().id
		for range 5 {
			w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
			time.Sleep(10 * time.Minute)
			w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Alive, time.Now() })
			time.Sleep(time.Minute)
		}
		w.mu.Lock()
		seen := w.board[id]
		w.mu.Unlock()
		for range 3 { // now gossip does not even know it
			w.hide(id)
			time.Sleep(10 * time.Minute)
			w.show(id, func(p *cluster.Peer) { *p = seen })
			time.Sleep(time.Minute)
		}
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q", id, role)
		}
	})
}

func TestADeadVoterIsRemovedOnceItIsReplaced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		soon := func(_ *cluster.Meta, c *Config) {
			c.RemoveFailedAfter, c.RemoveReplacedAfter = time.Hour, time.Minute
		}
		w.votersWith(soon, "a", "b", "c")
		w.leader()
		dead := w.other()
		dead.crash()
		time.Sleep(10 * time.Minute)
		if role := w.role(dead.id); role != "voter" {
			t.Fatalf("%s is %q and was not replaced", dead.id, role)
		}
		d := w.fresh("d", soon)
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.await("d", "voter", time.Minute)
		w.await(dead.id, "none", time.Minute)
		d.crash()
		time.Sleep(10 * time.Minute)
		if role := w.role("d"); role != "voter" {
			t.Errorf("d is %q, and is one of three", role)
		}
	})
}

func TestAVoterThatCameBackOrIsExpectedIsNotCleanedUp(t *testing.T) {
	for name, expect := range map[string]int{"came back": 0, "four are expected": 4} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.votersWith(func(meta *cluster.Meta, c *Config) {
					c.RemoveFailedAfter, c.RemoveReplacedAfter, meta.Expect = time.Hour, time.Minute, expect
				}, "a", "b", "c", "d")
				w.leader()
				id := w.other().id
				w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
				if expect > 0 {
					w.nodes[id].stop()
				}
				time.Sleep(10 * time.Minute)
				if role := w.role(id); role != "voter" {
					t.Errorf("%s is %q", id, role)
				}
			})
		})
	}
}

func TestNegativeRemoveFailedAfterKeepsForEver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		for _, n := range w.nodes {
			n.m.cfg.RemoveFailedAfter = -1
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
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c", "d", "e")
		leader := w.leader()
		for id := range w.nodes {
			if id != leader.id && id != w.other().id {
				w.show(id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
			}
		}
		time.Sleep(20 * time.Minute)
		if n := len(Servers(leader.running())); n != 5 {
			t.Errorf("%d members are left", n)
		}
		if warned := leader.log.count("member that is gone not removed"); warned > 3 {
			t.Errorf("%d warnings for 3 causes", warned)
		}
	})
}

// The leader acts on what it saw some seconds ago. Promoting means adding: a
// member that was removed meanwhile must not come back that way.
func TestStalePromotionDoesNotAddARemovedMember(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		w.fresh("d", nil)
		if _, err := leader.m.Join(t.Context(), joinRequest("d")); err != nil {
			t.Fatal(err)
		}
		if err := leader.m.Remove(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		if err := leader.epoch().promote("d", network.MemberAddress("d", "d:2")); err != nil {
			t.Error(err)
		}
		if role := w.role("d"); role != "none" {
			t.Errorf("d is %q", role)
		}
	})
}

func TestVoterThatWantsNoVoteLosesIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		id, leader := w.other().id, w.leader()
		w.show(id, func(p *cluster.Peer) { p.Nonvoter = true })
		w.show(leader.id, func(p *cluster.Peer) { p.Nonvoter = true }) // keeps it while it leads
		w.await(id, "nonvoter", time.Minute)
		time.Sleep(time.Minute)
		if role := w.role(leader.id); role != "voter" {
			t.Errorf("the leader is %q", role)
		}
		w.show(id, func(p *cluster.Peer) { p.Nonvoter = false })
		w.await(id, "voter", time.Minute)
	})
}

func TestDemotionThatBreaksTheMajorityIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		w.other().crash()
		id := w.other().id
		w.show(id, func(p *cluster.Peer) { p.Nonvoter = true })
		time.Sleep(5 * time.Minute)
		if role := w.role(id); role != "voter" {
			t.Errorf("%s is %q, and one of the two other voters is down", id, role)
		}
		if n := w.leader().log.count("member's vote not changed"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

// What gossip says of a member that is away, because it is started again or cut off: that
// it leaves, or has left. It has not said so itself, and is removed as late as any other.
func TestAMemberThatIsAwayIsNotRemovedBecauseGossipSaysThatItLeaves(t *testing.T) {
	for name, lie := range map[string]func(*cluster.Peer){
		"it leaves":                func(p *cluster.Peer) { p.Leaving = true },
		"it leaves, and is failed": func(p *cluster.Peer) { p.State, p.Leaving, p.Since = cluster.Failed, true, time.Now() },
		"it has left":              func(p *cluster.Peer) { p.State, p.Leaving, p.Since = cluster.Left, true, time.Now() },
		"it has left an hour ago":  func(p *cluster.Peer) { p.State, p.Since = cluster.Left, time.Now().Add(-time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.voters("a", "b", "c", "d", "e")
				w.leader()
				away := w.other()
				away.stop()
				w.lie(away.id, lie)
				time.Sleep(11 * time.Minute)
				if role := w.role(away.id); role != "voter" {
					t.Errorf("%s is %q, and has not left", away.id, role)
				}
			})
		})
	}
}

// A voter that is far behind would be counted on, and could commit nothing for long.
func TestAJoinerThatIsFarBehindIsNotPromoted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		for range maxLag + 10 {
			leader.raft.Apply(nil, 0)
		}
		d := w.fresh("d", nil)
		d.behind = true
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q and has only the first entry of more than %d", role, maxLag)
		}
		d.mu.Lock()
		d.behind = false
		d.mu.Unlock()
		w.await("d", "voter", time.Minute)
	})
}

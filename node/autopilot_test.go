package node

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
)

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

// A few entries do not count as behind, but a node that lacks its own joining does
// not vote yet, and nobody may count on it.
func TestJoinerThatLacksItsJoiningIsNotPromoted(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", nil)
		d.behind = true
		begin, err := d.form(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if begin.votesFrom < 2 {
			t.Errorf("d may vote from entry %d on", begin.votesFrom)
		}
		d.mu.Lock()
		d.votesFrom = begin.votesFrom
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
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
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
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		leader, other := w.leader(), w.other()
		leader.m.mu.Lock()
		term := leader.m.term
		leader.m.mu.Unlock()
		for range 100 { // until the other one has heard of its leader
			if term.stats(t.Context(), other.id, raft.ServerAddress(other.id+":2")) != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		s := term.stats(t.Context(), other.id, raft.ServerAddress(other.id+":2"))
		if own := term.ownStats(); s == nil || s.LastTerm != own.LastTerm || s.LastIndex > own.LastIndex {
			t.Errorf("stats are %+v, the leader's %+v", s, own)
		}
		if s := term.stats(t.Context(), other.id, "elsewhere:2"); s != nil {
			t.Errorf("at an address that is not the configuration's: %+v", s)
		}
		w.show(other.id, func(p *cluster.Peer) { p.API = leader.id + ":0" })
		if s := term.stats(t.Context(), other.id, raft.ServerAddress(other.id+":2")); s != nil {
			t.Errorf("another node answers: %+v", s)
		}
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
		if warned := leader.log.count("member that is gone not removed"); warned > 3 {
			t.Errorf("%d warnings for 3 causes", warned)
		}
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
			"transfer": changes.LeadershipTransferToServer("a", "a:2"),
		} {
			if f.Error() == nil {
				t.Errorf("autopilot may %s", what)
			}
		}
	})
}

func TestVoterThatWantsNoVoteLosesIt(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
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
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
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

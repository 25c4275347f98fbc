package network

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

var errEIO = errors.New("input/output error")

// A write that hangs on the leader: heartbeats must stop, another node must
// lead, and the hung node must come back when the write returns.
func TestHungWriteMovesTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		old := leaderOf(t, all, time.Second)
		rest := without(all, old)

		release := make(chan struct{})
		old.disk.set(func(f *faulty) { f.hang = release })
		start := time.Now()
		answered := make(chan error, 1)
		go func() { answered <- old.raft.Apply([]byte("hung"), time.Second).Error() }()
		leader := leaderOf(t, rest, 5*time.Second)
		took := time.Since(start)
		if limit := time.Second + time.Second; took > limit {
			t.Errorf("another leader after %v, want at most %v", took, limit)
		}
		t.Logf("disk hung: another leader after %v of virtual time", took)
		if !old.stores.Stalled() {
			t.Error("Stalled() = false while a write hangs")
		}
		if err := leader.raft.Apply([]byte("next"), time.Second).Error(); err != nil {
			t.Fatalf("Apply on the new leader: %v", err)
		}

		// The others have the command, which makes it committed once the old leader has it, too.
		time.Sleep(4 * time.Second)
		if n := len(old.fsm.All()); len(answered) > 0 || n > 0 {
			t.Errorf("%d commands applied, %d answered while the leader's write hangs", n, len(answered))
		}
		old.disk.set(func(f *faulty) { f.hang = nil })
		close(release)
		if err := <-answered; err != nil {
			t.Errorf("the command, which is durable on all nodes: %v", err)
		}
		rafttest.WaitFor(t, "the old leader follows", 2*time.Second, func() bool {
			_, id := old.raft.LeaderWithID()
			return old.raft.State() == raft.Follower && string(id) == leader.id
		})
		if err := leader.raft.Apply([]byte("last"), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		rafttest.WaitFor(t, "all apply the same", time.Second, func() bool {
			return fmt.Sprint(old.fsm.All()) == fmt.Sprint(leader.fsm.All()) && len(old.fsm.All()) == 3
		})
		if log := old.log.String(); strings.Count(log, "disk is stalled") != 1 || strings.Count(log, "disk answers again") != 1 {
			t.Errorf("the log does not tell the story once: %q", log)
		}
		if old.stores.Stalled() || len(old.reported()) != 0 {
			t.Errorf("after the write returned: Stalled() = %v, reported %v; want neither", old.stores.Stalled(), old.reported())
		}
	})
}

// Without the gate the leader heartbeats on, and nothing moves.
func TestHungWriteWithoutGateStopsTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		old := leaderOf(t, all, time.Second)
		old.ungated.Store(true)
		release := make(chan struct{})
		old.disk.set(func(f *faulty) { f.hang = release })
		hung := old.raft.Apply([]byte("hung"), time.Second)
		time.Sleep(30 * time.Second)
		for _, m := range without(all, old) {
			if _, id := m.raft.LeaderWithID(); string(id) != old.id {
				t.Errorf("%s follows %q; expected it to be stuck with %q", m.id, id, old.id)
			}
		}
		old.disk.set(func(f *faulty) { f.hang = nil })
		close(release)
		if err := hung.Error(); err != nil {
			t.Errorf("the hung command: %v", err)
		}
	})
}

// Disks that take 300 ms for a write, twice the leader's lease, slow the cluster
// down; they must not cost it its leader.
func TestSlowDisksKeepTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		term := leader.raft.CurrentTerm()
		for _, m := range all {
			m.disk.set(func(f *faulty) { f.slow = 300 * time.Millisecond })
		}
		failed := 0
		for range 60 {
			if err := leader.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
				failed++
			}
		}
		for _, m := range all {
			if got := m.raft.CurrentTerm(); got != term {
				t.Errorf("%s is in term %d, want still %d", m.id, got, term)
			}
		}
		if failed > 0 {
			t.Errorf("%d of 60 commands failed", failed)
		}
	})
}

// A failed write of the log on the leader.
func TestFailedLogWriteEndsTheLeaderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		old := leaderOf(t, all, time.Second)
		old.disk.set(func(f *faulty) { f.fail, f.failOn = errEIO, "log" })
		start := time.Now()
		if err := old.raft.Apply([]byte("lost"), time.Second).Error(); err == nil {
			t.Error("Apply succeeded on a failed disk")
		}
		before := old.disk.attempts()
		leader := leaderOf(t, without(all, old), 3*time.Second)
		t.Logf("log write failed: another leader after %v of virtual time", time.Since(start))
		if err := leader.raft.Apply([]byte("next"), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		wantOneReport(t, old, errEIO)
		if got := old.disk.attempts(); got != before {
			t.Errorf("%d writes were tried after the failed one, want none", got-before)
		}
		if old.raft.State() == raft.Leader {
			t.Error("the node with the failed disk leads again")
		}
	})
}

// A failed write of the term, where raft panics: on a candidate, and on a
// follower and a leader that hear of a newer term.
func TestFailedTermWriteDoesNotPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		victim := without(all, leader)[0]
		victim.disk.set(func(f *faulty) { f.fail, f.failOn = errEIO, "locknode/term" })
		_ = leader.trans.Close() // the others hold an election
		rafttest.WaitFor(t, "the failure is reported", 5*time.Second, func() bool { return len(victim.reported()) > 0 })
		wantOneReport(t, victim, errEIO)
		// Raft's main goroutine is gone; Shutdown must still find its end.
		if err := Shutdown(victim.raft, time.Second); err != nil {
			t.Errorf("Shutdown after the failure: %v", err)
		}
	})
}

func TestFailedVoteIsNotGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		rest := without(all, leader)
		for _, m := range rest {
			m.disk.set(func(f *faulty) { f.fail, f.failOn = errEIO, "locknode/vote" })
		}
		_ = leader.trans.Close()
		time.Sleep(10 * time.Second)
		failed := 0
		for _, m := range rest {
			if m.raft.State() == raft.Leader {
				t.Errorf("%s leads without a vote that was saved", m.id)
			}
			failed += len(m.reported())
		}
		if failed == 0 {
			t.Error("nobody reported the failed write")
		}
	})
}

// A committed entry that cannot be read, where raft panics too.
func TestUnreadableEntryEndsTheNodeNotTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		leader := leaderOf(t, all, time.Second)
		victim := without(all, leader)[0]
		for range 512 { // beyond the cache
			if err := leader.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		stop(t, []*member{victim})

		// It starts again on the same disk, where entry 100 is now damaged.
		mem := &disk.Memory{Log: victim.disk, Stable: victim.disk, Snapshots: raft.NewInmemSnapshotStore(), Identity: victim.stores.Identity()}
		reports := make(chan error, 10)
		s := mustOpen(t, disk.StoreOptions{NodeID: victim.id, Memory: mem, OnFailure: func(err error) { reports <- err }})
		// The layer of the first run is closed; a new one takes its address.
		network := leader.trans.streams.StreamLayer.(*memLayer).net
		trans := NewTransport(network.listen(raft.ServerAddress(victim.id)), TransportOptions{Gate: s.Gate})
		fsm := &rafttest.Machine{}
		// raft reads the whole log when it starts: let that pass, fail the apply.
		r, err := NewRaft(rafttest.Config(victim.id), fsm, s, trans)
		if err != nil {
			t.Fatal(err)
		}
		victim.disk.set(func(f *faulty) { f.unread = map[uint64]error{100: errEIO} })
		err = <-reports
		if !errors.Is(err, disk.ErrFailed) || !errors.Is(err, errEIO) {
			t.Errorf("reported %v, want ErrFailed and the cause", err)
		}
		time.Sleep(5 * time.Second)
		if len(reports) != 0 {
			t.Errorf("reported again: %v", <-reports)
		}
		if n := len(fsm.All()); n >= 100 {
			t.Errorf("applied %d commands past an unreadable entry", n)
		}
		if err := s.Gate(); !errors.Is(err, disk.ErrFailed) {
			t.Errorf("Gate = %v, want ErrFailed", err)
		}
		_ = trans.Close()
		if err := Shutdown(r, time.Second); err != nil {
			t.Error(err)
		}
		stop(t, without(all, victim))
	})
}

func wantOneReport(t *testing.T, m *member, cause error) {
	t.Helper()
	got := m.reported()
	if len(got) != 1 || !errors.Is(got[0], disk.ErrFailed) || !errors.Is(got[0], cause) {
		t.Errorf("%s reported %v, want one ErrFailed with %v", m.id, got, cause)
	}
	if err := m.stores.Gate(); !errors.Is(err, disk.ErrFailed) {
		t.Errorf("%s: Gate = %v, want ErrFailed", m.id, err)
	}
	if err := m.stores.Log.StoreLogs(rafttest.Entries(1, 1, 1)); err == nil {
		t.Errorf("%s takes writes after a failed one", m.id)
	}
}

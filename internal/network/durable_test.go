package network

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// hold has the log of a member hang, for less than the time after which the member keeps
// silent. release lets it go on.
func hold(m *member) (release func()) {
	wait := make(chan struct{})
	m.disk.set(func(f *faulty) { f.hang, f.hangOn = wait, "log" })
	return func() {
		m.disk.set(func(f *faulty) { f.hang, f.hangOn = nil, "" })
		close(wait)
	}
}

// submit has a leader propose a command. The error of it comes when there is one.
func submit(m *member, command string) <-chan error {
	answered := make(chan error, 1)
	go func() { answered <- m.raft.Apply([]byte(command), time.Second).Error() }()
	return answered
}

// While the leader still writes an entry, the others have it on their disks: it is stored by a
// majority without the leader, but nobody may apply it. The others are not told that it is
// committed, because Raft counts the leader.
func TestAnEntryHasNoEffectBeforeItIsDurableOnTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		rest := without(all, leader)
		release := hold(leader)
		begun, last := time.Now(), leader.raft.LastIndex()
		answered := submit(leader, "beside")
		rafttest.WaitFor(t, "the others have it", time.Second, func() bool {
			return rest[0].raft.LastIndex() > last && rest[1].raft.LastIndex() > last
		})
		if took := time.Since(begun); took > 100*time.Millisecond {
			t.Errorf("the others had it after %v, and the leader's disk did not let go", took)
		}
		time.Sleep(800 * time.Millisecond) // many times longer than until followers learn of commits
		if len(answered) > 0 {
			t.Error("the caller was answered before the leader had written the entry")
		}
		for _, m := range all {
			if applied := m.fsm.All(); len(applied) > 0 {
				t.Errorf("%s has applied %q before the leader had written it", m.id, applied)
			}
		}
		if index := Committed(leader.raft, leader.stores); index >= leader.raft.LastIndex() {
			t.Errorf("the leader says that entry %d is committed, which it still writes", index)
		}
		release()
		if err := <-answered; err != nil {
			t.Errorf("once it was written: %v", err)
		}
		rafttest.WaitFor(t, "all apply it", time.Second, func() bool {
			return len(all[0].fsm.All()) == 1 && len(all[1].fsm.All()) == 1 && len(all[2].fsm.All()) == 1
		})
	})
}

// The next leader may send an entry back that this one has sent, and counts the answer as that
// of a node that has it on its disk.
func TestALeaderThatIsReplacedAcknowledgesOnlyWhatItHasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		all := startClusterOn(t, network, func(l *memLayer) raft.StreamLayer { return l }, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		next := without(all, leader)[0]
		release, last := hold(leader), leader.raft.LastIndex()
		answered := submit(leader, "sent back")
		rafttest.WaitFor(t, "another one has it", time.Second, func() bool { return next.raft.LastIndex() > last })

		var entry, before raft.Log
		if err := next.stores.Log.GetLog(next.raft.LastIndex(), &entry); err != nil {
			t.Fatal(err)
		}
		if err := next.stores.Log.GetLog(entry.Index-1, &before); err != nil {
			t.Fatal(err)
		}
		asker := NewTransport(network.listen("asker"), TransportOptions{})
		defer func() { _ = asker.Close() }()
		type answer struct {
			success bool
			err     error
		}
		acknowledged := make(chan answer, 1)
		go func() {
			var got raft.AppendEntriesResponse
			err := asker.AppendEntries(raft.ServerID(leader.id), raft.ServerAddress(leader.id), &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(next.id), Addr: []byte(next.id)},
				Term:      entry.Term + 1, PrevLogEntry: before.Index, PrevLogTerm: before.Term, Entries: []*raft.Log{&entry},
			}, &got)
			acknowledged <- answer{got.Success, err}
		}()
		time.Sleep(300 * time.Millisecond)
		if len(acknowledged) > 0 {
			t.Fatalf("it answered %+v to an entry that it still writes", <-acknowledged)
		}
		release()
		if a := <-acknowledged; !a.success || a.err != nil {
			t.Errorf("once it was written: %+v", a)
		}
		t.Logf("the caller of the old leader got %v", <-answered)
	})
}

// A write that fails after the entry was sent ends the node, and not only the term: Raft
// takes the entry for stored.
func TestAFailedWriteOfAnEntryThatWasSentStopsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		old := leaderOf(t, all, time.Second)
		old.disk.set(func(f *faulty) { f.fail = errEIO })
		if err := <-submit(old, "lost here"); err == nil {
			if applied := old.fsm.All(); len(applied) > 0 {
				t.Errorf("applied %q, which was not written", applied)
			}
		}
		rest := without(all, old)
		leader := leaderOf(t, rest, 5*time.Second)
		if err := <-submit(leader, "next"); err != nil {
			t.Error(err)
		}
		if reported := old.reported(); len(reported) != 1 {
			t.Errorf("reported %v, want the one failure", reported)
		}
		if len(old.fsm.All()) > 0 {
			t.Errorf("the node whose disk has failed applied %q", old.fsm.All())
		}
	})
}

// Raft counts an entry as applied that it has handed over.
func TestNoSnapshotCountsAnEntryThatWasNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := newFaulty()
		s := mustOpen(t, disk.StoreOptions{NodeID: "a", Memory: &disk.Memory{Log: failing, Stable: failing, Snapshots: raft.NewInmemSnapshotStore()}})
		s.WriteBeside(func() bool { return true })
		machine := &rafttest.Machine{}
		f := &durableFSM{FSM: machine, stores: s}
		failing.set(func(f *faulty) { f.fail = errEIO })
		entries := rafttest.Entries(1, 2, 1)
		if err := s.Log.StoreLogs(entries); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err, _ := f.Apply(e).(error); !errors.Is(err, errEIO) {
				t.Errorf("Apply of entry %d = %v, want why it was not written", e.Index, err)
			}
		}
		if _, err := f.Snapshot(); !errors.Is(err, errEIO) || len(machine.All()) > 0 {
			t.Errorf("Snapshot = %v, applied %q", err, machine.All())
		}
	})
}

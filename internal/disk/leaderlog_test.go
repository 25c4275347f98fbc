package disk

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// heldLog is a log whose appends wait until they are let go.
type heldLog struct {
	*raft.InmemStore
	let   chan error // what the next append returns; nil is received from a closed one
	calls atomic.Int32
}

func (h *heldLog) StoreLogs(logs []*raft.Log) error {
	h.calls.Add(1)
	if err := <-h.let; err != nil {
		return err
	}
	return h.InmemStore.StoreLogs(logs)
}

// leading opens the stores of a leader whose appends wait, with the entries 1 to 3.
func leading(t *testing.T) (*Stores, *heldLog) {
	t.Helper()
	h := &heldLog{InmemStore: raft.NewInmemStore(), let: make(chan error)}
	s := mustOpen(t, StoreOptions{NodeID: "a", StallAfter: time.Hour, Memory: &Memory{Log: h, Stable: raft.NewInmemStore(), Snapshots: raft.NewInmemSnapshotStore()}})
	s.WriteBeside(func() bool { return true })
	if err := s.Log.StoreLogs(rafttest.Entries(1, 3, 1)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return s, h
}

// returned tells whether f has returned, once everything stands still.
func returned(f func()) func() bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

func TestWhatALeaderStillWritesCanBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := leading(t)
		for _, l := range []raft.LogStore{s.Log, s.log} { // also without the cache
			last, err := l.LastIndex()
			first, err2 := l.FirstIndex()
			if first != 1 || last != 3 || errors.Join(err, err2) != nil {
				t.Errorf("from %d to %d, %v, want 1 to 3", first, last, errors.Join(err, err2))
			}
			var e raft.Log
			if err := l.GetLog(2, &e); err != nil || e.Index != 2 || string(e.Data) != string(rafttest.Entries(2, 2, 1)[0].Data) {
				t.Errorf("GetLog(2) = %+v, %v", e, err)
			}
			if err := l.GetLog(4, &e); !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("GetLog(4) = %v, want that there is none", err)
			}
		}
		if s.Durable() != 0 {
			t.Errorf("durable up to %d, want 0", s.Durable())
		}
		close(h.let)
		if err := s.AwaitAll(); err != nil || s.Durable() != nonePending {
			t.Errorf("AwaitAll = %v, then durable up to %d", err, s.Durable())
		}
	})
}

// What comes while one append is under way is written with the next one, in order.
func TestALeaderWritesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := leading(t)
		third := returned(func() { _ = s.AwaitDurable(3) })
		fifth := returned(func() { _ = s.AwaitDurable(5) })
		for i := uint64(4); i <= 6; i++ {
			if err := s.Log.StoreLogs(rafttest.Entries(i, i, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if third() || fifth() {
			t.Error("an entry counts as durable that was not written")
		}
		h.let <- nil
		if !third() || fifth() || s.Durable() != 3 {
			t.Errorf("after the first append: entry 3 durable: %v, entry 5: %v; durable up to %d, want 3", third(), fifth(), s.Durable())
		}
		h.let <- nil
		if !fifth() || h.calls.Load() != 2 || s.Durable() != nonePending {
			t.Errorf("entry 5 durable: %v, after %d appends; durable up to %d", fifth(), h.calls.Load(), s.Durable())
		}
		if last, _ := h.LastIndex(); last != 6 {
			t.Errorf("the disk has entries up to %d, want 6", last)
		}
	})
}

// A follower, a first entry of a term, a change of the configuration and a cut come after
// what is pending, and return when they are durable.
func TestEverythingElseWaitsForWhatIsPending(t *testing.T) {
	configuration := []*raft.Log{{Index: 4, Term: 1, Type: raft.LogConfiguration, Data: []byte("c")}}
	for _, other := range []struct {
		name  string
		leads bool
		do    func(s *Stores) error
		last  uint64
	}{
		{"follower", false, func(s *Stores) error { return s.Log.StoreLogs(rafttest.Entries(4, 4, 1)) }, 4},
		{"configuration", true, func(s *Stores) error { return s.Log.StoreLogs(configuration) }, 4},
		{"first entry", true, func(s *Stores) error { return s.Log.StoreLog(&raft.Log{Index: 4, Term: 2, Type: raft.LogNoop}) }, 4},
		{"cut", true, func(s *Stores) error { return s.Log.DeleteRange(3, 3) }, 2},
	} {
		t.Run(other.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, h := leading(t)
				s.WriteBeside(func() bool { return other.leads })
				done := returned(func() {
					if err := other.do(s); err != nil {
						t.Error(err)
					}
				})
				if done() {
					t.Error("it did not wait")
				}
				h.let <- nil // the entries 1 to 3
				if other.last > 3 {
					if done() {
						t.Error("it returned before it was durable itself")
					}
					h.let <- nil
				}
				if !done() {
					t.Error("it did not return")
				}
				if last, err := h.LastIndex(); last != other.last || err != nil {
					t.Errorf("the disk has entries up to %d, %v, want %d", last, err, other.last)
				}
			})
		})
	}
}

// Nothing that waits is told that an entry is durable whose write has failed, and nothing is
// written after it.
func TestAFailedWriteBesideReplicationEndsAllWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := leading(t)
		var waited error
		done := returned(func() { waited = s.AwaitDurable(2) })
		h.let <- errEIO
		if !done() || !errors.Is(waited, errEIO) || s.Durable() != 0 {
			t.Errorf("AwaitDurable = %v, durable up to %d; want the failure, and none", waited, s.Durable())
		}
		for what, err := range map[string]error{
			"StoreLogs": s.log.StoreLogs(rafttest.Entries(4, 4, 1)), "DeleteRange": s.Log.DeleteRange(1, 1),
			"AwaitAll": s.AwaitAll(), "Gate": s.Gate(),
		} {
			if !errors.Is(err, errEIO) {
				t.Errorf("%s = %v, want the failure", what, err)
			}
		}
		if n := h.calls.Load(); n != 1 {
			t.Errorf("%d appends, want 1", n)
		}
	})
}

func TestClosingEndsTheWaitForAWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := leading(t)
		var waited error
		done := returned(func() { waited = s.AwaitDurable(2) })
		if err := s.Close(); !errors.Is(err, ErrStalled) {
			t.Errorf("Close = %v, want that a write has not returned", err)
		}
		if !done() || !errors.Is(waited, ErrClosed) {
			t.Errorf("AwaitDurable = %v, want that the stores are closed", waited)
		}
		close(h.let)
	})
}

// A leader that stores faster than its disk writes is held up, so that memory is bounded.
func TestWhatIsPendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := leading(t)
		next := uint64(4)
		store := func() {
			e := &raft.Log{Index: next, Term: 1, Type: raft.LogCommand, Data: make([]byte, mostPending/4)}
			next++
			if err := s.Log.StoreLog(e); err != nil {
				t.Error(err)
			}
		}
		for range 4 {
			store()
		}
		done := returned(store)
		if done() {
			t.Error("more is pending than may be")
		}
		close(h.let)
		if !done() || s.AwaitAll() != nil {
			t.Error("it is held up when nothing is pending any more")
		}
	})
}

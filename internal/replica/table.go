package replica

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/fsm"
)

// Table is a [fsm.Table] as a hashicorp/raft state machine. Its methods are safe
// for concurrent use.
//
// A panic in the table means that an invariant is broken, and that the table's contents are
// not reliable any more. Bytes from the network never cause one. The Table recovers, so that
// the process that embeds the node runs on. After that it applies, shows and snapshots
// nothing more, and calls the function of OnBroken, which stops the node. The entry stays in
// the log and is not skipped: a version without the bug applies it, alike on all nodes.
type Table struct {
	observe  func(fsm.Applied)
	restored func()
	raised   func(level uint32, version string)
	broke    func(error)

	mu     sync.RWMutex
	table  *fsm.Table // never nil
	broken error      // why the table is not to be used any more
}

// New returns a Table with an empty table. observe is called after each entry, in log
// order, on raft's goroutine and without any mutex held; it must be quick and must not
// change its argument. It may be nil.
func New(observe func(fsm.Applied)) *Table {
	if observe == nil {
		observe = func(fsm.Applied) {}
	}
	return &Table{table: fsm.New(), observe: observe, restored: func() {}, raised: func(uint32, string) {}, broke: func(error) {}}
}

// OnRestore sets a function that is called after a snapshot has replaced the table, on
// raft's goroutine: there are no events for what has changed, so what waits must check
// again. Call it before raft starts.
func (t *Table) OnRestore(f func()) { t.restored = f }

// OnLevel sets a function that is called when the table has another feature level, on
// raft's goroutine and before anything of that level is applied or written into a
// snapshot. f must not read the table. Call it before raft starts.
func (t *Table) OnLevel(f func(level uint32, version string)) { t.raised = f }

// OnBroken sets a function that is called once, on raft's goroutine, when an invariant of
// the table is broken, or when the table has a feature level that this program does not
// know ([fsm.LevelError]). The node must stop. Call it before raft starts.
func (t *Table) OnBroken(f func(error)) { t.broke = f }

// Apply implements [raft.FSM]. It returns an [fsm.Applied] for an entry of commands, nil
// for raft's own entries, and an error if the table is broken: then no entry has an effect
// any more.
func (t *Table) Apply(l *raft.Log) any {
	if l.Type != raft.LogCommand {
		return nil
	}
	a, first, err := t.apply(l)
	if err != nil {
		if first {
			t.broke(err)
		}
		return err
	}
	t.observe(a)
	return a
}

func (t *Table) apply(l *raft.Log) (a fsm.Applied, first bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return fsm.Applied{}, false, t.broken
	}
	defer func() {
		if cause := recover(); cause != nil {
			t.broken = fmt.Errorf("apply entry %d of term %d: lock table is broken: %v\n%s", l.Index, l.Term, cause, debug.Stack())
			first, err = true, t.broken
		}
	}()
	before, _ := t.table.Level()
	a = t.table.Apply(l.Index, l.Term, l.Data)
	if level, version := t.table.Level(); level != before {
		t.raised(level, version)
	}
	if t.broken = t.table.KnownLevel(); t.broken != nil {
		return fsm.Applied{}, true, t.broken
	}
	if at, ok := t.table.NextDeadline(); ok {
		a.NextDue = at
	}
	return a, false, nil
}

// View calls f with the table, which does not change while f runs. It waits for the entry
// that is being applied. f must not keep the table; what its methods return belongs to f.
// Once the table is broken, View does not call f and returns false: no answer is better than
// a wrong one.
func (t *Table) View(f func(*fsm.Table)) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.broken != nil {
		return false
	}
	f(t.table)
	return true
}

// TryView is View without waiting: ran is false, and f was not called, if the table is being
// changed at the moment.
func (t *Table) TryView(f func(*fsm.Table)) (ran, intact bool) {
	if !t.mu.TryRLock() {
		return false, false
	}
	defer t.mu.RUnlock()
	if t.broken != nil {
		return true, false
	}
	f(t.table)
	return true, true
}

// Snapshot implements [raft.FSM]. It takes constant time; the snapshot is
// written while entries are applied.
func (t *Table) Snapshot() (raft.FSMSnapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return nil, t.broken
	}
	return raftSnapshot{t.table.Snapshot()}, nil
}

// Restore implements [raft.FSM]. If it returns an error, the table is as it was.
func (t *Table) Restore(r io.ReadCloser) error {
	table, err := fsm.Restore(r)
	if unknown := (*fsm.LevelError)(nil); errors.As(err, &unknown) {
		t.refuse(unknown)
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	before, _ := t.table.Level()
	if level, version := table.Level(); level != before {
		t.raised(level, version)
	}
	t.mu.Lock()
	t.table = table
	t.mu.Unlock()
	t.restored()
	return nil
}

// refuse breaks the table because that of the others is at a feature level that this program
// does not know: otherwise they would send the same snapshot again and again.
func (t *Table) refuse(e *fsm.LevelError) {
	t.raised(e.Level, e.Version)
	t.mu.Lock()
	first := t.broken == nil
	if first {
		t.broken = e
	}
	t.mu.Unlock()
	if first {
		t.broke(e)
	}
}

// raftSnapshot is a [raft.FSMSnapshot].
type raftSnapshot struct{ *fsm.Snapshot }

// Persist writes the snapshot and closes the sink, or cancels it.
func (s raftSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: the garbage collector frees what only the snapshot refers to.
func (raftSnapshot) Release() {}

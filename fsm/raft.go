package fsm

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/raft"
)

// Machine is a [Table] as a hashicorp/raft state machine. Its methods are safe
// for concurrent use.
//
// A panic in the table means that an invariant is broken, and what the table
// holds after it is worth nothing. Bytes from the network never cause one. The
// Machine catches it, so that the process that embeds the node lives on; it
// applies, shows and snapshots nothing more, and tells its owner, who stops the
// node. The entry stays in the log and is not skipped: what it means is decided
// by a version without the bug, alike on all nodes.
type Machine struct {
	observe  func(Applied)
	restored func()
	broke    func(error)

	mu     sync.RWMutex
	table  *Table // never nil
	broken error  // why the table is not to be used any more
}

// NewMachine returns a Machine with an empty table. observe is called after
// each entry, in log order, on raft's goroutine and without any mutex held; it
// must be quick and not change what it is given. It may be nil.
func NewMachine(observe func(Applied)) *Machine {
	if observe == nil {
		observe = func(Applied) {}
	}
	return &Machine{table: New(), observe: observe, restored: func() {}, broke: func(error) {}}
}

// OnRestore sets a function that is called after a snapshot has replaced the
// table, on raft's goroutine: no events tell what changed, so whoever waits must
// ask again. Call it before raft starts.
func (m *Machine) OnRestore(f func()) { m.restored = f }

// OnBroken sets a function that is called once, on raft's goroutine, when an
// invariant of the table turned out to be broken. The node must stop. Call it
// before raft starts.
func (m *Machine) OnBroken(f func(error)) { m.broke = f }

// Apply implements [raft.FSM]. It returns an [Applied] for an entry that holds
// commands, nil for raft's own entries, and an error if the table is broken: no
// entry has an effect any more then.
func (m *Machine) Apply(l *raft.Log) any {
	if l.Type != raft.LogCommand {
		return nil
	}
	a, first, err := m.apply(l)
	if err != nil {
		if first {
			m.broke(err)
		}
		return err
	}
	m.observe(a)
	return a
}

func (m *Machine) apply(l *raft.Log) (a Applied, first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return Applied{}, false, m.broken
	}
	defer func() {
		if cause := recover(); cause != nil {
			m.broken = fmt.Errorf("apply entry %d of term %d: lock table is broken: %v\n%s", l.Index, l.Term, cause, debug.Stack())
			first, err = true, m.broken
		}
	}()
	a = m.table.Apply(l.Index, l.Term, l.Data)
	if at, ok := m.table.NextDeadline(); ok {
		a.NextDue = at
	}
	return a, false, nil
}

// View calls f with the table, which stays as it is while f runs. f must not
// keep it; what the table's methods return is f's own. After the table broke, f
// is not called and View returns false: no answer is better than a wrong one.
func (m *Machine) View(f func(*Table)) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.broken != nil {
		return false
	}
	f(m.table)
	return true
}

// TryView is View for who must not wait: ran is false, and f was not called, if
// the table is being changed at this moment.
func (m *Machine) TryView(f func(*Table)) (ran, intact bool) {
	if !m.mu.TryRLock() {
		return false, false
	}
	defer m.mu.RUnlock()
	if m.broken != nil {
		return true, false
	}
	f(m.table)
	return true, true
}

// Snapshot implements [raft.FSM]. It takes constant time; the snapshot is
// written while entries are applied.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	return raftSnapshot{m.table.Snapshot()}, nil
}

// Restore implements [raft.FSM]. If it returns an error, the table is as it was.
func (m *Machine) Restore(r io.ReadCloser) error {
	table, err := Restore(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	m.mu.Lock()
	m.table = table
	m.mu.Unlock()
	m.restored()
	return nil
}

// raftSnapshot is a [raft.FSMSnapshot].
type raftSnapshot struct{ *Snapshot }

// Persist writes the snapshot and closes the sink, or cancels it.
func (s raftSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to do: the garbage collector takes what only the snapshot
// still holds.
func (raftSnapshot) Release() {}

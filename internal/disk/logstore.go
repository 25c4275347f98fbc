package disk

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/raftlog"
)

// guardedLog is the log store that raft gets, below the cache. Every write and read is
// watched.
type guardedLog struct {
	inner   raft.LogStore // checks its entries, and has the mark written
	watch   *watch
	onState func() error // called after the first successful write
}

// IsMonotonic makes raft empty the log after it restored a snapshot.
func (g *guardedLog) IsMonotonic() bool { return true }

// FirstIndex is 0 for an empty log.
func (g *guardedLog) FirstIndex() (i uint64, err error) {
	err = g.watch.read("read first index of the log", func() (err error) {
		i, err = g.inner.FirstIndex()
		return err
	})
	return i, endInsteadOfPanic(err)
}

// LastIndex is 0 for an empty log.
func (g *guardedLog) LastIndex() (i uint64, err error) {
	err = g.watch.read("read last index of the log", func() (err error) {
		i, err = g.inner.LastIndex()
		return err
	})
	return i, endInsteadOfPanic(err)
}

// GetLog returns raft.ErrLogNotFound itself for an entry that is not there, and
// ErrFailed for one that cannot be read or does not match its checksum.
func (g *guardedLog) GetLog(index uint64, l *raft.Log) error {
	err := g.watch.read("read log entry", func() error {
		if err := g.inner.GetLog(index, l); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		return nil
	})
	return endInsteadOfPanic(err)
}

// StoreLog is StoreLogs with one entry.
func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs returns when the entries are durable and the mark knows them.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	err := g.watch.write("append to the log", func() error {
		if err := g.inner.StoreLogs(logs); err != nil {
			return err
		}
		return g.onState()
	})
	return endInsteadOfPanic(err)
}

// DeleteRange cuts the log at one of its ends.
func (g *guardedLog) DeleteRange(from, to uint64) error {
	return endInsteadOfPanic(g.watch.write("delete from the log", func() error { return g.inner.DeleteRange(from, to) }))
}

// markedLog is a log in raft-boltdb, which does not know what it has acknowledged. The log
// in segment files has its own mark.
type markedLog struct {
	checkedLog
	snapshots raft.SnapshotStore
	mark      *raftlog.Mark // nil in memory
}

// StoreLog is StoreLogs with one entry.
func (m markedLog) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs returns when the entries are durable and the mark knows them.
func (m markedLog) StoreLogs(logs []*raft.Log) error {
	if err := m.checkedLog.StoreLogs(logs); err != nil {
		return err
	}
	last := logs[len(logs)-1]
	return m.mark.Advance(0, last.Index, last.Term)
}

// DeleteRange lowers the mark, durably, before it cuts the end of the log.
func (m markedLog) DeleteRange(from, to uint64) error {
	last, err := m.LastIndex()
	if err != nil {
		return err
	}
	if to >= last && from <= last {
		if err := m.lower(from); err != nil {
			return err
		}
	}
	return m.checkedLog.DeleteRange(from, to)
}

func (m markedLog) lower(from uint64) error {
	first, err := m.FirstIndex()
	if err != nil {
		return err
	}
	if from <= first {
		index, term, err := newestSnapshot(m.snapshots)
		if err != nil {
			return err
		}
		return m.mark.Empty(index, term, 1)
	}
	var keep raft.Log
	if err := m.GetLog(from-1, &keep); err != nil {
		return fmt.Errorf("entry %d: %w", from-1, err)
	}
	return m.mark.Lower(keep.Index, keep.Term)
}

// newestSnapshot is for a log of which nothing is left: what was acknowledged is in the
// newest snapshot then, and with an older one alone the node would have forgotten it.
func newestSnapshot(snapshots raft.SnapshotStore) (index, term uint64, err error) {
	snaps, err := snapshots.List()
	if err != nil {
		return 0, 0, fmt.Errorf("list snapshots: %w", err)
	}
	if len(snaps) == 0 {
		return 0, 0, nil
	}
	return snaps[0].Index, snaps[0].Term, nil
}

// scan reads the whole log; of one in segment files, which was read when it was opened, the
// last entry. It returns the first damaged index with the error.
func scan(log raft.LogStore) (lastTerm uint64, badIndex uint64, err error) {
	first, err := log.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return 0, 0, err
	}
	if last == 0 {
		return 0, 0, nil
	}
	if _, read := log.(*raftlog.Log); read {
		first = last
	}
	var l raft.Log
	for i := first; i <= last; i++ {
		if err := log.GetLog(i, &l); err != nil {
			return 0, i, err
		}
		if l.Term < lastTerm {
			return 0, i, fmt.Errorf("term falls from %d to %d", lastTerm, l.Term)
		}
		lastTerm = l.Term
	}
	return lastTerm, 0, nil
}

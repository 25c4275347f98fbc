package guard

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// guardedLog is the log store that raft gets, below the cache: watched, sealed,
// marked.
type guardedLog struct {
	inner     checkedLog
	snapshots raft.SnapshotStore
	watch     *watch
	mark      *mark        // nil in memory
	onState   func() error // called after the first successful write
}

// IsMonotonic is what checkedLog says.
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
		last := logs[len(logs)-1]
		if err := g.mark.advance(last.Index, last.Term); err != nil {
			return err
		}
		return g.onState()
	})
	return endInsteadOfPanic(err)
}

// DeleteRange lowers the mark, durably, before it cuts the end of the log.
func (g *guardedLog) DeleteRange(from, to uint64) error {
	err := g.watch.write("delete from the log", func() error {
		last, err := g.inner.LastIndex()
		if err != nil {
			return err
		}
		if to >= last && from <= last {
			if err := g.lowerMark(from); err != nil {
				return err
			}
		}
		return g.inner.DeleteRange(from, to)
	})
	return endInsteadOfPanic(err)
}

func (g *guardedLog) lowerMark(from uint64) error {
	first, err := g.inner.FirstIndex()
	if err != nil {
		return err
	}
	if from <= first {
		return g.lowerToSnapshot()
	}
	var keep raft.Log
	if err := g.inner.GetLog(from-1, &keep); err != nil {
		return fmt.Errorf("entry %d: %w", from-1, err)
	}
	return g.mark.lower(keep.Index, keep.Term)
}

// lowerToSnapshot is for a log of which nothing is left: what was acknowledged is in
// the newest snapshot then, and with an older one alone the node would have forgotten it.
func (g *guardedLog) lowerToSnapshot() error {
	if g.mark == nil {
		return nil
	}
	snaps, err := g.snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	if len(snaps) == 0 {
		return g.mark.lower(0, 0)
	}
	return g.mark.lower(snaps[0].Index, snaps[0].Term)
}

// scan reads the whole log. It returns the first damaged index with the error.
func (c checkedLog) scan() (lastTerm uint64, badIndex uint64, err error) {
	first, err := c.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err := c.LastIndex()
	if err != nil {
		return 0, 0, err
	}
	if last == 0 {
		return 0, 0, nil
	}
	var l raft.Log
	for i := first; i <= last; i++ {
		if err := c.GetLog(i, &l); err != nil {
			return 0, i, err
		}
		if l.Term < lastTerm {
			return 0, i, fmt.Errorf("term falls from %d to %d", lastTerm, l.Term)
		}
		lastTerm = l.Term
	}
	return lastTerm, 0, nil
}

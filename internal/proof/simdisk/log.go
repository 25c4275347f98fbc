package simdisk

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/raft"
)

// logStore is a raft.MonotonicLogStore.
type logStore struct{ *life }

var _ raft.MonotonicLogStore = logStore{}

// IsMonotonic says that a gap would be refused.
func (logStore) IsMonotonic() bool { return true }

// FirstIndex is 0 for an empty log.
func (s logStore) FirstIndex() (i uint64, err error) {
	err = s.read(func(c *content) error { i = c.first(); return nil })
	return i, err
}

// LastIndex is 0 for an empty log.
func (s logStore) LastIndex() (i uint64, err error) {
	err = s.read(func(c *content) error { i = c.last(); return nil })
	return i, err
}

// GetLog returns raft.ErrLogNotFound for an entry that is not there.
func (s logStore) GetLog(index uint64, l *raft.Log) error {
	return s.read(func(c *content) error {
		e := c.entry(index)
		if e == nil {
			return raft.ErrLogNotFound
		}
		*l = cloneEntry(e)
		return nil
	})
}

// StoreLog is StoreLogs with one entry.
func (s logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends all of the entries, or none if they leave a gap.
func (s logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	batch := make([]raft.Log, len(logs))
	for i, l := range logs {
		batch[i] = cloneEntry(l)
	}
	return s.write(func(c *content) (op, error) {
		last := c.last()
		if last == 0 { // an empty log begins anywhere
			last = batch[0].Index - 1
		}
		for i := range batch {
			if want := last + 1 + uint64(i); batch[i].Index != want {
				return nil, fmt.Errorf("append entry %d: must be %d, log is %d to %d", batch[i].Index, want, c.first(), c.last())
			}
		}
		return func(c *content) { c.entries = append(c.entries, batch...) }, nil
	})
}

// DeleteRange drops the start or the end of the log, or all of it.
func (s logStore) DeleteRange(from, to uint64) error {
	return s.write(func(c *content) (op, error) {
		first, last := c.first(), c.last()
		switch {
		case last == 0 || from > to || to < first || from > last:
			return func(*content) {}, nil
		case from <= first:
			return func(c *content) { c.cutStart(to) }, nil
		case to >= last:
			return func(c *content) { c.cutEnd(from) }, nil
		}
		return nil, fmt.Errorf("delete entries %d to %d: would leave a gap, log is %d to %d", from, to, first, last)
	})
}

func cloneEntry(l *raft.Log) raft.Log {
	e := *l
	e.Data, e.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
	return e
}

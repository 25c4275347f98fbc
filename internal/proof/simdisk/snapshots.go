package simdisk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

var errSinkClosed = errors.New("snapshot is closed")

// snapshotStore is a raft.SnapshotStore.
type snapshotStore struct{ *life }

// Create starts a snapshot; it does not exist until it is closed.
func (s snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("create snapshot: version: is %d, must be 1", version)
	}
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life != s.life {
		return nil, ErrCrashed
	}
	d.snapshot++
	return &sink{life: s.life, number: d.snapshot, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, d.snapshot), Index: index, Term: term,
		Configuration: c.Clone(), ConfigurationIndex: ci,
	}}, nil
}

// List returns the newest first.
func (s snapshotStore) List() (all []*raft.SnapshotMeta, err error) {
	err = s.read(func(c *content) error {
		for _, snap := range c.snapshots {
			all = append(all, cloneMeta(&snap.meta))
		}
		return nil
	})
	return all, err
}

// Open fails for a snapshot that does not match its checksum.
func (s snapshotStore) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	err = s.read(func(c *content) error {
		for _, snap := range c.snapshots {
			switch {
			case snap.meta.ID != id:
			case snap.damaged:
				return fmt.Errorf("open snapshot %s: checksum does not match", id)
			default:
				// Reads copy; the bytes themselves are never changed.
				meta, r = cloneMeta(&snap.meta), io.NopCloser(bytes.NewReader(snap.contents))
				return nil
			}
		}
		return fmt.Errorf("open snapshot %s: there is none", id)
	})
	return meta, r, err
}

func cloneMeta(m *raft.SnapshotMeta) *raft.SnapshotMeta {
	c := *m
	c.Configuration = m.Configuration.Clone()
	return &c
}

func newestFirst(a, b *snapshot) int {
	return cmp.Or(cmp.Compare(b.meta.Term, a.meta.Term), cmp.Compare(b.meta.Index, a.meta.Index), cmp.Compare(b.number, a.number))
}

// sink is a snapshot that is being written.
type sink struct {
	*life
	number uint64

	mu     sync.Mutex // guards what follows
	meta   raft.SnapshotMeta
	b      []byte
	closed bool
}

// ID returns what the snapshot will be listed under.
func (s *sink) ID() string { return s.meta.ID }

// Write collects the contents.
func (s *sink) Write(b []byte) (int, error) {
	if err := s.read(func(*content) error { return nil }); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errSinkClosed
	}
	s.b = append(s.b, b...)
	return len(b), nil
}

// Close is the one write that makes the snapshot durable and visible, or leaves
// none. It does nothing the second time.
func (s *sink) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.meta.Size = int64(len(s.b))
	snap := &snapshot{meta: *cloneMeta(&s.meta), number: s.number, contents: slices.Clip(s.b)}
	s.mu.Unlock()
	return s.write(func(*content) (op, error) {
		return func(c *content) { c.addSnapshot(snap) }, nil
	})
}

// Cancel leaves no snapshot. After Close it does nothing.
func (s *sink) Cancel() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.b = true, nil
	return nil
}

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/replica"
)

// When does a node write a snapshot? What it has applied since the last one it has to
// apply again at its next start, and serves nobody meanwhile. How long that takes goes
// by the bytes of the entries, and not by their number, which is what Raft counts: an
// entry holds one command or two thousand. So the node counts bytes, and asks Raft for
// a snapshot when there are too many. Raft's own threshold stays, for a node that
// lives on small entries.
//
// A large table takes long to write, and a slow disk takes long for any. The bound
// grows with the table: a quarter of the last snapshot. And from the end of one
// snapshot to the begin of the next it takes four times as long as the one took, so
// that a node that is overrun by entries spends a fifth of its time on snapshots, and
// no more.

const (
	// snapshotBytes is how many bytes of entries a start may have to apply again. They
	// take about 1 s of a processor where locks are taken and released, and 2.7 s where
	// all commands are acquires that stay.
	snapshotBytes = 32 << 20
	// entryCost is what an entry costs beside its bytes: reading and checking it.
	entryCost = 512
	// snapshotShare is the part of a table that may be applied again.
	snapshotShare = 4
	// snapshotRest is how many times the duration of a snapshot comes before the next.
	snapshotRest = 4
	// slackShare is the part of that which the log may hold besides what snapshots need.
	slackShare = 4
	// snapshotPause is the shortest time between two snapshots, and between two tries.
	snapshotPause = time.Second
)

// errStopping ends a snapshot that is being written.
var errStopping = errors.New("the node is stopping")

// snapshots counts what has been applied since the last snapshot. Its goroutine is
// run; all else is called by those of Raft.
type snapshots struct {
	base    int64 // bytes; see snapshotBytes
	mono    func() time.Duration
	wake    chan struct{} // holds a token when a snapshot is due
	applied atomic.Int64  // bytes of entries that were applied in this life

	mu    sync.Mutex // guards what follows, of the last snapshot taken or restored
	at    int64      // of applied
	index uint64     // of the last command in it
	entry int64      // bytes of an entry, on average, between it and the one before; 0: not known
	size  int64
	rest  time.Duration // mono; nothing is written before
	now   bool          // another one is being written
}

func newSnapshots(base int64, mono func() time.Duration) *snapshots {
	if base == 0 {
		base = snapshotBytes
	}
	return &snapshots{base: base, mono: mono, wake: make(chan struct{}, 1)}
}

// add counts an entry.
func (s *snapshots) add(bytes int) {
	s.applied.Add(int64(bytes) + entryCost)
	if s.replay() <= s.base { // no lock for most of them
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// replay is how many bytes a start would apply again.
func (s *snapshots) replay() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied.Load() - s.at
}

// due reports whether a snapshot is to be written, and otherwise how long to wait
// before looking again; zero is until the next entry.
func (s *snapshots) due() (ok bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now := s.mono(); {
	case s.applied.Load()-s.at <= max(s.base, s.size/snapshotShare):
		return false, 0
	case s.now:
		return false, snapshotPause
	case now < s.rest:
		return false, s.rest - now
	}
	return true, 0
}

// run has snapshots taken until ctx ends. take returns when one is written.
func (s *snapshots) run(ctx context.Context, take func() error) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		ok, wait := s.due()
		if ok {
			if err := take(); err != nil {
				s.mu.Lock()
				s.rest = s.mono() + snapshotPause
				s.mu.Unlock()
			}
			continue
		}
		if wait > 0 {
			t.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-t.C:
		}
	}
}

// taken says that a snapshot is there, of what was applied then.
func (s *snapshots) taken(at int64, index uint64, size int64, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry = 0
	if index > s.index && at > s.at {
		s.entry = (at - s.at) / int64(index-s.index)
	}
	s.at, s.index, s.size = at, index, size
	s.rest = s.mono() + max(snapshotPause, snapshotRest*took)
}

// begin notes that one is being written.
func (s *snapshots) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = true
}

// trailing is how many entries the log is to keep, when it ends with the entry last and a
// snapshot of what was applied up to index has been written; see keepLog. most bounds what
// snapshots do not need.
func (s *snapshots) trailing(index, last, most uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	slack := most
	if s.entry > 0 {
		slack = min(slack, uint64(s.base/slackShare/s.entry))
	}
	before := min(s.index, index) // a newer one may have come from the leader meanwhile
	last = max(last, index)
	return (last - before) + (index-before)/slackShare + (last - index) + slack
}

func (s *snapshots) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = false
}

// takeSnapshot asks Raft for a snapshot and waits for it.
func (n *Node) takeSnapshot(r *raft.Raft) error {
	err := r.Snapshot().Error()
	if err != nil {
		// After a change of the configuration Raft can take one when the next command
		// has been applied.
		n.log.Debug("snapshot not taken", "err", err)
	}
	return err
}

// The rest is the state machine as Raft sees it, and its snapshots.

// watchedTable tells the node of entries and snapshots.
type watchedTable struct {
	*replica.Table
	n *Node
}

// Apply implements [raft.FSM].
func (r watchedTable) Apply(l *raft.Log) any {
	if applying := r.n.cfg.seams.Applying; applying != nil && l.Type == raft.LogCommand {
		applying(l.Index)
	}
	res := r.Table.Apply(l)
	r.n.snapshots.add(len(l.Data))
	return res
}

// Snapshot implements [raft.FSM].
func (r watchedTable) Snapshot() (raft.FSMSnapshot, error) {
	s, err := r.Table.Snapshot()
	if err != nil {
		return nil, err
	}
	r.n.snapshots.begin()
	return &watchedSnapshot{FSMSnapshot: s, n: r.n, at: r.n.snapshots.applied.Load(), index: r.n.appliedIndex()}, nil
}

// Restore implements [raft.FSM].
func (r watchedTable) Restore(from io.ReadCloser) error {
	read := &countedReader{ReadCloser: from}
	if err := r.Table.Restore(read); err != nil {
		return err
	}
	r.n.snapshots.taken(r.n.snapshots.applied.Load(), r.n.appliedIndex(), read.bytes, 0)
	return nil
}

// keepLog has Raft leave so much of the log, when it has written a snapshot of what
// was applied up to index, that the log reaches back behind the snapshot before: the
// node can start from that one if the new one turns out to be damaged. And somewhat
// more, for what comes until Raft cuts the log, which it counts from the end: as much as
// came while the snapshot was written, and a quarter of what lies between the two. And for
// others that have been away for a moment, of whom most are content with what is there:
// entries of a quarter of snapshotBytes, for Raft counts entries, and 2,048 of them may be
// 256 MiB. What is left before the snapshot is not applied at a start.
func (n *Node) keepLog(index uint64) {
	r := n.raft.Load()
	if r == nil {
		return
	}
	conf := r.ReloadableConfig()
	conf.TrailingLogs = n.snapshots.trailing(index, r.LastIndex(), n.logSlack)
	if err := r.ReloadConfig(conf); err != nil {
		n.log.Warn("length of the log not changed", "err", err)
	}
}

// watchedSnapshot tells what becomes of a snapshot.
type watchedSnapshot struct {
	raft.FSMSnapshot
	n     *Node
	at    int64 // bytes applied then
	index uint64
}

// Persist implements [raft.FSMSnapshot].
func (s *watchedSnapshot) Persist(sink raft.SnapshotSink) error {
	began := s.n.cfg.seams.Mono()
	counted := &countedSink{SnapshotSink: sink, stop: s.n.ctx}
	if err := s.FSMSnapshot.Persist(counted); err != nil {
		return err
	}
	s.n.keepLog(s.index)
	s.n.snapshots.taken(s.at, s.index, counted.bytes, s.n.cfg.seams.Mono()-began)
	return nil
}

// Release implements [raft.FSMSnapshot].
func (s *watchedSnapshot) Release() {
	s.n.snapshots.end()
	s.FSMSnapshot.Release()
}

// countedSink ends a snapshot when the node stops.
type countedSink struct {
	raft.SnapshotSink
	stop  context.Context
	bytes int64
}

// Write is part of io.Writer.
func (s *countedSink) Write(b []byte) (int, error) {
	if s.stop.Err() != nil {
		return 0, fmt.Errorf("write snapshot %s: %w", s.ID(), errStopping)
	}
	n, err := s.SnapshotSink.Write(b)
	s.bytes += int64(n)
	return n, err
}

type countedReader struct {
	io.ReadCloser
	bytes int64
}

// Read is part of io.Reader.
func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.bytes += int64(n)
	return n, err
}

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

// When does a node write a snapshot? Entries that it has applied since the last snapshot it
// has to apply again at its next start, and it serves nothing until that is done. How long
// that takes depends on the bytes of the entries, and not on their number, which Raft
// counts: an entry has one command or two thousand. So the node counts bytes, and requests
// a snapshot from Raft when there are too many. Raft's own threshold stays, for nodes whose
// entries are small.
//
// A large table takes long to write, and a slow disk takes long for any table. So the bound
// grows with the table: it is at least a quarter of the last snapshot. And the time from the
// end of one snapshot to the begin of the next is four times the duration of the first, so
// that a node with very many entries spends at most a fifth of its time on snapshots.

const (
	// snapshotBytes is how many bytes of entries a start may have to apply again. They
	// take about 1 s of a processor where locks are taken and released, and 2.7 s where
	// all commands are acquires that stay.
	snapshotBytes = 32 << 20
	// entryCost is counted for each entry besides its bytes, for reading and checking it.
	entryCost = 512
	// snapshotShare is the share of the last snapshot's bytes that may be applied again, as
	// a divisor.
	snapshotShare = 4
	// snapshotRest is the time between two snapshots, in durations of the first.
	snapshotRest = 4
	// slackShare is the share of snapshotBytes that the log may hold besides what snapshots
	// need, as a divisor.
	slackShare = 4
	// snapshotPause is the shortest time between two snapshots, and between two tries.
	snapshotPause = time.Second
)

// errStopping ends a snapshot that is being written.
var errStopping = errors.New("the node is stopping")

// snapshots counts what has been applied since the last snapshot. Its goroutine is
// run; Raft's goroutines call everything else.
type snapshots struct {
	base    int64 // bytes; see snapshotBytes
	mono    func() time.Duration
	woken   chan struct{} // holds a token when a snapshot may be due
	applied atomic.Int64  // bytes of entries applied since the start

	mu    sync.Mutex // guards what follows, of the last snapshot taken or restored
	at    int64      // of applied
	index uint64     // of the last command in it
	entry int64      // bytes of an entry, on average, since the one before; 0: not known
	size  int64
	rest  time.Duration // mono before which no other is written
	now   bool          // another one is being written
}

func newSnapshots(base int64, mono func() time.Duration) *snapshots {
	if base == 0 {
		base = snapshotBytes
	}
	return &snapshots{base: base, mono: mono, woken: make(chan struct{}, 1)}
}

// add counts an entry.
func (s *snapshots) add(bytes int) {
	s.applied.Add(int64(bytes) + entryCost)
	if s.replay() > s.base {
		s.wake()
	}
}

// wake has run check whether a snapshot is due.
func (s *snapshots) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// replay returns how many bytes a start would apply again.
func (s *snapshots) replay() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied.Load() - s.at
}

// due reports whether a snapshot is due, and otherwise how long to wait before checking
// again; zero is until the next wake.
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

// run calls take when a snapshot is due, until ctx ends. take returns when it is written.
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
		case <-s.woken:
		case <-t.C:
		}
	}
}

// taken is called when a snapshot was written or restored. at is the value of applied and
// index the last command as of the snapshot.
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

// begin is called when a snapshot begins to be written, and end when that has ended.
func (s *snapshots) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = true
}

// trailing returns how many entries the log is to keep, if it ends with the entry last and a
// snapshot of what was applied up to index has been written; see keepLog. most bounds those
// that snapshots do not need.
func (s *snapshots) trailing(index, last, most uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	slack := most
	if s.entry > 0 {
		slack = min(slack, uint64(s.base/slackShare/s.entry))
	}
	before := min(s.index, index) // the leader may have sent a newer one meanwhile
	last = max(last, index)
	return (last - before) + (index-before)/slackShare + (last - index) + slack
}

func (s *snapshots) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = false
}

// takeSnapshot requests a snapshot from Raft and waits for it.
func (n *Node) takeSnapshot(r *raft.Raft) error {
	err := r.Snapshot().Error()
	if err != nil {
		// After a change of the configuration Raft can take one only once the next command
		// is applied.
		n.log.Debug("snapshot not taken", "err", err)
	}
	return err
}

// The rest is the state machine as Raft sees it, and its snapshots.

// watchedTable counts entries and snapshots for the node.
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

// keepLog sets how much of the log Raft keeps once it has written a snapshot of what was
// applied up to index:
//
//   - The log reaches back to the snapshot before, so that the node can start from that one
//     if the new one turns out to be damaged.
//   - Raft counts from the end of the log, so there is room for entries that come until it
//     cuts the log: as many as came while the snapshot was written, and a quarter of those
//     between the two snapshots.
//   - There is more for followers that were away for a moment, of which most need no more:
//     entries of a quarter of snapshotBytes. That is in bytes because Raft counts entries,
//     and 2,048 of them may have 256 MiB.
//
// Entries that are kept before the snapshot are not applied at a start.
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

// watchedSnapshot notes whether a snapshot was written.
type watchedSnapshot struct {
	raft.FSMSnapshot
	n     *Node
	at    int64 // value of snapshots.applied as of the snapshot
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

// Write implements [io.Writer].
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

// Read implements [io.Reader].
func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.bytes += int64(n)
	return n, err
}

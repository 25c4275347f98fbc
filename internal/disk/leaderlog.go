package disk

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A leader sends entries to the others while its own disk still writes them, so that an entry
// waits for the slower of both and not for their sum (section 10.2.1 of Ongaro's
// dissertation). Raft's own leader first stores entries and then sends them. So the log
// returns at once when a leader stores commands, and a goroutine writes them. Raft then
// takes them for stored on this node and counts it in the majority that commits them; so
// nothing may come of that before they are durable:
//
//   - No entry is applied before it is durable on this node, and so nobody is answered
//     ([Stores.AwaitDurable]; package network makes Raft's state machine wait). Then it is
//     durable on a majority: the others acknowledge only what they have written.
//   - No request tells the others of a commit that counts an entry which is not durable here
//     ([Stores.Durable]; package network lowers the commit index). Otherwise one of them could
//     apply an entry that it alone has, this node could lose it with its power, and the
//     remaining majority could put another one in its place.
//   - As a follower the node acknowledges only what is durable: every write of a follower waits
//     for what is pending, and package network holds requests with entries back until nothing
//     is ([Stores.AwaitAll]). A leader that is replaced may be sent an entry that it has, and
//     Raft then acknowledges it without writing.
//   - What is no command is written as before, and what is pending before it: Raft acts upon
//     changes of the configuration when they are committed, and a leader's first entry says
//     that the earlier ones are its own.
//
// In elections entries that are pending count like others: a node with them refuses its vote
// to those that have less, which is always allowed, and asks for votes with a log that is
// as long as it says. If it is elected, its first entry makes them durable.
//
// A process that ends loses what is pending, which nobody was told of.

// mostPending bounds what is pending, in bytes. The node proposes one entry at a time, so that
// only something else than its proposer could reach it.
const mostPending = 16 << 20

// nonePending is durable when nothing is pending.
const nonePending = math.MaxUint64

// leaderLog is the log below raft's cache.
type leaderLog struct {
	*guardedLog
	leads   atomic.Pointer[func() bool] // nil: never
	durable atomic.Uint64               // up to which entry the log is durable; nonePending: all of it

	mu      sync.Mutex  // guards what follows
	settled sync.Cond   // signalled when pending gets shorter, and when failed is set
	pending []*raft.Log // stored for raft, and not durable yet. Their order is that of the log
	bytes   int         // of pending
	writing bool        // there is a goroutine that writes them
	failed  error       // why pending will never be durable
}

func newLeaderLog(inner *guardedLog) *leaderLog {
	l := &leaderLog{guardedLog: inner}
	l.settled.L = &l.mu
	l.durable.Store(nonePending)
	return l
}

// StoreLog is StoreLogs with one entry.
func (l *leaderLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs returns when the entries are durable, and on a leader, if all of them are
// commands, at once.
func (l *leaderLog) StoreLogs(logs []*raft.Log) error {
	if !l.early(logs) {
		if err := l.awaitAll(); err != nil {
			return endInsteadOfPanic(err)
		}
		return l.guardedLog.StoreLogs(logs)
	}
	if len(logs) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes > mostPending && l.failed == nil {
		l.settled.Wait()
	}
	if l.failed != nil {
		return l.failed
	}
	if len(l.pending) == 0 {
		l.durable.Store(logs[0].Index - 1)
	}
	l.pending = append(l.pending, logs...)
	for _, e := range logs {
		l.bytes += len(e.Data)
	}
	if !l.writing {
		l.writing = true
		go l.write()
	}
	return nil
}

// early reports whether entries may be written later. Raft stores them on the goroutine on
// which it begins and ends to lead.
func (l *leaderLog) early(logs []*raft.Log) bool {
	leads := l.leads.Load()
	if leads == nil || !(*leads)() {
		return false
	}
	for _, e := range logs {
		if e.Type != raft.LogCommand {
			return false
		}
	}
	return true
}

// write makes durable what is pending, and ends when nothing is any more.
func (l *leaderLog) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 && l.failed == nil {
		batch := l.pending
		l.mu.Unlock()
		err := l.guardedLog.StoreLogs(batch)
		l.mu.Lock()
		if err != nil {
			l.failed = err
			break
		}
		for _, e := range batch {
			l.bytes -= len(e.Data)
		}
		if l.pending = l.pending[len(batch):]; len(l.pending) == 0 {
			l.pending = nil
			l.durable.Store(nonePending)
		} else {
			l.durable.Store(l.pending[0].Index - 1)
		}
		l.settled.Broadcast()
	}
	l.writing = false
	l.settled.Broadcast()
}

// await waits until an entry is durable.
func (l *leaderLog) await(index uint64) error {
	if durable := l.durable.Load(); durable == nonePending || durable >= index {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 && l.pending[0].Index <= index {
		if l.failed != nil {
			return l.failed
		}
		l.settled.Wait()
	}
	return nil
}

// awaitAll waits until all is durable that is pending now.
func (l *leaderLog) awaitAll() error {
	if l.durable.Load() == nonePending {
		return nil
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	return l.await(last)
}

// close ends all waits. What is pending may be written or not.
func (l *leaderLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = ErrClosed
	}
	l.settled.Broadcast()
}

// FirstIndex is 0 for an empty log.
func (l *leaderLog) FirstIndex() (uint64, error) {
	first, err := l.guardedLog.FirstIndex()
	if first != 0 || err != nil {
		return first, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) > 0 {
		return l.pending[0].Index, nil
	}
	return l.guardedLog.FirstIndex() // what was pending may just have been written
}

// LastIndex is 0 for an empty log.
func (l *leaderLog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.pending); n > 0 {
		return l.pending[n-1].Index, nil
	}
	return l.guardedLog.LastIndex()
}

// GetLog returns raft.ErrLogNotFound itself for an entry that is not there.
func (l *leaderLog) GetLog(index uint64, to *raft.Log) error {
	if l.durable.Load() < index && l.getPending(index, to) {
		return nil
	}
	return l.guardedLog.GetLog(index, to)
}

func (l *leaderLog) getPending(index uint64, to *raft.Log) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 || index < l.pending[0].Index || index-l.pending[0].Index >= uint64(len(l.pending)) {
		return false
	}
	*to = *l.pending[index-l.pending[0].Index]
	return true
}

// DeleteRange cuts the log at one of its ends, when nothing is pending.
func (l *leaderLog) DeleteRange(from, to uint64) error {
	if err := l.awaitAll(); err != nil {
		return endInsteadOfPanic(err)
	}
	return l.guardedLog.DeleteRange(from, to)
}

// WriteBeside has the log write the commands of a leader beside their replication. leads
// reports whether this node is the leader at the moment, and is called by Raft's main
// goroutine.
func (s *Stores) WriteBeside(leads func() bool) { s.log.leads.Store(&leads) }

// Durable returns up to which entry the log is durable on this node; it is the largest number
// if all of it is, which is so on all nodes but a leader.
func (s *Stores) Durable() uint64 { return s.log.durable.Load() }

// AwaitDurable waits until the entry is durable on this node. An error says that it never will
// be: a write has failed, or the stores were closed.
func (s *Stores) AwaitDurable(index uint64) error { return s.log.await(index) }

// AwaitAll waits until all that the log has now is durable, or returns an error as AwaitDurable
// does.
func (s *Stores) AwaitAll() error { return s.log.awaitAll() }

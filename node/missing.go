package node

import (
	"sync"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/replica"
)

// missingSessions answers keep-alives of sessions that the table does not have: of clients
// that were away for too long, and of strangers that invent IDs. These keep-alives are not
// part of an entry, so they cost the log nothing.
//
// That a session does not exist is the answer to a linearizable read: a leader that has
// lost its leadership must not answer from memory, because the next one may have opened the
// session. One read round serves many of them, at most missingBatch for each missingEvery,
// so that they leave the node's time to others. A session that the table has after the
// round is renewed.
//
// The answers have no stamp: the table only knows when its last entry was stamped, and that
// may be before the request was sent.
type missingSessions struct {
	// round has done called at the end of the next read round, with the read index.
	round func(done func(index uint64, err error))
	// reach calls do once the table has applied an index, or with false if that takes too
	// long.
	reach func(index uint64, do func(reached bool))
	table *replica.Table
	epoch func() *epoch // of the term that this node leads; nil if it leads none

	mu    sync.Mutex // guards what follows
	queue fair.Queue[keepAlive]
	busy  bool // a round is under way, or will be soon
}

const (
	maxMissing   = 48 << 10 // that wait, of which one connection gets a third
	missingBatch = 512
	missingEvery = 25 * time.Millisecond
)

// add queues keep-alives to be answered.
func (s *missingSessions) add(of []keepAlive) {
	var refused []keepAlive
	s.mu.Lock()
	for _, k := range of {
		if !s.queue.Push(k.owner, k, 0, fair.Room{Items: maxMissing}) {
			refused = append(refused, k)
		}
	}
	idle := !s.busy
	s.busy = true
	s.mu.Unlock()
	if idle {
		s.next()
	}
	for _, k := range refused {
		k.done(fsm.Alive{}, outcome{err: errOverloaded})
	}
}

// next has the next batch answered, if there is one.
func (s *missingSessions) next() {
	var batch []keepAlive
	s.mu.Lock()
	for len(batch) < missingBatch {
		k, _, ok := s.queue.Pop()
		if !ok {
			break
		}
		batch = append(batch, k)
	}
	s.busy = len(batch) > 0
	s.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	s.round(func(index uint64, err error) {
		time.AfterFunc(missingEvery, s.next)
		if err != nil {
			s.answer(batch, err)
			return
		}
		s.reach(index, func(reached bool) {
			if !reached {
				err = errNotProposed
			}
			s.answer(batch, err)
		})
	})
}

// missingIn returns a function that reports which sessions a table does not have; nil: it
// has them all.
func missingIn(table *replica.Table) func(sessions []fsm.KeepAliveSession) []bool {
	return func(sessions []fsm.KeepAliveSession) []bool {
		missing, _ := missingAt(table, sessions)
		return missing
	}
}

// missingAt reports the same, and the index of the log as of which it is true.
func missingAt(table *replica.Table, sessions []fsm.KeepAliveSession) (missing []bool, index uint64) {
	table.View(func(t *fsm.Table) {
		_, index = t.Digest()
		for i := range sessions {
			if t.HasSession(sessions[i].Session) {
				continue
			}
			if missing == nil {
				missing = make([]bool, len(sessions))
			}
			missing[i] = true
		}
	})
	return missing, index
}

// answer answers keep-alives of sessions that were missing before a read round, once the
// table has applied what the round has covered. err is why that did not happen.
func (s *missingSessions) answer(of []keepAlive, err error) {
	e := s.epoch()
	sessions := make([]fsm.KeepAliveSession, len(of))
	for i, k := range of {
		sessions[i] = k.session
	}
	var missing []bool
	var index uint64
	if err == nil {
		missing, index = missingAt(s.table, sessions)
	}
	for i, k := range of {
		switch {
		case missing != nil && missing[i]:
			k.done(fsm.Alive{}, outcome{index: index})
		case err != nil || e == nil:
			k.done(fsm.Alive{}, outcome{err: errNotProposed}) // it goes to the leader
		default:
			e.proposer.keepAlive(k)
		}
	}
}

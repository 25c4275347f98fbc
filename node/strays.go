package node

import (
	"sync"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/replica"
)

// strays are keep-alives of sessions that the table does not have: of clients that were
// away for too long, and of strangers who make up IDs. They take no part in an entry,
// and so they cost the log nothing. That there is no such session is the answer to a
// linearizable read: a leader that was deposed must not tell it from memory, since the
// next one may have opened the session. One read round serves many of them, and so
// many come in such an interval and no more: what is left over is enough for them. A
// session that the table has after the round is renewed after all.
//
// The answers have no stamp. What the table has says when the last entry was
// stamped, and that may be before the request was sent.
type strays struct {
	round  func(done func(index uint64, err error))
	answer func(of []keepAlive, index uint64, err error)

	mu    sync.Mutex // guards what follows
	queue fair.Queue[keepAlive]
	busy  bool // a round is under way, or will be soon
}

const (
	maxStrays  = 48 << 10 // that wait, of which one connection gets a third
	strayBatch = 512
	strayEvery = 25 * time.Millisecond
)

// add takes keep-alives in, and has them answered.
func (s *strays) add(of []keepAlive) {
	var refused []keepAlive
	s.mu.Lock()
	for _, k := range of {
		if !s.queue.Push(k.owner, k, 0, fair.Room{Items: maxStrays}) {
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

// next has the next of them answered, if there are any.
func (s *strays) next() {
	var batch []keepAlive
	s.mu.Lock()
	for len(batch) < strayBatch {
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
		time.AfterFunc(strayEvery, s.next)
		s.answer(batch, index, err)
	})
}

// missingIn says which sessions a table does not have; nil: it has them all.
func missingIn(table *replica.Table) func(sessions []fsm.KeepAliveSession) []bool {
	return func(sessions []fsm.KeepAliveSession) []bool {
		missing, _ := missingAt(table, sessions)
		return missing
	}
}

// missingAt is the same, and at which index of the log that is so.
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

// answerStrays answers keep-alives of sessions that were missing before a read round, on
// a table that has what the round has covered.
func (n *Node) answerStrays(of []keepAlive, index uint64, err error) {
	if err == nil && n.appliedIndex() < index {
		n.reads.park(index, func(reached bool) {
			if !reached {
				err = errNotProposed
			}
			n.answerStrays(of, 0, err)
		})
		return
	}
	e := n.epoch.Load()
	sessions := make([]fsm.KeepAliveSession, len(of))
	for i, k := range of {
		sessions[i] = k.session
	}
	var missing []bool
	if err == nil {
		missing, index = missingAt(n.machine, sessions)
	}
	for i, k := range of {
		switch {
		case missing != nil && missing[i]:
			k.done(fsm.Alive{}, outcome{index: index})
		case err != nil || e == nil:
			k.done(fsm.Alive{}, outcome{err: errNotProposed}) // it goes to whoever leads
		default:
			e.proposer.keepAlive(k)
		}
	}
}

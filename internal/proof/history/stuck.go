package history

import (
	"cmp"
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
)

// stuck finds waiters that could have their locks and still wait.
type stuck struct {
	touched map[*replayLock]bool      // their holders or queues have changed
	since   map[*logGrant]fsm.Instant // waiters whose turn it is → cluster time since when
}

// turnTakes is how long a waiter may wait once it is its turn: the table may spread much work
// over several entries.
const turnTakes = int64(time.Second)

func (s *stuck) touch(l *replayLock) {
	if len(l.queue) > 0 {
		s.touched[l] = true
	}
}

// checkStuck finds, after an entry, the waiters whose turn it is (FIFO) on the locks that have
// changed.
func (r *replay) checkStuck() {
	s := &r.stuck
	for l := range s.touched {
		if len(l.queue) == 0 {
			delete(s.touched, l)
			continue
		}
		if r.entry.Now < l.delayed {
			continue // looked at again when the delay is over
		}
		delete(s.touched, l)
		for _, g := range l.first() {
			if _, known := s.since[g]; !known && r.isTurn(g) {
				s.since[g] = r.entry.Now
			}
		}
	}
	var late []*logGrant
	for g, since := range s.since {
		switch {
		case r.waits[g.request] != g || !r.isTurn(g) || r.isDue(g):
			delete(s.since, g)
		case r.entry.Now.Sub(since) > turnTakes:
			delete(s.since, g)
			late = append(late, g)
		}
	}
	slices.SortFunc(late, func(a, b *logGrant) int { return cmp.Compare(a.request, b.request) })
	for _, g := range late {
		r.c.violate("FIFO", "log", g.lock(), "index %d: request %s, queued since index %d, conflicts with no holder or earlier waiter, and was not granted by %d, for more than %v",
			r.entry.Index, g.request, g.index, r.entry.Now, time.Duration(turnTakes))
	}
}

// first returns the waiters that can be granted next: the first one, and if it is shared, all
// shared ones behind it.
func (l *replayLock) first() []*logGrant {
	n := 1
	for n < len(l.queue) && l.shares(n-1) && l.shares(n) {
		n++
	}
	return l.queue[:n]
}

func (l *replayLock) shares(i int) bool {
	return slices.ContainsFunc(l.queue[i].wants, func(w fsm.Want) bool { return w.Lock == l.name && w.Mode == fsm.Shared })
}

// isTurn reports whether a waiter could have all its locks.
func (r *replay) isTurn(g *logGrant) bool {
	for _, w := range g.wants {
		l := r.lock(w.Lock)
		if r.entry.Now < l.delayed || !slices.Contains(l.first(), g) || !l.room(w) {
			return false
		}
	}
	return true
}

// isDue reports whether a waiter has run out of time, as far as is known: its wait is
// over, or its session may be. The table ends only so many of those with an entry, and
// grants the others nothing.
func (r *replay) isDue(g *logGrant) bool {
	if _, early := r.early(g); !early {
		return true
	}
	s := r.l.sessions[g.by]
	return s != nil && s.deadline <= r.entry.Now
}

// room reports whether the holders leave room for a want.
func (l *replayLock) room(w fsm.Want) bool {
	permits := uint64(w.Permits)
	for _, h := range l.holders {
		for _, held := range h.wants {
			if held.Lock != w.Lock {
				continue
			}
			if conflicts(Want(held), Want(w)) {
				return false
			}
			permits += uint64(held.Permits)
		}
	}
	return w.Mode != fsm.Permits || permits <= uint64(l.size)
}

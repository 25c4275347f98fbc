package history

import (
	"slices"

	"github.com/locknode/locknode/fsm"
)

// The size of a semaphore is the one that its first request names, for as long as it has a
// holder or a waiter, unless it is resized.

// checkSize checks that a new request names the current size (S1), and sets the size of a lock
// that is not in use.
func (r *replay) checkSize(g *logGrant, w fsm.Want) {
	l := r.lock(w.Lock)
	if len(l.holders) == 0 && len(l.queue) == 0 {
		l.size = w.Limit
	}
	if l.size != w.Limit {
		r.c.violate("S1", "log", w.Lock, "index %d: request %s was accepted with size %d (0: no semaphore), and the size is %d", r.entry.Index, g.request, w.Limit, l.size)
	}
}

// resize records a new size, and checks that it was requested: each request takes effect once
// (S6).
func (r *replay) resize(e *fsm.Event) {
	name, size := e.Wants[0].Lock, e.Wants[0].Limit
	l := r.lock(name)
	if l.size == 0 || len(l.holders) == 0 && len(l.queue) == 0 {
		r.c.violate("S1", "log", name, "index %d: was resized to %d, and is no semaphore in use", r.entry.Index, size)
	}
	l.size = size
	r.stuck.touch(l)
	r.resized = append(r.resized, l)
	r.l.resized[name] = append(r.l.resized[name], resized{r.entry.Index, r.entry.at, size})

	if !r.c.o.Alone || r.c.h.Dropped > 0 {
		return
	}
	asked, done := 0, 0
	for _, o := range r.c.facts.resizes[name] {
		if o.Wants[0].Limit == size && o.Call <= r.entry.at {
			asked++
		}
	}
	for _, x := range r.l.resized[name] {
		if x.size == size {
			done++
		}
	}
	if done > asked {
		r.c.violate("S6", "log", name, "index %d: was resized to %d, %d times by now, by %d requests", r.entry.Index, size, done, asked)
	}
}

// asksTooMuch reports whether a want is for more permits than the semaphore has.
func (r *replay) asksTooMuch(w fsm.Want) bool {
	return w.Mode == fsm.Permits && w.Permits > r.lock(w.Lock).size
}

// checkSizes checks, after an entry, that no request waits for more permits than a resized
// semaphore has (FIFO).
func (r *replay) checkSizes() {
	for _, l := range r.resized {
		for _, g := range l.queue {
			if slices.ContainsFunc(g.wants, r.asksTooMuch) {
				r.c.violate("FIFO", "log", l.name, "index %d: request %s waits for more than the %d permits of the semaphore", r.entry.Index, g.request, l.size)
			}
		}
	}
}

// checkResized checks that an acknowledged resize is in the log (S7).
func (c *checker) checkResized(o *Op) {
	did := func(x resized) bool { return x.size == o.Wants[0].Limit && x.index <= o.Index && x.at >= o.Call }
	if o.Outcome == OK && !slices.ContainsFunc(c.log.resized[o.lock()], did) {
		c.violate("S7", "answers", o.lock(), "a resize to %d by %s was acknowledged at %v, from index %d; by the log it was not done since %v",
			o.Wants[0].Limit, o.Client, o.Return, o.Index, o.Call)
	}
}

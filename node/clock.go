package node

import (
	"time"

	"github.com/locknode/locknode/fsm"
)

// maxAdvance bounds how far one stamp moves cluster time. What is beyond it was
// time in which nothing could be stamped; it does not count against anybody.
const maxAdvance = int64(time.Second)

// leaderClock makes the stamps of one term. Cluster time goes on where the table
// stood when the term began and advances with the monotonic clock of this
// machine; wall time plays no part.
//
// It is owned by the proposer's goroutine.
type leaderClock struct {
	mono func() time.Duration
	base fsm.Instant   // cluster time at m0
	m0   time.Duration // monotonic reading that base belongs to
	last fsm.Instant   // the last stamp
}

// newLeaderClock starts a clock at the table's time. The table must have
// applied everything up to the barrier of the term, and the clock must be made
// after that.
func newLeaderClock(tableNow fsm.Instant, mono func() time.Duration) *leaderClock {
	return &leaderClock{mono: mono, base: tableNow, m0: mono(), last: tableNow}
}

// now is the current cluster time, before the bound on its advance.
func (c *leaderClock) now() fsm.Instant {
	return c.base + fsm.Instant(c.mono()-c.m0)
}

// when is the monotonic reading at which cluster time will be at, if nothing is
// dropped until then.
func (c *leaderClock) when(at fsm.Instant) time.Duration {
	return c.m0 + time.Duration(at.Sub(c.base))
}

// stamp is now, at most maxAdvance after the stamp before; the excess is
// dropped for good. Stamps never go back.
func (c *leaderClock) stamp() fsm.Instant {
	s := max(c.now(), c.last)
	if limit := c.last.Add(maxAdvance); s > limit {
		c.base -= s - limit
		s = limit
	}
	c.last = s
	return s
}

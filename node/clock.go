package node

import (
	"time"

	"github.com/locknode/locknode/fsm"
)

// maxAdvance bounds how far one stamp moves cluster time. Time beyond it is time in which
// nothing could be stamped: it counts towards no deadline.
const maxAdvance = int64(time.Second)

// leaderClock makes the stamps of one term. Cluster time goes on from the table's time at
// the begin of the term and advances with the monotonic clock of this machine. Wall time is
// not used.
//
// It is owned by the proposer's goroutine.
type leaderClock struct {
	mono func() time.Duration
	base fsm.Instant   // cluster time at m0
	m0   time.Duration // monotonic reading at base
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

// when is the monotonic reading at which cluster time reaches at, if no time is dropped
// before that.
func (c *leaderClock) when(at fsm.Instant) time.Duration {
	return c.m0 + time.Duration(at.Sub(c.base))
}

// stamp is now, but at most maxAdvance after the stamp before; the excess is dropped for
// good. Stamps never go back.
func (c *leaderClock) stamp() fsm.Instant {
	s := max(c.now(), c.last)
	if limit := c.last.Add(maxAdvance); s > limit {
		c.base -= s - limit
		s = limit
	}
	c.last = s
	return s
}

package mux

import "time"

// silence records when something arrived from the node. Only pings decide whether the node
// is there: an operation may take any time, and a node that commits nothing because it has
// no majority is there nevertheless.
//
// A ping is sent when nothing has arrived for a moment (see [Patience.quiet]) since
// something was asked, and then after twice the time, up to PingEvery, for as long as
// something is unanswered. It is sent before what is queued, and the node sends its answer
// before other answers. The conn breaks when the limit of the patience has passed since then
// without a single message; any message counts, because the answer may be stuck behind a
// long one. With OnSilent, that is called first.
type silence struct {
	arrived time.Time     // when the last message came
	asked   bool          // something was started since
	from    time.Time     // when that was, or else when the message came
	quiet   time.Duration // how long from then until a ping

	ping     uint64    // id of the ping that is unanswered; 0: there is none
	pingAt   time.Time // when it was asked for; zero: it does not measure anything
	reported bool      // OnSilent was called, and nothing has arrived since

	timed   uint64 // id of an operation that is unanswered and bounds the round trip; 0: none
	timedAt time.Time
}

// startedLocked records that an operation was queued.
func (c *Conn) startedLocked(id uint64, waiting bool) {
	s := &c.silence
	if s.asked && (waiting || s.timed != 0) {
		return
	}
	now := time.Now()
	if !waiting && s.timed == 0 {
		s.timed, s.timedAt = id, now
	}
	if s.asked {
		return
	}
	s.asked, s.from, s.quiet = true, now, c.cfg.Patience.quiet()
	if s.ping == 0 && (c.due.IsZero() || c.due.After(now.Add(s.quiet))) {
		c.armLocked(now, s.quiet)
	}
}

// heardLocked records that a message has arrived, with answers of a ping, of operations, or
// both.
func (c *Conn) heardLocked(now time.Time, ping, work bool) {
	s := &c.silence
	s.arrived, s.from, s.asked, s.reported = now, now, false, false
	if ping {
		if !s.pingAt.IsZero() {
			c.cfg.Patience.answered(now.Sub(s.pingAt))
		}
		s.ping = 0
	}
	switch {
	case work:
		s.quiet = c.cfg.Patience.quiet()
	case ping && s.quiet < c.cfg.PingEvery: // it is there; what is asked takes long
		s.quiet = min(max(2*s.quiet, c.cfg.Patience.least/4), c.cfg.PingEvery)
	}
}

// answeredLocked records that the operation or ping with the id is no longer pending.
func (s *silence) answeredLocked(id uint64, now time.Time, p *Patience) {
	if id == s.timed {
		s.timed = 0
		p.atMost(now.Sub(s.timedAt))
	}
}

// armLocked makes check run after d.
func (c *Conn) armLocked(now time.Time, d time.Duration) {
	c.due = now.Add(d)
	c.timer.Reset(d)
}

// check runs on the timer while anything is pending: it pings a silent node, and breaks the
// conn when nothing comes.
func (c *Conn) check() {
	report, over := c.silent(time.Now())
	if over {
		c.cfg.Patience.stalled()
		c.fail(ErrStalled)
	} else if report {
		c.cfg.OnSilent()
	}
}

// toBreak is after how many times the limit a conn with OnSilent breaks.
const toBreak = 3

// silent reports whether the node has been silent for so long that OnSilent has to be
// called, or that the conn has to break.
func (c *Conn) silent(now time.Time) (report, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.silence
	late := now.Sub(c.due)
	c.due = time.Time{}
	if c.err != nil || len(c.pending) == 0 {
		s.asked = false
		return false, false // the next Start sets the timer again
	}
	if late > c.cfg.Patience.least/2 {
		// This process was paused: what has arrived meanwhile has not been read yet,
		// and gets the time for it.
		s.arrived, s.from, s.pingAt = now, now, time.Time{}
	}
	limit := c.cfg.Patience.ping()
	switch {
	case s.ping != 0:
		since := s.arrived
		if s.pingAt.After(since) {
			since = s.pingAt
		}
		silent := now.Sub(since)
		if c.cfg.OnSilent != nil {
			if silent >= limit && !s.reported {
				s.reported, report = true, true
			}
			if s.reported {
				limit += (toBreak - 1) * c.cfg.Patience.Limit()
			}
		}
		if silent >= limit {
			return false, true
		}
		c.armLocked(now, limit-silent)
	case now.Sub(s.from) >= s.quiet:
		if c.enqueueLocked(nil) {
			c.wake()
		}
		s.ping, s.pingAt = c.lastID, now
		c.armLocked(now, limit)
	default:
		c.armLocked(now, s.quiet-now.Sub(s.from))
	}
	return report, false
}

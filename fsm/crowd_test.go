package fsm

import (
	"encoding/binary"

	"pgregory.net/rapid"
)

// crowd is a table with many sessions, each of which knows its grants by the
// sequences of their acquires.
type crowd struct {
	tb        rapid.TB
	t         *Table
	now       Instant
	index     uint64
	sequences []uint64 // used by each session
}

// crowdInQueue is a limit that leaves each owner a share that is larger than any queue of
// these tests.
const crowdInQueue = 100_000

func newCrowd(tb rapid.TB, sessions int) *crowd {
	tb.Helper()
	c := &crowd{tb: tb, t: New()}
	c.t.limits.WaitersPerLock = crowdInQueue
	for range sessions {
		c.openSession(3600 * second)
	}
	return c
}

// openSession opens one more session and returns its number.
func (c *crowd) openSession(ttl int64) int {
	i := len(c.sequences)
	c.sequences = append(c.sequences, 0)
	c.apply(OpenSession{Session: c.session(i), TTL: ttl})
	return i
}

func (c *crowd) session(i int) (id SessionID) {
	binary.BigEndian.PutUint64(id[8:], uint64(i+1))
	return id
}

// next is the next request ID of a session. It acknowledges nothing.
func (c *crowd) next(i int) RequestID {
	c.sequences[i]++
	return RequestID{Session: c.session(i), Sequence: c.sequences[i]}
}

// acquire makes as many acquires of one session, which wait as long as it lives.
func (c *crowd) acquire(i, times int, wants ...Want) (commands []Command) {
	for range times {
		commands = append(commands, Acquire{ID: c.next(i), Wants: wants, Wait: -1})
	}
	return commands
}

// run puts commands into one entry.
func (c *crowd) run(commands ...Command) Applied {
	c.index++
	return c.t.Apply(c.index, 1, encode(1, c.now, 0, commands...))
}

// apply is run for commands that have to succeed, or to wait.
func (c *crowd) apply(commands ...Command) Applied {
	c.tb.Helper()
	a := c.run(commands...)
	for i, r := range a.Results {
		if r.Code != OK && r.Code != Queued {
			c.tb.Fatalf("%+v: %+v", commands[i], r)
		}
	}
	return a
}

// sound checks the invariants.
func (c *crowd) sound() {
	c.tb.Helper()
	if err := c.t.check(); err != nil {
		c.tb.Fatalf("after entry %d: %v", c.index, err)
	}
}

// token is that of a grant, 0 if there is none.
func (c *crowd) token(i int, sequence uint64) uint64 {
	s, ok := c.t.sessions.get(c.session(i))
	if !ok {
		return 0
	}
	if r := c.t.requestOf(s, sequence); r != nil {
		return r.token
	}
	return 0
}

// release is the release of a grant by its session.
func (c *crowd) release(i int, sequence uint64) Command {
	return Release{ID: c.next(i), Token: c.token(i, sequence)}
}

func (c *crowd) cancel(i int, sequence uint64) Command {
	return Cancel{ID: c.next(i), Target: RequestID{Session: c.session(i), Sequence: sequence}}
}

func wantShared(name string) Want    { return Want{Lock: name, Mode: Shared} }
func wantExclusive(name string) Want { return Want{Lock: name, Mode: Exclusive} }

func wantPermits(name string, permits, limit uint32) Want {
	return Want{Lock: name, Mode: Permits, Permits: permits, Limit: limit}
}

package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// maxReported bounds the violations that one check reports; one usually causes more.
const maxReported = 20

// checker judges one history.
type checker struct {
	h        *History
	o        Options
	report   Report
	reported map[string]int // check → violations

	ops   []Op // of the history, with the outcomes that the log decides
	facts facts
	knows map[uint64][]*Op // by token: acquires that were answered with it
	log   *logbook         // nil: no node was watched
}

// Check judges the history. It changes nothing, and may be called again.
func (h *History) Check(o Options) Report {
	c := newChecker(h, o)
	c.judge()
	return c.report
}

func newChecker(h *History, o Options) *checker {
	if o.RateError == 0 {
		o.RateError = 0.005
	}
	if o.PorcupineTimeout == 0 {
		o.PorcupineTimeout = 10 * time.Second
	}
	if o.Gone == 0 {
		o.Gone = time.Minute
	}
	return &checker{h: h, o: o, reported: make(map[string]int), ops: h.Ops}
}

func (c *checker) judge() {
	c.gather()
	c.checkEvidence()
	c.checkBeliefs()
	if c.h.Dropped == 0 {
		c.checkTokens()
		c.checkOwners()
		c.checkOrder()
		if c.log != nil {
			c.checkAnswers()
		}
		c.searchLocks()
	}
	for _, check := range slices.Sorted(maps.Keys(c.reported)) {
		if n := c.reported[check]; n > maxReported {
			c.report.Violations = append(c.report.Violations, Violation{
				Promise: "none", Check: check, Text: fmt.Sprintf("and %d more", n-maxReported),
			})
		}
	}
}

// gather collects from operations and log what the checks need.
func (c *checker) gather() {
	s := &c.report.Stats
	s.Ops, s.Beliefs, s.Entries = len(c.h.Ops), len(c.h.Beliefs), len(c.h.Entries)
	locks := make(map[string]bool)
	for i := range c.h.Ops {
		o := &c.h.Ops[i]
		if o.Outcome == Unknown && o.Kind != KeepAlive {
			s.Unknown++
		}
		if o.Kind == Acquire && o.Outcome == OK {
			s.Grants++
		}
		for _, w := range o.Wants {
			locks[w.Lock] = true
		}
	}
	s.Locks = len(locks)
	if c.h.Dropped > 0 {
		c.violate("none", "record", "", "%d records were left out for lack of room: nothing is shown by the rest", c.h.Dropped)
	}
	c.facts = newFacts(c.ops)
	c.knows = make(map[uint64][]*Op)
	for token, g := range c.facts.grants {
		c.knows[token] = g.answered
	}
	if len(c.h.Entries) > 0 {
		c.log = c.readLog()
		c.resolve()
		c.facts = newFacts(c.ops)
		for token, g := range c.facts.grants {
			if g.op.Detached && len(c.knows[token]) == 0 {
				g.mayEnd = min(g.mayEnd, g.op.Call) // a node cancels a grant that it cannot deliver
			}
		}
	}
}

// checkEvidence checks that the history has what the caller knows to have happened: a
// recorder that has recorded nothing must not look like a cluster without a fault.
func (c *checker) checkEvidence() {
	if c.o.Watched && len(c.h.Entries) == 0 {
		c.violate("none", "record", "", "no log entry was recorded, though nodes were watched: nothing is shown without the log")
	}
	answered := func(o Op) bool {
		return o.Outcome != Unknown && o.Kind != Open && o.Kind != KeepAlive && o.Kind != End
	}
	if c.o.Working && !slices.ContainsFunc(c.h.Ops, answered) {
		c.violate("none", "record", "", "%d operations were recorded, and of those on locks none was answered, though clients were at work: nothing is shown", len(c.h.Ops))
	}
}

func (c *checker) violate(promise, check, lock, format string, args ...any) {
	if c.reported[check]++; c.reported[check] > maxReported {
		return
	}
	c.report.Violations = append(c.report.Violations, Violation{
		Promise: promise, Check: check, Lock: lock, Text: fmt.Sprintf(format, args...),
	})
}

// sessionEnds returns the earliest real time at which a session may have expired. A
// keep-alive that was answered OK was stamped after its call, and no session is ever revived:
// so the session was open until a TTL after the last such call.
func (c *checker) sessionEnds(s *tenure) time.Duration {
	if s.ttl == 0 || s.kept < 0 {
		return 0
	}
	return c.after(s.kept, s.ttl)
}

// after returns the earliest real time at which d can have passed on the
// cluster's clock since at.
func (c *checker) after(at, d time.Duration) time.Duration {
	return at + time.Duration(math.Floor(float64(d)/(1+c.o.RateError)))
}

// before returns the latest real time since which d can have passed, on a clock
// that is off by no more than RateError.
func (c *checker) before(at, d time.Duration) time.Duration {
	return at - time.Duration(math.Ceil(float64(d)*(1+2*c.o.RateError)))
}

// conflicts reports whether two grants on one lock exclude each other. Permits
// are counted, not compared.
func conflicts(a, b Want) bool {
	return a.Lock == b.Lock && (a.Mode != b.Mode || a.Mode == exclusive)
}

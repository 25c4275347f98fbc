package history

import (
	"container/heap"
	"slices"
	"time"
)

// checkTokens compares the tokens alone (S4): each belongs to one request, and one that was
// requested after another one was answered is greater. It also compares the answers to a
// request that was sent again (S6).
func (c *checker) checkTokens() {
	var grants []*Op
	owner := make(map[uint64]string)
	for i := range c.ops {
		o := &c.ops[i]
		if o.Kind != Acquire || o.Outcome == Unknown {
			continue
		}
		c.checkSame(o)
		if o.Outcome != OK {
			continue
		}
		if request, ok := owner[o.Token]; ok && (request != o.Request || request == "") {
			c.violate("S4", "tokens", o.lock(), "token %d was given to the requests %q and %q", o.Token, request, o.Request)
		}
		if o.Token == 0 {
			c.violate("S4", "tokens", o.lock(), "request %q was granted without a token", o.Request)
		}
		owner[o.Token] = o.Request
		if g := c.facts.grants[o.Token]; g.answered[0] == o {
			grants = append(grants, g.op)
		}
	}
	slices.SortStableFunc(grants, func(a, b *Op) int { return compare(a.Call, b.Call) })
	var pending byReturn
	var last *Op // of those that were answered before, the one with the greatest token
	for _, o := range grants {
		for len(pending) > 0 && pending[0].Return < o.Call {
			if p := heap.Pop(&pending).(*Op); last == nil || p.Token > last.Token {
				last = p
			}
		}
		if last != nil && o.Token <= last.Token {
			c.violate("S4", "tokens", o.lock(), "token %d was requested at %v, after token %d had been answered at %v",
				o.Token, o.Call, last.Token, last.Return)
		}
		heap.Push(&pending, o)
	}
}

// checkSame compares an acquire with the first one of its session and sequence.
func (c *checker) checkSame(o *Op) {
	first := c.facts.requests[o.Request]
	if first == nil || first == o || first.Outcome == Unknown || isOnce(o.Request) {
		return // a once ID is forgotten after a while, and may come again
	}
	if o.Outcome == NoSess || first.Outcome == NoSess {
		return // with the session its answers are forgotten
	}
	if ended := func(o *Op) bool { return o.Detached && o.Outcome == NotHeld }; ended(o) || ended(first) {
		return // its answer is true as of now
	}
	if o.Outcome != first.Outcome || o.Token != first.Token {
		c.violate("S6", "tokens", o.lock(), "request %q was answered %s with token %d and %s with token %d",
			o.Request, first.Outcome, first.Token, o.Outcome, o.Token)
	}
}

// checkOwners looks for a client that released or renewed a grant of another one, or for a
// force-release of another grant than the named one (S5).
func (c *checker) checkOwners() {
	for i := range c.ops {
		o := &c.ops[i]
		if o.Kind == ForceRelease && o.Outcome == OK && o.Token != 0 && slices.ContainsFunc(o.Holders, func(t uint64) bool { return t != o.Token }) {
			c.violate("S5", "tokens", o.lock(), "a force-release of token %d by %s ended the grants %v", o.Token, o.Client, o.Holders)
		}
		if o.Kind != Release && o.Kind != Renew || o.Outcome != OK {
			continue
		}
		if g := c.facts.grants[o.Token]; g != nil && g.op.Session != "" && g.op.Session != o.Session {
			c.violate("S5", "tokens", o.lock(), "%s by %s of token %d in session %s was done; the grant is of session %q",
				o.Kind, o.Client, o.Token, o.Session, g.op.Session)
		}
	}
}

// checkOrder compares the log indexes that answers name with real time: an
// operation that was called after an answer comes no earlier in the log than that answer (S7),
// and a read is true at an index that is no older (S8). Each answer of the table names an
// index.
func (c *checker) checkOrder() {
	indexed := c.log != nil || slices.ContainsFunc(c.h.Ops, func(o Op) bool { return o.Index > 0 })
	if !indexed {
		return // written by hand: nothing recorded is without indexes
	}
	var ops []*Op
	for i := range c.h.Ops {
		switch o := &c.h.Ops[i]; {
		case o.Outcome == Unknown, (o.refused() || o.ranOut()) && o.Index == 0, o.Bare:
			// Not answered; refused by a node, without a log entry; from a call whose answers
			// have no index.
		case o.Index == 0 && o.Kind != Get:
			c.violate("S7", "order", o.lock(), "%s by %s was answered %s at %v, and no log index was named: from no entry", o.Kind, o.Client, o.Outcome, o.Return)
		default: // also a read of a table that has applied nothing
			ops = append(ops, o)
		}
	}
	slices.SortStableFunc(ops, func(a, b *Op) int { return compare(c.seen(a), c.seen(b)) })
	pending := make(byReturn, 0, 16)
	var last *Op
	for _, o := range ops {
		for len(pending) > 0 && pending[0].Return < c.seen(o) {
			if p := heap.Pop(&pending).(*Op); last == nil || p.Index > last.Index {
				last = p
			}
		}
		if last != nil && o.Index < last.Index {
			promise := "S7"
			if o.Kind == Get {
				promise = "S8"
			}
			c.violate(promise, "order", o.lock(), "%s by %s, called at %v, was answered from index %d; index %d had been answered at %v (%s by %s)",
				o.Kind, o.Client, o.Call, o.Index, last.Index, last.Return, last.Kind, last.Client)
		}
		heap.Push(&pending, o)
	}
}

// seen returns the time whose state an operation has to see at least.
func (c *checker) seen(o *Op) time.Duration {
	if o.Stale == 0 {
		return o.Call
	}
	// The node measures the age on its own clock.
	return c.before(o.Call, o.Stale) - time.Millisecond
}

// byReturn is a heap of operations; the first to be answered is on top.
type byReturn []*Op

func (h byReturn) Len() int           { return len(h) }
func (h byReturn) Less(i, j int) bool { return h[i].Return < h[j].Return }
func (h byReturn) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface.
func (h *byReturn) Push(x any) { *h = append(*h, x.(*Op)) }

// Pop is part of heap.Interface.
func (h *byReturn) Pop() any {
	old := *h
	o := old[len(old)-1]
	*h = old[:len(old)-1]
	return o
}

// ranOut reports whether a node may have answered by itself that a wait is over: it has sent
// the request in its own session, and knows no leader.
func (o *Op) ranOut() bool { return o.Outcome == TimedOut && o.Detached && o.try() == "" }

func (o *Op) refused() bool { return o.Outcome == Refused || o.Outcome == Invalid }

func (o *Op) lock() string {
	if len(o.Wants) == 0 {
		return ""
	}
	return o.Wants[0].Lock
}

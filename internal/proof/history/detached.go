package history

import (
	"math"
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
)

// A detached grant belongs to every caller that knows its token. A caller with a once ID can retry
// its acquire through any node: that is one request with several tries, which the table
// remembers for a while after its end. A caller without a session gets a session and sequence
// of the node; in this package the node has then signed the request.

// onceFor is how long the table remembers an ID after the end of its grant by default.
const onceFor = 5 * time.Minute

// asked returns the acquire that a request in the log comes from, nil if it is not known. It
// is found by session and sequence, or, if a node has signed it, by a holder that no other
// acquire has. Of several tries it is one that requests what was granted.
func (c *checker) asked(g *logGrant) *Op {
	for _, o := range c.facts.tries[g.request] {
		if g.from(o) {
			return o
		}
	}
	if o := c.facts.requests[g.request]; o != nil {
		return o
	}
	if g.session == "" && !isOnce(g.request) {
		return c.facts.holders[g.holder]
	}
	return nil
}

// triesOf returns all acquires that a request in the log may come from.
func (c *checker) triesOf(g *logGrant) []*Op {
	if tries := c.facts.tries[g.request]; tries != nil {
		return tries
	}
	if o := c.asked(g); o != nil {
		return []*Op{o}
	}
	return nil
}

// try returns the session and sequence of an acquire; empty: a node has signed it.
func (o *Op) try() string {
	if isOnce(o.Request) {
		return o.Try
	}
	return o.Request
}

// checkRemembered looks for a request that takes effect twice although the table still has to
// remember the first time (S6).
func (r *replay) checkRemembered(g, other *logGrant) {
	switch {
	case other == nil:
	case !other.over():
		r.c.violate("S6", "log", g.lock(), "index %d: request %s took effect again; it holds token %d since index %d",
			r.entry.Index, g.request, other.token, other.index)
	case !r.c.o.Alone || r.c.h.Dropped > 0 || other.givenUp:
	case r.entry.Now.Sub(other.endNow) < int64(onceFor):
		r.c.violate("S6", "log", g.lock(), "index %d: request %s took effect again at %d; its grant with token %d had ended at %d, and is remembered for %v",
			r.entry.Index, g.request, r.entry.Now, other.token, other.endNow, onceFor)
	}
}

// checkTaken looks for a detached grant that was cancelled although another try had been
// answered with it, or although its caller did not cancel it (S5). A node cancels a grant whose
// answer did not reach its caller.
func (r *replay) checkTaken(g *logGrant) {
	g.givenUp = true
	told, last := 0, (*Op)(nil)
	tries := make(map[string]bool)
	for _, o := range r.c.knows[g.token] {
		if try := o.try(); try == "" || !tries[try] {
			told++
			tries[try] = true
		}
		last = o
	}
	own := last != nil && called(r.calls.cancel, last.try(), r.entry.at)
	if told == 0 || told == 1 && own {
		return
	}
	r.c.violate("S5", "log", g.lock(), "index %d: token %d was released, and no client had requested it; %d callers were answered with it, %s the last at %v",
		r.entry.Index, g.token, told, last.Client, last.Return)
}

// undelivered reports whether a detached grant ends with the sessions of its tries, and no caller
// got it.
func (r *replay) undelivered(g *logGrant) bool {
	if g.session != "" || len(r.c.knows[g.token]) > 0 {
		return false
	}
	return slices.ContainsFunc(g.sessions, func(id string) bool {
		_, over := r.over[id]
		return over
	})
}

// delaysNobody reports whether no caller has had a detached grant: it came out of a wait, and
// no caller got the answer.
func (r *replay) delaysNobody(g *logGrant) bool {
	return g.session == "" && g.waited && len(r.c.knows[g.token]) == 0
}

// tryEnded is the end of one try of a request that others wait for.
func (r *replay) tryEnded(e *fsm.Event) {
	g := r.waits[requestOf(e).String()]
	if g == nil {
		r.c.violate("S6", "log", "", "index %d: a try of request %s ended, which did not wait", r.entry.Index, requestOf(e))
		return
	}
	r.checkTryCause(g, e)
}

// checkStands looks for a request that is granted after a wait although its caller has been
// gone for long (FIFO).
func (r *replay) checkStands(g *logGrant) {
	if g.session != "" || !r.c.o.Alone || r.c.h.Dropped > 0 {
		return
	}
	gone := time.Duration(0)
	tries := r.c.triesOf(g)
	for _, o := range tries {
		switch {
		case o.Left > 0:
			gone = max(gone, o.Left)
		case o.Outcome == Unknown || o.Outcome == OK:
			return // it waits, or has its answer
		default:
			gone = max(gone, o.Return)
		}
	}
	if len(tries) == 0 {
		return
	}
	if since := r.l.reached(gone); r.entry.Now.Sub(since) > int64(r.c.o.Gone) {
		r.c.violate("FIFO", "log", g.lock(), "index %d: request %s was granted at %d, after a wait; its caller was gone by %v, at %d",
			r.entry.Index, g.request, r.entry.Now, gone, since)
	}
}

// reached returns the cluster time that had been reached by a time.
func (l *logbook) reached(at time.Duration) fsm.Instant {
	i, found := slices.BinarySearchFunc(l.entries, at, func(e logEntry, at time.Duration) int { return compare(e.at, at) })
	if !found {
		i--
	}
	if i < 0 {
		return 0
	}
	return l.entries[i].Now
}

// checkDetached compares an answer about a detached grant with the state at the entry that
// the answer is from.
func (c *checker) checkDetached(o *Op) {
	g := c.log.grants[o.Token]
	e := c.log.entry(o.Index)
	if g == nil || e == nil || o.Bare {
		return
	}
	if g.over() && (g.endIndex < o.Index || g.endIndex == o.Index && g.ended == fsm.EventExpired) {
		c.violate("S6", "answers", o.lock(), "%s was answered at %v, from index %d, that it has token %d; by the log it %s at index %d",
			o.Client, o.Return, o.Index, o.Token, endWord[g.ended], g.endIndex)
	}
	if first := c.log.since(o.Call); isOnce(o.Request) && (o.Came > e.Now || first != nil && o.Came < first.Now) {
		c.violate("S3", "answers", o.lock(), "%s, which called at %v for request %s, was answered at %v that it came at cluster time %d; by the log that was %d to %d",
			o.Client, o.Call, o.Request, o.Return, o.Came, first.Now, e.Now)
	}
	if least, most := c.ends(g, o); o.Until < least || o.Until > most {
		c.violate("S3", "answers", o.lock(), "%s was answered at %v, from index %d, that token %d lasts until %d; by the log that was %d to %d",
			o.Client, o.Return, o.Index, o.Token, o.Until, least, most)
	}
}

// ends returns between which cluster times a grant's deadline was in the entry that
// an answer is from.
func (c *checker) ends(g *logGrant, o *Op) (least, most fsm.Instant) {
	least, most = g.deadline, g.deadline
	if e := c.log.entry(o.Index); e != nil {
		most = max(most, e.Now+fsm.Instant(o.TTL)) // a node may renew it before it answers
	}
	for _, renewed := range c.facts.renewals[o.Token] {
		switch {
		case renewed.Outcome == OK && !renewed.Bare && renewed.Index < o.Index:
			least, most = max(least, renewed.Until), max(most, renewed.Until)
		case renewed.Outcome == OK && !renewed.Bare && renewed.Index > o.Index, renewed.Call > o.Return:
		case renewed.Outcome == OK && !renewed.Bare:
			most = max(most, renewed.Until)
		case renewed.Outcome == OK || renewed.Outcome == Unknown:
			return least, math.MaxInt64
		}
	}
	return least, most
}

// checkOver compares "not held" as the answer to an acquire with the log: its grant
// has ended.
func (c *checker) checkOver(o *Op) {
	g := c.grantBy(o)
	switch {
	case g == nil:
		c.violate("S6", "answers", o.lock(), "%s was answered at %v that the grant of request %s has ended; by the log it had none by index %d",
			o.Client, o.Return, o.Request, o.Index)
	case !g.over() || g.endIndex > o.Index:
		c.violate("S3", "answers", o.lock(), "%s was answered at %v, from index %d, that the grant of request %s has ended; by the log token %d %s",
			o.Client, o.Return, o.Index, o.Request, g.token, g.fate())
	}
}

// grantBy returns the last grant of an acquire's request up to its answer.
func (c *checker) grantBy(o *Op) *logGrant {
	g := c.log.requests[o.Request]
	for g != nil && g.index > o.Index {
		g = g.before
	}
	return g
}

// checkRefused looks for a try that was refused although its request had a grant, or as another
// request although it was the same.
func (c *checker) checkRefused(o *Op) {
	if o.Outcome == Invalid {
		differs := func(other *Op) bool { return other.Call < o.Return && !sameRequest(other, o) }
		if !slices.ContainsFunc(c.facts.tries[o.Request], differs) {
			c.violate("S6", "answers", o.lock(), "%s was answered at %v that request %s differs from an earlier one; no other one was called", o.Client, o.Return, o.Request)
		}
		return
	}
	if g := c.grantBy(o); g != nil && g.index < o.Index && (!g.over() || g.endIndex > o.Index) {
		c.violate("S6", "answers", o.lock(), "%s was answered %s at %v, from index %d, to request %s, which had token %d then",
			o.Client, o.Outcome, o.Return, o.Index, o.Request, g.token)
	}
}

// sameRequest reports whether two acquires under one ID request the same.
func sameRequest(a, b *Op) bool {
	return a.TTL == b.TTL && a.Delay == b.Delay && a.Value == b.Value && sameWants(a.Wants, b.Wants)
}

// sameWants compares the locks, in any order. Each lock is there once.
func sameWants(a, b []Want) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(w Want) bool { return !slices.Contains(b, w) })
}

// from reports whether a grant, or a wait, can come from an acquire.
func (g *logGrant) from(o *Op) bool {
	return g.asksFor(o) && (g.deadline == 0 || g.now+fsm.Instant(o.TTL) == g.deadline)
}

// asksFor reports whether an acquire requests the locks of a grant.
func (g *logGrant) asksFor(o *Op) bool {
	wants := make([]Want, len(g.wants))
	for i, w := range g.wants {
		wants[i] = Want(w)
	}
	return sameWants(wants, o.Wants)
}

package history

import (
	"github.com/locknode/locknode/fsm"
)

// checkAnswers compares the answers with the log: what was acknowledged is in it (S7), once
// (S6), and as it was answered.
func (c *checker) checkAnswers() {
	for i := range c.h.Ops {
		o := &c.h.Ops[i]
		if o.Outcome == Unknown || o.Index == 0 && !o.Bare {
			continue // for answers without an index see checkOrder
		}
		if o.Bare {
			if o.Kind == Acquire && o.Outcome == OK {
				c.checkGranted(o)
			}
			continue
		}
		if o.Kind != Get && !o.refused() && c.log.entry(o.Index) == nil {
			c.violate("S7", "answers", o.lock(), "%s by %s was answered at %v from index %d, which no node has applied", o.Kind, o.Client, o.Return, o.Index)
			continue
		}
		c.checkStamp(o)
		switch o.Kind {
		case Acquire:
			c.checkAcquire(o)
		case Release, Renew:
			c.checkHolder(o)
		case Cancel:
			c.checkCancel(o)
		case KeepAlive, Open:
			c.checkAlive(o)
		case Resize:
			c.checkResized(o)
		}
	}
}

// checkStamp compares the cluster time of an answer, by which a client converts
// deadlines to its own clock (S3).
func (c *checker) checkStamp(o *Op) {
	if o.Kind == Acquire && o.Outcome == OK {
		return // it names the time of the acquire's own entry: see checkGranted
	}
	if o.Kind == KeepAlive && o.Outcome == NoSess && o.Stamp == 0 {
		return // it names no time: it came from no entry
	}
	i := c.log.position(o.Index)
	if i >= 0 && o.Stamp != c.log.entries[i].Now {
		c.violate("S3", "answers", o.lock(), "%s by %s was answered at %v with cluster time %d; at index %d it is %d",
			o.Kind, o.Client, o.Return, o.Stamp, o.Index, c.log.entries[i].Now)
	}
}

func (c *checker) checkAcquire(o *Op) {
	g := c.log.requests[o.Request]
	switch {
	case o.Outcome == OK && isOnce(o.Request) || o.Outcome == OK && o.Request == "":
		c.checkGranted(o)
	case o.Outcome == OK && g == nil:
		c.violate("S7", "answers", o.lock(), "%s was granted token %d at %v; no log entry has granted it", o.Client, o.Token, o.Return)
	case o.Outcome == OK && g.token != o.Token:
		c.violate("S6", "answers", o.lock(), "%s was granted token %d at %v; by the log the same request has token %d", o.Client, o.Token, o.Return, g.token)
	case o.Outcome == OK:
		c.checkGranted(o)
	case o.Outcome == NotHeld:
		c.checkOver(o)
	case o.Outcome == Busy:
		c.checkBusy(o)
		fallthrough
	case o.Outcome == TimedOut || o.refused():
		if isOnce(o.Request) {
			c.checkRefused(o)
		} else if g != nil && o.Request != "" {
			c.violate("S6", "answers", o.lock(), "request %s of %s was answered %s at %v; the log has granted it token %d at index %d",
				o.Request, o.Client, o.Outcome, o.Return, g.token, g.index)
		}
	}
}

func (c *checker) checkGranted(o *Op) {
	g := c.log.grants[o.Token]
	if o.Detached {
		c.checkDetached(o)
	}
	switch {
	case g == nil:
		c.violate("S7", "answers", o.lock(), "%s was granted token %d at %v; no log entry has granted it", o.Client, o.Token, o.Return)
	case g.request != o.Request && o.Request != "" || !g.asksFor(o):
		c.violate("S6", "answers", o.lock(), "%s was granted token %d at %v for request %q; by the log it belongs to %s, with the locks %v", o.Client, o.Token, o.Return, o.Request, g.request, g.wants)
	case g.index > o.Index && !o.Bare || g.at < c.facts.grants[o.Token].op.Call || g.at > o.Return+c.o.Late:
		c.violate("S7", "answers", o.lock(), "%s was granted token %d between %v and %v, from index %d; the log granted it at index %d, applied first at %v",
			o.Client, o.Token, o.Call, o.Return, o.Index, g.index, g.at)
	case o.Came != g.queued && !isOnce(o.Request):
		c.violate("S3", "answers", o.lock(), "%s was answered that its request with token %d came at cluster time %d, it came at %d", o.Client, o.Token, o.Came, g.queued)
	case !o.Bare && (o.Stamp < o.Came || o.Stamp > c.log.nowAt(o.Index)):
		// It is that of the copy which was answered, whether it was granted at once or waited.
		c.violate("S3", "answers", o.lock(), "%s was answered that its request with token %d was applied at cluster time %d; it came at %d, and at index %d it was %d",
			o.Client, o.Token, o.Stamp, o.Came, o.Index, c.log.nowAt(o.Index))
	}
}

// checkBusy checks that the named holders held the lock at some time between call and answer.
func (c *checker) checkBusy(o *Op) {
	for _, token := range o.Holders {
		g := c.log.grants[token]
		if g == nil || g.index > o.Index || g.endAt < o.Call || !wantsAny(g, o.Wants) {
			c.violate("S8", "answers", o.lock(), "%s was answered between %v and %v that token %d holds it; by the log it did not", o.Client, o.Call, o.Return, token)
		}
	}
}

func wantsAny(g *logGrant, wants []Want) bool {
	for _, w := range wants {
		if g.want(w.Lock) {
			return true
		}
	}
	return false
}

func (g *logGrant) want(lock string) bool {
	for _, w := range g.wants {
		if w.Lock == lock {
			return true
		}
	}
	return false
}

// checkHolder compares the answer to a request with a token (S5).
func (c *checker) checkHolder(o *Op) {
	g := c.log.grants[o.Token]
	foreign := g == nil || g.session != "" && o.Session != g.session || len(o.Wants) > 0 && !g.want(o.Wants[0].Lock)
	switch o.Outcome {
	case OK:
		if foreign || g.index > o.Index || g.endAt < o.Call {
			c.violate("S5", "answers", o.lock(), "%s of token %d by %s was done between %v and %v; by the log it was not held by then", o.Kind, o.Token, o.Client, o.Call, o.Return)
			return
		}
		if o.Kind == Release && (g.ended != o.ends() || g.endIndex > o.Index) {
			c.violate("S7", "answers", o.lock(), "release of token %d was acknowledged to %s at %v; by the log it %s", o.Token, o.Client, o.Return, g.fate())
		}
	case NotHeld:
		if !foreign && (!g.over() || g.endIndex > o.Index) {
			c.violate("S3", "answers", o.lock(), "%s of token %d by %s was answered \"not held\" at %v, from index %d; by the log it %s",
				o.Kind, o.Token, o.Client, o.Return, o.Index, g.fate())
		}
	}
}

// ends is what a release does to its grant.
func (o *Op) ends() fsm.EventKind {
	if o.Lost {
		return fsm.EventExpired
	}
	return fsm.EventReleased
}

// checkCancel checks that a cancelled or timed-out wait was over and stayed so (FIFO).
func (c *checker) checkCancel(o *Op) {
	g := c.grantOfTry(o.Target)
	if g == nil || isOnce(g.request) || o.Outcome != OK && o.Outcome != NotHeld {
		return // each try of a once ID is cancelled by itself
	}
	if !g.over() || g.endIndex > o.Index {
		c.violate("FIFO", "answers", g.lock(), "the cancel of request %s was answered %s to %s at %v, from index %d; by the log it was granted token %d at index %d and %s",
			o.Target, o.Outcome, o.Client, o.Return, o.Index, g.token, g.index, g.fate())
	}
}

func (g *logGrant) fate() string {
	if !g.over() {
		return "is still held"
	}
	return endWord[g.ended] + " later, or otherwise"
}

// checkAlive compares the answers about a session with the log.
func (c *checker) checkAlive(o *Op) {
	s := c.log.sessions[o.Session]
	for s != nil && s.before != nil && s.opened > o.Index {
		s = s.before
	}
	if s == nil {
		if o.Outcome == OK {
			c.violate("S7", "answers", "", "%s was answered at %v that its session %s is open; by the log it never was", o.Client, o.Return, o.Session)
		}
		return
	}
	ended := s.ended != 0 && (s.ended < o.Index || s.ended == o.Index && s.code == fsm.TimedOut)
	switch {
	case o.Outcome == OK && (s.opened > o.Index || ended):
		c.violate("S2", "answers", "", "%s was answered at %v, from index %d, that its session %s is open; by the log it was open from index %d to %d",
			o.Client, o.Return, o.Index, o.Session, s.opened, s.ended)
	case o.Outcome == NoSess && s.opened < o.Index && (s.ended == 0 || s.ended > o.Index):
		c.violate("S2", "answers", "", "%s was answered at %v, from index %d, that its session %s has ended; by the log it was open from index %d to %d (0: still)",
			o.Client, o.Return, o.Index, o.Session, s.opened, s.ended)
	}
}

package history

import (
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
)

// Everything that ends has a cause: its deadline, the end of its session, or a request of a
// client. Where requests are not recorded, one is assumed to have been made.

// calls has when an operation was first called that ends a grant or a wait.
type calls struct {
	release map[release]time.Duration
	lost    map[release]time.Duration // that it was lost by its holder's clock
	cancel  map[string]time.Duration  // by session and sequence of what is cancelled
}

type release struct {
	token   uint64
	session string // of the client; empty: any caller may release a detached grant
}

func newCalls(ops []Op) calls {
	k := calls{release: make(map[release]time.Duration), lost: make(map[release]time.Duration), cancel: make(map[string]time.Duration)}
	for i := range ops {
		o := &ops[i]
		if o.Outcome == NotHeld || o.refused() {
			continue
		}
		switch o.Kind {
		case Release:
			asked := k.release
			if o.Lost {
				asked = k.lost
			}
			first(asked, release{o.Token, o.Session}, o.Call)
			first(asked, release{o.Token, ""}, o.Call)
		case Cancel:
			first(k.cancel, o.Target, o.Call)
		case End:
			for _, n := range o.Undelivered {
				first(k.cancel, tryOf(o.Session, n), o.Call)
			}
		}
	}
	return k
}

func first[K comparable](calls map[K]time.Duration, key K, at time.Duration) {
	if before, ok := calls[key]; !ok || at < before {
		calls[key] = at
	}
}

// endWith is how the grants of a session end with it.
var endWith = map[fsm.Code]fsm.EventKind{
	fsm.OK: fsm.EventReleased, fsm.TimedOut: fsm.EventExpired, fsm.NotHeld: fsm.EventRevoked,
}

// checkSessionCause looks for what has ended a session: its deadline (S2), its client, or an
// operator (S5).
func (r *replay) checkSessionCause(id string, s *logSession) {
	switch s.code {
	case fsm.TimedOut:
		if r.entry.Now < s.deadline {
			r.c.violate("S2", "log", "", "index %d: session %s ended by time at %d, its deadline was %d", r.entry.Index, id, r.entry.Now, s.deadline)
		}
	case fsm.OK:
		if t := r.c.facts.sessions[id]; t != nil && t.ttl > 0 && t.ends > r.entry.at && r.c.h.Dropped == 0 {
			r.c.violate("S5", "log", "", "index %d: session %s was ended by its client, which had not requested it", r.entry.Index, id)
		}
	case fsm.NotHeld:
		if r.c.o.Alone {
			r.c.violate("S5", "log", "", "index %d: session %s was killed, and no client had requested it", r.entry.Index, id)
		}
	default:
		r.c.violate("S5", "log", "", "index %d: session %s ended with code %d, which is no reason", r.entry.Index, id, s.code)
	}
}

// checkGrantCause looks for what has ended a grant: its deadline (S2), its session, or a
// request (S5).
func (r *replay) checkGrantCause(g *logGrant, how fsm.EventKind) {
	if code, over := r.over[g.session]; over {
		if endWith[code] != how {
			r.c.violate("S5", "log", g.lock(), "index %d: session %s %s, and its grant with token %d %s",
				r.entry.Index, g.session, endWord[endWith[code]], g.token, endWord[how])
		}
		return
	}
	switch how {
	case fsm.EventExpired:
		floor, own := r.floors[g.token]
		if (!own || r.entry.Now < floor) && !called(r.calls.lost, release{g.token, g.session}, r.entry.at) && !r.undelivered(g) {
			r.c.violate("S2", "log", g.lock(), "index %d: token %d expired at %d, its deadline was %d (0: none)", r.entry.Index, g.token, r.entry.Now, floor)
		}
	case fsm.EventReleased:
		if r.recorded(g) && !called(r.calls.release, release{g.token, g.session}, r.entry.at) {
			r.checkGivenUp(g)
		}
	case fsm.EventRevoked:
		if r.c.o.Alone && r.c.h.Dropped == 0 && !r.forced(g) {
			r.c.violate("S5", "log", g.lock(), "index %d: token %d was revoked, and no client had requested it", r.entry.Index, g.token)
		}
	}
}

// checkGivenUp looks for a cancel of a granted acquire, where no client has released the grant
// (S5).
func (r *replay) checkGivenUp(g *logGrant) {
	if g.session == "" {
		r.checkTaken(g)
		return
	}
	if !called(r.calls.cancel, g.try, r.entry.at) {
		r.c.violate("S5", "log", g.lock(), "index %d: token %d was released, and no client had requested it", r.entry.Index, g.token)
	}
}

// checkWaitCause looks for what has ended a wait without a grant: its limit, its
// session, a request, a semaphore that shrank, or the end of its caller's access tokens. Without one of these the waiter has lost its
// place (FIFO).
func (r *replay) checkWaitCause(g *logGrant, e *fsm.Event) {
	switch e.Code {
	case fsm.TimedOut:
		if wait, early := r.early(g); early {
			r.c.violate("FIFO", "log", g.lock(), "index %d: request %s was given up at %d; it came at %d, to wait for %v (negative: without limit)",
				r.entry.Index, g.request, r.entry.Now, g.queued, wait)
		}
	case fsm.Cancelled, fsm.NoSession:
		r.checkTryCause(g, e)
	case fsm.NotOwner:
		if gone := r.c.o.Revoked; gone == nil || !gone(r.entry.Index, e.Holder) {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s of %s ended for want of an access token, and there was one", r.entry.Index, g.request, e.Holder)
		}
	default:
		if e.Code != fsm.KindMismatch || !slices.ContainsFunc(g.wants, r.asksTooMuch) {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s ended with code %d, which is no reason", r.entry.Index, g.request, e.Code)
		}
	}
}

// early reports whether a wait ended before its limit. A node subtracts the time since it received
// the request.
func (r *replay) early(g *logGrant) (wait time.Duration, early bool) {
	for _, o := range r.c.triesOf(g) {
		over := o.Wait >= 0 && r.entry.Now.Sub(g.queued) >= int64(o.Wait)
		if g.session == "" {
			over = o.Wait >= 0 && r.c.after(o.Call, o.Wait) <= r.entry.at+time.Millisecond
		}
		if over {
			return o.Wait, false
		}
		wait, early = o.Wait, true
	}
	return wait, early
}

// checkTryCause looks for the client that has cancelled a try, or the session that has ended
// with it. Nodes cancel what they have sent in their own sessions when the caller is gone;
// that is not recorded.
func (r *replay) checkTryCause(g *logGrant, e *fsm.Event) {
	try, by := requestOf(e).try(), hexOf(e.Request.Session)
	if e.Code == fsm.NoSession {
		if _, over := r.over[by]; !over {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s ended with session %q, which did not end", r.entry.Index, g.request, by)
		}
		return
	}
	signed := g.session != "" || r.c.facts.byTry[try] != nil // by a client
	asked := called(r.calls.cancel, try, r.entry.at)
	if !signed {
		tries := r.c.triesOf(g)
		asked = len(tries) == 0 || slices.ContainsFunc(tries, func(o *Op) bool { return o.Left > 0 })
	}
	if r.recorded(g) && !asked {
		r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s was cancelled, and no client had requested it", r.entry.Index, g.request)
	}
}

// recorded reports whether the acquire of a request is recorded. Then the rest is, too.
func (r *replay) recorded(g *logGrant) bool {
	return r.c.h.Dropped == 0 && (r.c.o.Alone || r.c.asked(g) != nil)
}

// called reports whether the call for a key was made by a time.
func called[K comparable](calls map[K]time.Duration, key K, by time.Duration) bool {
	at, ok := calls[key]
	return ok && at <= by
}

// forced reports whether an operator had asked for the end of a grant by now.
func (r *replay) forced(g *logGrant) bool {
	return slices.ContainsFunc(g.wants, func(w fsm.Want) bool {
		return slices.ContainsFunc(r.c.facts.asked[w.Lock], func(o *Op) bool { return o.mayForce(g.token) && o.Call <= r.entry.at })
	})
}

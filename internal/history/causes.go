package history

import (
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
)

// Nothing ends by itself: whatever the log says has ended was ended by its time,
// with its session, or by somebody who had asked for it. What was not recorded is
// taken for asked for.

// calls are when somebody first asked for what ends a grant or a wait.
type calls struct {
	release map[uint64]time.Duration // by token
	cancel  map[string]time.Duration // by the request that is cancelled
}

func newCalls(ops []Op) calls {
	k := calls{release: make(map[uint64]time.Duration), cancel: make(map[string]time.Duration)}
	for i := range ops {
		o := &ops[i]
		if o.Outcome == NotHeld || o.Outcome == Refused {
			continue
		}
		switch o.Kind {
		case Release:
			if at, ok := k.release[o.Token]; !ok || o.Call < at {
				k.release[o.Token] = o.Call
			}
		case Cancel:
			if at, ok := k.cancel[o.Target]; !ok || o.Call < at {
				k.cancel[o.Target] = o.Call
			}
		}
	}
	return k
}

// endWith is what happens to the grants of a session that ends.
var endWith = map[fsm.Code]fsm.EventKind{
	fsm.OK: fsm.EventReleased, fsm.TimedOut: fsm.EventExpired, fsm.NotHeld: fsm.EventRevoked,
}

// checkSessionCause looks for what has ended a session: its time (S2), its client,
// or an operator (S5).
func (r *replay) checkSessionCause(id string, s *logSession) {
	switch s.code {
	case fsm.TimedOut:
		if r.entry.Now < s.deadline {
			r.c.violate("S2", "log", "", "index %d: session %s ended by time at %d, its deadline was %d", r.entry.Index, id, r.entry.Now, s.deadline)
		}
	case fsm.OK:
		if t := r.c.facts.sessions[id]; t != nil && t.ttl > 0 && t.ends > r.entry.at && r.c.h.Dropped == 0 {
			r.c.violate("S5", "log", "", "index %d: session %s was ended by its client, who had not asked for it", r.entry.Index, id)
		}
	case fsm.NotHeld:
		if r.c.o.Alone {
			r.c.violate("S5", "log", "", "index %d: session %s was killed, and nobody had asked for it", r.entry.Index, id)
		}
	default:
		r.c.violate("S5", "log", "", "index %d: session %s ended with code %d, which is no reason", r.entry.Index, id, s.code)
	}
}

// checkGrantCause looks for what has ended a grant: its time (S2), its session, or
// somebody who asked for it (S5).
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
		if floor, own := r.floors[g.token]; !own || r.entry.Now < floor {
			r.c.violate("S2", "log", g.lock(), "index %d: token %d expired at %d, its deadline was %d (0: none)", r.entry.Index, g.token, r.entry.Now, floor)
		}
	case fsm.EventReleased:
		if r.recorded(g) && !called(r.calls.release, g.token, r.entry.at) && !called(r.calls.cancel, g.request, r.entry.at) {
			r.c.violate("S5", "log", g.lock(), "index %d: token %d was released, and nobody had asked for it", r.entry.Index, g.token)
		}
	case fsm.EventRevoked:
		if r.c.o.Alone && r.c.h.Dropped == 0 && !r.forced(g) {
			r.c.violate("S5", "log", g.lock(), "index %d: token %d was revoked, and nobody had asked for it", r.entry.Index, g.token)
		}
	}
}

// checkWaitCause looks for what has ended a wait without a grant: its limit, its
// session, somebody who asked for it, or a semaphore that shrank, which is not
// recorded. Without one the waiter has lost its place (FIFO).
func (r *replay) checkWaitCause(g *logGrant, code fsm.Code) {
	switch code {
	case fsm.TimedOut:
		o := r.c.facts.requests[g.request]
		if o != nil && (o.Wait < 0 || r.entry.Now-g.queued < int64(o.Wait)) {
			r.c.violate("FIFO", "log", g.lock(), "index %d: request %s was given up at %d; it came at %d, to wait for %v (negative: without limit)",
				r.entry.Index, g.request, r.entry.Now, g.queued, o.Wait)
		}
	case fsm.Cancelled:
		if r.recorded(g) && !called(r.calls.cancel, g.request, r.entry.at) {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s was cancelled, and nobody had asked for it", r.entry.Index, g.request)
		}
	case fsm.NoSession:
		if _, over := r.over[g.session]; !over {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s ended with session %q, which did not end", r.entry.Index, g.request, g.session)
		}
	default:
		counted := slices.ContainsFunc(g.wants, func(w fsm.Want) bool { return w.Mode == fsm.Permits })
		if code != fsm.KindMismatch || !counted {
			r.c.violate("FIFO", "log", g.lock(), "index %d: the wait of request %s ended with code %d, which is no reason", r.entry.Index, g.request, code)
		}
	}
}

// What the table remembers of requests without a session, if nobody has configured
// it otherwise.
const (
	onceRemembered = 65_536
	onceFor        = 5 * time.Minute
)

// settle notes the end of a request without a session: from then on its ID is
// remembered for a while.
func (r *replay) settle(g *logGrant) {
	if g.session == "" && g.request != "" {
		r.settled[g.request] = r.entry.Now
	}
}

// checkForgotten looks for a request without a session that takes effect again
// while its ID must be remembered (S6). That is only known if all IDs are: the table
// forgets the oldest when they become too many.
func (r *replay) checkForgotten(g *logGrant) {
	at, ended := r.settled[g.request]
	if !ended || !r.c.o.Alone || r.c.h.Dropped > 0 || len(r.c.h.Ops) > onceRemembered {
		return
	}
	if called(r.calls.cancel, g.request, r.entry.at) {
		return // a cancelled ID is forgotten at once
	}
	if r.entry.Now-at < int64(onceFor) {
		r.c.violate("S6", "log", g.lock(), "index %d: request %s took effect again at %d; it had ended at %d, and is remembered for %v",
			r.entry.Index, g.request, r.entry.Now, at, onceFor)
	}
}

// recorded reports whether it is known what was asked for of a request. Its
// acquire is recorded then, and so is the rest.
func (r *replay) recorded(g *logGrant) bool {
	return r.c.h.Dropped == 0 && (r.c.o.Alone || r.c.facts.requests[g.request] != nil)
}

// called reports whether the call for a key was made by a time.
func called[K comparable](calls map[K]time.Duration, key K, by time.Duration) bool {
	at, ok := calls[key]
	return ok && at <= by
}

// forced reports whether somebody had asked to end a grant against its holder's
// will by now.
func (r *replay) forced(g *logGrant) bool {
	return slices.ContainsFunc(g.wants, func(w fsm.Want) bool {
		return slices.ContainsFunc(r.c.facts.asked[w.Lock], func(o *Op) bool { return o.mayForce(g.token) && o.Call <= r.entry.at })
	})
}

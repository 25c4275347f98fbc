package history

import (
	"fmt"
	"slices"
	"time"
)

// facts has what is known about grants and sessions from the operations.
type facts struct {
	grants   map[uint64]*grant  // by token: acquires that were granted
	requests map[string]*Op     // by request: the first acquire of it
	tries    map[string][]*Op   // by request with a once ID: all acquires of it
	byTry    map[string]*Op     // by session and sequence: acquires
	holders  map[string]*Op     // by holder: acquires without a session; nil: there are several
	renewals map[uint64][]*Op   // by token
	sessions map[string]*tenure // by session
	asked    map[string][]*Op   // by lock: force-releases that may have taken effect
	resizes  map[string][]*Op   // by lock: those that may have taken effect
	onLock   map[string]*inOrder
}

// grant is what is known about one grant from the operations.
type grant struct {
	op       *Op   // the acquire that was answered first; Call is that of its first try
	answered []*Op // all acquires that were answered with it, in order of call
	// mayEnd is when an operation that could end it was first called: before that only
	// time can. Never: none was.
	mayEnd time.Duration
	// forced is when an operator first requested its end.
	forced time.Duration
	// revoked is when such a request was first answered as done; or Never.
	revoked time.Duration
	// cancelled is when the acquire was answered as over for good; or Never.
	cancelled time.Duration
	session   *tenure // nil: detached
}

// tenure is what is known about one session.
type tenure struct {
	ttl   time.Duration // 0: it is not known
	open  *Op           // nil: it was not recorded
	alive []*Op         // keep-alives, and the opening, that were answered OK
	kept  time.Duration // the latest call of those; -1: none
	ends  time.Duration // when its end was first requested; or Never
}

func newFacts(ops []Op) facts {
	f := facts{
		grants: make(map[uint64]*grant), requests: make(map[string]*Op),
		sessions: make(map[string]*tenure), asked: make(map[string][]*Op), resizes: make(map[string][]*Op),
		tries: make(map[string][]*Op), byTry: make(map[string]*Op), holders: make(map[string]*Op), renewals: make(map[uint64][]*Op),
	}
	for i := range ops {
		o := &ops[i]
		switch o.Kind {
		case Acquire:
			f.addAcquire(o)
		case Renew:
			f.renewals[o.Token] = append(f.renewals[o.Token], o)
		case Open, KeepAlive:
			f.addAlive(o)
		case End:
			s := f.tenure(o.Session)
			s.ends = min(s.ends, o.Call)
		case ForceRelease:
			if (o.Outcome == OK || o.Outcome == Unknown) && len(o.Wants) > 0 {
				f.asked[o.Wants[0].Lock] = append(f.asked[o.Wants[0].Lock], o)
			}
		case Resize:
			if o.Outcome != NotHeld && !o.refused() {
				f.resizes[o.lock()] = append(f.resizes[o.lock()], o)
			}
		}
	}
	for _, g := range f.grants {
		f.findFirst(g)
	}
	for i := range ops {
		f.addEnd(&ops[i])
	}
	for _, g := range f.grants {
		f.addForce(g)
		if g.op.Session != "" {
			g.session = f.tenure(g.op.Session)
			g.mayEnd = min(g.mayEnd, g.session.ends)
		}
	}
	return f
}

func (f *facts) tenure(session string) *tenure {
	s := f.sessions[session]
	if s == nil {
		s = &tenure{kept: -1, ends: Never}
		f.sessions[session] = s
	}
	return s
}

func (f *facts) addAcquire(o *Op) {
	if o.Request != "" {
		if first := f.requests[o.Request]; first == nil || o.Call < first.Call {
			f.requests[o.Request] = o
		}
		switch {
		case !isOnce(o.Request):
			f.byTry[o.Request] = o
		case o.Try != "":
			f.byTry[o.Try] = o
			fallthrough
		default:
			f.tries[o.Request] = append(f.tries[o.Request], o)
		}
	} else if _, taken := f.holders[o.Holder]; taken {
		f.holders[o.Holder] = nil
	} else if o.Holder != "" {
		f.holders[o.Holder] = o
	}
	if o.Outcome != OK {
		return
	}
	g := f.grants[o.Token]
	if g == nil {
		g = &grant{mayEnd: Never, forced: Never, revoked: Never, cancelled: Never}
		f.grants[o.Token] = g
	}
	g.answered = append(g.answered, o)
}

// findFirst finds when a grant was first requested, and which acquire was answered with it
// first. With a once ID these may be two acquires.
func (f *facts) findFirst(g *grant) {
	slices.SortStableFunc(g.answered, func(a, b *Op) int { return compare(a.Call, b.Call) })
	first := g.answered[0]
	if len(g.answered) == 1 && len(f.tries[first.Request]) < 2 {
		g.op = first
		return
	}
	op := *slices.MinFunc(g.answered, func(a, b *Op) int { return compare(a.Return, b.Return) })
	op.Call, op.Before = first.Call, first.Before
	for _, t := range f.tries[first.Request] {
		op.Call = min(op.Call, t.Call)
	}
	g.op = &op
}

func (f *facts) addAlive(o *Op) {
	s := f.tenure(o.Session)
	if o.Kind == Open {
		s.ttl, s.open = o.TTL, o
	}
	if o.Outcome == OK {
		s.alive = append(s.alive, o)
		s.kept = max(s.kept, o.Call)
	}
}

// addEnd notes an operation that may have ended a grant.
func (f *facts) addEnd(o *Op) {
	done := o.Outcome == OK || o.Outcome == Unknown || o.Outcome == NoSess
	switch o.Kind {
	case Release:
		// One that was answered "not held" was executed, and ended nothing; nor did one
		// by a stranger.
		if g := f.grants[o.Token]; g != nil && done && (g.op.Session == "" || g.op.Session == o.Session) {
			g.mayEnd = min(g.mayEnd, o.Call)
		}
	case Cancel:
		acquire := f.byTry[o.Target]
		if acquire == nil || acquire.Outcome != OK {
			return
		}
		g := f.grants[acquire.Token]
		if done {
			g.mayEnd = min(g.mayEnd, o.Call)
		}
		if !acquire.Detached && (o.Outcome == OK || o.Outcome == NotHeld) {
			// A detached grant goes on if other callers know it.
			g.cancelled = min(g.cancelled, o.Return)
		}
	case End:
		for _, n := range o.Undelivered {
			if acquire := f.byTry[tryOf(o.Session, n)]; acquire != nil && acquire.Outcome == OK {
				f.grants[acquire.Token].mayEnd = min(f.grants[acquire.Token].mayEnd, o.Call)
			}
		}
	}
}

func tryOf(session string, sequence uint64) string { return fmt.Sprintf("%s/%d", session, sequence) }

// addForce records a force-release that may have ended a grant.
func (f *facts) addForce(g *grant) {
	for _, w := range g.op.Wants {
		for _, o := range f.asked[w.Lock] {
			if o.mayForce(g.op.Token) {
				g.forced = min(g.forced, o.Call)
			}
			if o.Outcome == OK && slices.Contains(o.Holders, g.op.Token) {
				g.revoked = min(g.revoked, o.Return)
			}
		}
	}
	g.mayEnd = min(g.mayEnd, g.forced)
}

// mayForce reports whether a force-release may have ended a grant on its lock.
func (o *Op) mayForce(token uint64) bool {
	if o.Outcome == OK && len(o.Holders) > 0 && len(o.Holders) < maxHolders {
		return slices.Contains(o.Holders, token)
	}
	return o.Token == 0 || o.Token == token
}

// maxHolders is how many holders an answer names at most.
const maxHolders = 64

package history

import (
	"slices"
	"time"
)

// facts are what the operations say about grants and sessions.
type facts struct {
	grants   map[uint64]*grant  // by token: acquires that were granted
	requests map[string]*Op     // by request ID: the first acquire with it
	sessions map[string]*tenure // by session
	asked    map[string][]*Op   // by lock: force-releases that may have done something
	onLock   map[string]*inOrder
}

// grant is what the operations say about one.
type grant struct {
	op *Op // the acquire
	// mayEnd is when somebody first asked for what could end it: before that only
	// time can. Never: nobody did.
	mayEnd time.Duration
	// forced is when somebody first asked for it against its holder's will.
	forced time.Duration
	// revoked is when it was answered first that the grant was ended so; Never.
	revoked time.Duration
	// cancelled is when the answer was there that the acquire is over for good; Never.
	cancelled time.Duration
	session   *tenure // nil: detached
}

// tenure is the life of a session.
type tenure struct {
	ttl   time.Duration // 0: it is not known
	open  *Op           // nil: it was not recorded
	alive []*Op         // keep-alives, and the opening, that were answered OK
	kept  time.Duration // the latest call of those; -1: none
	ends  time.Duration // when somebody first asked for its end; Never
}

func newFacts(ops []Op) facts {
	f := facts{
		grants: make(map[uint64]*grant), requests: make(map[string]*Op),
		sessions: make(map[string]*tenure), asked: make(map[string][]*Op),
	}
	for i := range ops {
		o := &ops[i]
		switch o.Kind {
		case Acquire:
			f.addAcquire(o)
		case Open, KeepAlive:
			f.addAlive(o)
		case End:
			s := f.tenure(o.Session)
			s.ends = min(s.ends, o.Call)
		case ForceRelease:
			if (o.Outcome == OK || o.Outcome == Unknown) && len(o.Wants) > 0 {
				f.asked[o.Wants[0].Lock] = append(f.asked[o.Wants[0].Lock], o)
			}
		}
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
	}
	if o.Outcome != OK {
		return
	}
	if g := f.grants[o.Token]; g == nil || o.Call < g.op.Call {
		f.grants[o.Token] = &grant{op: o, mayEnd: Never, forced: Never, revoked: Never, cancelled: Never}
	}
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
	switch o.Kind {
	case Release:
		// One that was answered "not held" was executed, and ended nothing.
		if g := f.grants[o.Token]; g != nil && (o.Outcome == OK || o.Outcome == Unknown || o.Outcome == NoSess) {
			g.mayEnd = min(g.mayEnd, o.Call)
		}
	case Cancel:
		acquire := f.requests[o.Target]
		if acquire == nil || acquire.Outcome != OK {
			return
		}
		g := f.grants[acquire.Token]
		if o.Outcome == OK || o.Outcome == Unknown || o.Outcome == NoSess {
			g.mayEnd = min(g.mayEnd, o.Call)
		}
		if acquire.Session != "" && (o.Outcome == OK || o.Outcome == NotHeld) {
			// The table forgets a cancelled ID that has no session: it may come again.
			g.cancelled = min(g.cancelled, o.Return)
		}
	}
}

// addForce notes who may have ended a grant against its holder's will.
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

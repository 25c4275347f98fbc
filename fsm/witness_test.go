package fsm

import (
	"fmt"
	"slices"
)

// witness follows the table's answers and events from outside and checks the
// promises themselves, whatever the model says. It needs entries of one
// command, because it lays each event to the command of its entry.
type witness struct {
	fail      func(format string, args ...any)
	now       int64
	lastToken uint64
	grants    []*witnessed // live
	line      []*witnessed // waiting, in the order in which they came
	sessions  map[SessionID]*witnessedSession
	free      map[string]int64  // lock name → no grant before this time
	resized   map[string]uint32 // lock name → the size set by Resize
	retried   bool              // the last command was a retry or refused unseen
	current   Command           // of the entry being looked at, or nil
	cut       bool              // more was due than the last entry could end
}

// witnessed is a request that waits or holds.
type witnessed struct {
	id      RequestID
	wants   []Want
	session SessionID
	ttl     int64
	wait    int64
	delay   int64
	queued  int64
	token   uint64
	floor   int64 // not to end by its own time before; 0: no time of its own
}

type witnessedSession struct {
	ttl      int64
	floor    int64
	deadline int64
	ended    map[uint64]bool   // sequence → its wait ended or was cancelled
	first    map[uint64]Result // sequence → first answer
	final    map[uint64]Result // sequence → how its wait ended
	kinds    map[uint64]Kind   // sequence → of what
}

func newWitness(fail func(format string, args ...any)) *witness {
	return &witness{
		fail: fail, sessions: map[SessionID]*witnessedSession{}, free: map[string]int64{}, resized: map[string]uint32{},
	}
}

// see takes the result of an entry with one command, or none.
func (w *witness) see(c Command, a Applied) {
	if a.Now < w.now {
		w.fail("time went back from %d to %d", w.now, a.Now)
	}
	w.now = a.Now
	w.current = c
	before := len(w.grants)
	for _, e := range a.Events {
		switch e.Kind {
		case EventSessionOpened:
			w.opened(c.(OpenSession), e)
		case EventSessionEnded:
			w.sessionEnded(c, e)
		case EventQueued:
			w.queued(c.(Acquire), e)
		case EventGranted:
			w.granted(c, e)
		case EventReleased, EventExpired, EventRevoked:
			w.grantEnded(c, e)
			w.forgetSizes()
		case EventWaitEnded:
			w.waitEnded(c, e)
			w.forgetSizes()
		default:
			w.fail("event of kind %d", e.Kind)
		}
	}
	if c != nil {
		w.answered(c, a, before)
	}
	w.forgetSizes()
	for _, r := range slices.Concat(w.grants, w.line) {
		if r.session != (SessionID{}) && w.sessions[r.session] == nil {
			w.fail("request %+v outlives its session", r)
		}
	}
}

func (w *witness) opened(c OpenSession, e Event) {
	if w.sessions[e.Session] != nil {
		w.fail("session %x opened twice", e.Session)
	}
	w.sessions[e.Session] = &witnessedSession{
		ttl: c.TTL, floor: later(w.now, c.TTL),
		ended: map[uint64]bool{}, first: map[uint64]Result{}, final: map[uint64]Result{}, kinds: map[uint64]Kind{},
	}
}

func (w *witness) sessionEnded(c Command, e Event) {
	s := w.sessions[e.Session]
	if s == nil {
		w.fail("session %x ended but was not open", e.Session)
	}
	switch e.Code {
	case TimedOut:
		if w.now < s.floor {
			w.fail("session %x ended by time at %d, not due before %d", e.Session, w.now, s.floor)
		}
	case OK:
		if end, ok := c.(EndSession); !ok || end.Session != e.Session {
			w.fail("session %x ended by its client in %T", e.Session, c)
		}
	case NotHeld:
		if kill, ok := c.(KillSession); !ok || kill.Session != e.Session {
			w.fail("session %x killed in %T", e.Session, c)
		}
	default:
		w.fail("session ended with code %d", e.Code)
	}
	delete(w.sessions, e.Session)
}

func (w *witness) request(c Acquire, e Event) *witnessed {
	return &witnessed{
		id: e.Request, wants: e.Wants, session: e.Session, ttl: c.TTL, wait: c.Wait, delay: c.Delay, queued: w.now,
	}
}

func (w *witness) queued(c Acquire, e Event) {
	w.line = append(w.line, w.request(c, e))
}

// waiting finds the place in line of a request, or -1.
func (w *witness) waiting(e Event) int {
	return slices.IndexFunc(w.line, func(r *witnessed) bool {
		return r.session == e.Session && r.id.Sequence == e.Request.Sequence && r.id.Once == e.Request.Once
	})
}

// granted checks exclusion (S1), tokens (S4), the line (FIFO) and that nobody
// who has left gets anything (S13).
func (w *witness) granted(c Command, e Event) {
	if e.Token <= w.lastToken {
		w.fail("token %d granted after %d", e.Token, w.lastToken)
	}
	w.lastToken = e.Token
	place := w.waiting(e)
	var r *witnessed
	if place >= 0 {
		r = w.line[place]
		w.fifo(r, w.line[:place])
		w.line = slices.Delete(w.line, place, place+1)
		if r.wait > 0 && w.now >= later(r.queued, r.wait) {
			w.fail("waiter %+v granted at %d, after its wait limit", r, w.now)
		}
	} else {
		ask, ok := c.(Acquire)
		if !ok {
			w.fail("grant to a request that does not wait: %+v", e)
		}
		r = w.request(ask, e)
		w.fifo(r, w.line)
	}
	w.noGhost(r)
	for _, want := range r.wants {
		w.exclusion(want)
	}
	r.token = e.Token
	if r.ttl > 0 {
		r.floor = later(w.now, r.ttl)
	}
	want := Result{Token: e.Token, Deadline: r.floor, Queued: r.queued, Granted: w.now}
	if fmt.Sprintf("%+v", e.Result) != fmt.Sprintf("%+v", want) || e.Waited != w.now-r.queued {
		w.fail("granted %+v, want result %+v", e, want)
	}
	w.grants = append(w.grants, r)
	if s := w.sessions[r.session]; s != nil {
		s.final[r.id.Sequence] = want
	}
}

// noGhost fails if a request's session or wait has ended.
func (w *witness) noGhost(r *witnessed) {
	if r.session == (SessionID{}) {
		return
	}
	s := w.sessions[r.session]
	if s == nil || s.ended[r.id.Sequence] {
		w.fail("granted to a request that had ended: %+v", r)
	}
}

// fifo fails if anybody in line before r wants one of its locks.
func (w *witness) fifo(r *witnessed, before []*witnessed) {
	for _, earlier := range before {
		for _, a := range earlier.wants {
			for _, b := range r.wants {
				if a.Lock == b.Lock && conflict(a, b) {
					w.fail("request %+v overtook %+v", r, earlier)
				}
			}
		}
	}
}

// exclusion fails if a lock cannot be held by its holders and one more.
func (w *witness) exclusion(want Want) {
	if w.now < w.free[want.Lock] {
		w.fail("lock %q granted at %d, in its delay until %d", want.Lock, w.now, w.free[want.Lock])
	}
	var out, limit uint64
	limit = uint64(want.Limit)
	if size, ok := w.resized[want.Lock]; ok {
		limit = uint64(size)
	}
	if c, ok := w.current.(Resize); ok && c.Lock == want.Lock {
		limit = max(limit, uint64(c.Limit))
	}
	others := 0
	for _, g := range w.grants {
		for _, held := range g.wants {
			if held.Lock != want.Lock {
				continue
			}
			others++
			if held.Mode != want.Mode || want.Mode == Exclusive {
				w.fail("lock %q granted in mode %d beside mode %d", want.Lock, want.Mode, held.Mode)
			}
			out += uint64(held.Permits)
		}
	}
	if want.Mode == Permits && out+uint64(want.Permits) > limit {
		w.fail("semaphore %q: %d permits out of %d", want.Lock, out+uint64(want.Permits), limit)
	}
}

// grantEnded checks that a grant ends only for one of the reasons (S2, S3, S5).
func (w *witness) grantEnded(c Command, e Event) {
	i := slices.IndexFunc(w.grants, func(r *witnessed) bool { return r.token == e.Token })
	if i < 0 {
		w.fail("token %d ended but was not granted", e.Token)
	}
	r := w.grants[i]
	w.grants = slices.Delete(w.grants, i, i+1)
	session := w.sessions[r.session]
	switch e.Kind {
	case EventExpired:
		// Where the session ended in this entry, its end was checked already.
		own := r.floor != 0 && w.now >= r.floor
		if !own && (r.session == (SessionID{}) || session != nil) {
			w.fail("grant %+v expired at %d, before its time", r, w.now)
		}
		for _, want := range r.wants {
			w.free[want.Lock] = max(w.free[want.Lock], later(w.now, r.delay))
		}
	case EventReleased:
		if !w.asked(c, r) {
			w.fail("grant %+v released by %+v", r, c)
		}
	case EventRevoked:
		if !w.revoked(c, r) {
			w.fail("grant %+v revoked by %+v", r, c)
		}
	}
}

// asked says that a command asks for the release of a grant.
func (w *witness) asked(c Command, r *witnessed) bool {
	switch c := c.(type) {
	case Release:
		return c.Token == r.token
	case EndSession:
		return c.Session == r.session
	case Cancel:
		if r.session == (SessionID{}) {
			return c.Target.Session == r.session && c.Target.Once == r.id.Once
		}
		return c.Target.Session == r.session && c.Target.Sequence == r.id.Sequence
	}
	return false
}

func (w *witness) revoked(c Command, r *witnessed) bool {
	switch c := c.(type) {
	case ForceRelease:
		named := slices.ContainsFunc(r.wants, func(want Want) bool { return want.Lock == c.Lock })
		return named && (c.Token == 0 || c.Token == r.token)
	case KillSession:
		return c.Session == r.session
	}
	return false
}

func (w *witness) waitEnded(c Command, e Event) {
	i := w.waiting(e)
	if i < 0 {
		w.fail("a wait ended that was not under way: %+v", e)
	}
	r := w.line[i]
	w.line = slices.Delete(w.line, i, i+1)
	session := w.sessions[r.session]
	ok := false
	switch e.Code {
	case TimedOut:
		ok = r.wait > 0 && w.now >= later(r.queued, r.wait)
	case NoSession:
		ok = r.session != (SessionID{}) && session == nil
	case Cancelled:
		_, ok = c.(Cancel)
	case KindMismatch:
		_, ok = c.(Resize)
	}
	if !ok {
		w.fail("wait %+v ended with code %d at %d by %+v", r, e.Code, w.now, c)
	}
	if session != nil {
		session.ended[r.id.Sequence] = true
		session.final[r.id.Sequence] = Result{Code: e.Code, Queued: r.queued}
	}
}

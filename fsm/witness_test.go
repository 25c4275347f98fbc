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
	now       Instant
	lastToken uint64
	grants    []*witnessed // live
	line      []*witnessed // waiting, in the order in which they came
	sessions  map[SessionID]*witnessedSession
	free      map[string]Instant // lock name → no grant before this time
	resized   map[string]uint32  // lock name → the size set by Resize
	once      map[OnceID]*witnessedOnce
	onceNanos int64
	retried   bool    // the last command was a retry or refused unseen
	current   Command // of the entry being looked at, or nil
	cut       bool    // more was due than the last entry could end

	as    *As                       // the command under way, if it comes as somebody
	valid map[string]witnessedToken // access tokens, by accessor
	ruled bool                      // the table knows rights
}

// witnessed is a request that waits or holds.
type witnessed struct {
	tries       []RequestID // that wait, or of a grant: that were told or have to be
	joined      []Instant   // when each of them came
	wants       []Want
	owner       string
	session     SessionID // zero: detached
	ttl         int64
	until       Instant // of the wait; 0: no limit
	delay       int64
	token       uint64
	floor       Instant // not to end by its own time before; 0: no time of its own
	unconfirmed bool    // the grant was waited for, and nobody has confirmed it
	shared      bool    // more than one try knows of the grant
}

// witnessedOnce is the last grant under a once ID.
type witnessedOnce struct {
	token  uint64
	forget Instant // no other grant before; 0: it is held
}

type witnessedSession struct {
	owner    string
	ttl      int64
	floor    Instant
	deadline Instant
	ended    map[uint64]bool   // sequence → its wait ended or was cancelled
	first    map[uint64]Result // sequence → first answer
	final    map[uint64]Result // sequence → how its wait ended
	asked    map[uint64]string // sequence → what it asked for; "": an acquire that was cancelled before it came
}

func newWitness(fail func(format string, args ...any)) *witness {
	return &witness{
		fail: fail, sessions: map[SessionID]*witnessedSession{}, free: map[string]Instant{}, resized: map[string]uint32{},
		once: map[OnceID]*witnessedOnce{}, onceNanos: 300 * second, valid: map[string]witnessedToken{},
	}
}

// see takes the result of an entry with one command, or none.
func (w *witness) see(c Command, a Applied) {
	if a.Now < w.now {
		w.fail("time went back from %d to %d", w.now, a.Now)
	}
	w.now = a.Now
	c = w.unwrap(c)
	w.current = c
	w.rightsChanged(c, a)
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
		case EventTryEnded:
			w.tryEnded(c, e)
		case EventResized:
			w.sizeChanged(c, e)
		default:
			w.fail("event of kind %d", e.Kind)
		}
	}
	if c != nil {
		w.answered(c, a, before)
	}
	w.forgetSizes()
	w.allFit()
	for _, r := range w.grants {
		if r.session != (SessionID{}) && w.sessions[r.session] == nil {
			w.fail("grant %+v outlives its session", r)
		}
	}
	for _, r := range w.grants {
		if !r.unconfirmed {
			continue
		}
		r.tries = slices.DeleteFunc(slices.Clone(r.tries), func(id RequestID) bool { return w.sessions[id.Session] == nil })
		if len(r.tries) == 0 {
			w.fail("grant %+v, which no caller got, outlives the sessions of all tries", r)
		}
	}
	for _, r := range w.line {
		for _, id := range r.tries {
			if w.sessions[id.Session] == nil {
				w.fail("request %+v waits for a try whose session has ended", r)
			}
		}
	}
}

func (w *witness) opened(c OpenSession, e Event) {
	if w.sessions[e.Session] != nil {
		w.fail("session %x opened twice", e.Session)
	}
	w.sessions[e.Session] = &witnessedSession{
		owner: c.Owner,
		ttl:   c.TTL, floor: later(w.now, c.TTL),
		ended: map[uint64]bool{}, first: map[uint64]Result{}, final: map[uint64]Result{}, asked: map[uint64]string{},
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
	r := &witnessed{
		tries: []RequestID{e.Request}, joined: []Instant{w.now}, wants: e.Wants, session: e.Session, ttl: c.TTL, delay: c.Delay,
		owner: w.ownerOf(c),
	}
	if c.Wait > 0 {
		r.until = later(w.now, c.Wait)
	}
	if c.Detached != (e.Session == SessionID{}) || c.ID.Session != e.Request.Session || c.ID.Once != e.Request.Once {
		w.fail("%+v is told as %+v", c, e)
	}
	return r
}

func (w *witness) queued(c Acquire, e Event) {
	w.line = append(w.line, w.request(c, e))
}

// waiting finds the place in the queue of a request, or -1.
func (w *witness) waiting(e Event) int {
	return slices.IndexFunc(w.line, func(r *witnessed) bool {
		return r.session == e.Session && slices.Contains(r.tries, e.Request)
	})
}

// joins notes that a try waits beside those of a queued request.
func (w *witness) joins(c Acquire) {
	for _, r := range w.line {
		if r.tries[0].Once == c.ID.Once && c.ID.Once != (OnceID{}) {
			w.join(r, c)
			return
		}
	}
	w.fail("%+v is queued, and no event reports it", c)
}

func (w *witness) join(r *witnessed, c Acquire) {
	r.tries = append(r.tries, RequestID{Session: c.ID.Session, Sequence: c.ID.Sequence, Once: c.ID.Once})
	r.joined = append(r.joined, w.now)
	r.until = max(r.until, later(w.now, c.Wait))
	if len(r.tries) > 16 {
		w.fail("%d tries wait for %+v", len(r.tries), r)
	}
}

// granted checks exclusion (S1), tokens (S4), the queue (FIFO) and that nobody
// who has left gets anything (S13).
func (w *witness) granted(c Command, e Event) {
	if e.Token <= w.lastToken {
		w.fail("token %d granted after %d", e.Token, w.lastToken)
	}
	w.lastToken = e.Token
	place := w.waiting(e)
	var r *witnessed
	told, now := place < 0, false // now: the latest try came in this entry, and never waited
	if place >= 0 {
		r = w.line[place]
		w.fifo(r, w.line[:place])
		w.line = slices.Delete(w.line, place, place+1)
		if c, ok := c.(Acquire); ok && c.ID.Once == e.Request.Once && len(e.Others) == len(r.tries) {
			w.join(r, c) // it was due, and the try of this entry gave it more time
			told, now = true, true
		}
		if r.until > 0 && w.now >= r.until {
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
	w.mayTake(c, r, place >= 0)
	for _, want := range r.wants {
		w.exclusion(want)
	}
	r.token = e.Token
	if r.ttl > 0 {
		r.floor = later(w.now, r.ttl)
	}
	last := len(r.tries) - 1
	want := Result{Token: e.Token, Deadline: r.floor, Queued: r.joined[last], Granted: w.now}
	if now {
		want.Queued = r.joined[last-1]
	}
	if fmt.Sprintf("%+v", e.Result) != fmt.Sprintf("%+v", want) || e.Waited != w.now.Sub(r.joined[0]) && last == 0 {
		w.fail("granted %+v, want result %+v", e, want)
	}
	if !slices.Equal(append([]RequestID{e.Request}, e.Others...), r.tries) {
		w.fail("granted %+v, want the tries %+v", e, r.tries)
	}
	r.unconfirmed = !told && r.session == SessionID{}
	r.shared = told && last > 0
	w.grants = append(w.grants, r)
	w.oneGrant(e)
	for i, id := range r.tries {
		want.Queued = r.joined[i]
		w.sessions[id.Session].final[id.Sequence] = want
	}
}

// oneGrant checks that a once ID is granted once, until it is forgotten.
func (w *witness) oneGrant(e Event) {
	id := e.Request.Once
	if id == (OnceID{}) {
		return
	}
	if last := w.once[id]; last != nil && (last.forget == 0 || last.forget > w.now) {
		w.fail("granted %+v, and its ID has the token %d until %d", e, last.token, last.forget)
	}
	w.once[id] = &witnessedOnce{token: e.Token}
}

// noGhost fails if a request's sessions or waits have ended.
func (w *witness) noGhost(r *witnessed) {
	for _, id := range r.tries {
		if s := w.sessions[id.Session]; s == nil || s.ended[id.Sequence] {
			w.fail("granted to a try that had ended: %+v", r)
		}
	}
}

// fifo fails if an earlier waiter than r wants one of its locks.
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
	if release, ok := c.(Release); ok && release.Token == r.token {
		r.unconfirmed = false // its token is known
	}
	w.grants = slices.Delete(w.grants, i, i+1)
	w.endOnce(c, r)
	session := w.sessions[r.session]
	switch e.Kind {
	case EventExpired:
		// Where the session ended in this entry, its end was checked already.
		lost, ok := c.(Release)
		own := r.floor != 0 && w.now >= r.floor || ok && lost.Lost && w.asked(c, r) || w.abandoned(r)
		if !own && (r.session == (SessionID{}) || session != nil) {
			w.fail("grant %+v expired at %d, before its time", r, w.now)
		}
		for _, want := range r.wants {
			if r.unconfirmed {
				break // nobody has done anything under it
			}
			w.free[want.Lock] = max(w.free[want.Lock], later(w.now, r.delay))
		}
	case EventReleased:
		if lost, ok := c.(Release); !w.asked(c, r) || ok && lost.Lost {
			w.fail("grant %+v released by %+v", r, c)
		}
		w.onlyItsOwn(r, "released")
	case EventRevoked:
		if !w.revoked(c, r) {
			w.fail("grant %+v revoked by %+v", r, c)
		}
	}
}

// endOnce notes how long the ID of a grant is to be remembered.
func (w *witness) endOnce(c Command, r *witnessed) {
	once := w.once[r.tries[0].Once]
	if once == nil {
		return
	}
	once.forget = later(w.now, w.onceNanos)
	switch c.(type) {
	case Cancel, EndSession: // no caller got it
		delete(w.once, r.tries[0].Once)
	}
	if r.unconfirmed {
		delete(w.once, r.tries[0].Once)
	}
}

// abandoned reports whether the sessions of all tries of a grant have ended, and no caller got
// it.
func (w *witness) abandoned(r *witnessed) bool {
	return r.unconfirmed && !slices.ContainsFunc(r.tries, func(id RequestID) bool { return w.sessions[id.Session] != nil })
}

// shown notes that a command has shown a token.
func (w *witness) shown(token uint64) {
	for _, r := range w.grants {
		if r.token == token {
			w.confirmed(r)
		}
	}
}

// confirmed notes that the token of a grant is known.
func (w *witness) confirmed(r *witnessed) {
	if r.unconfirmed {
		r.unconfirmed, r.shared, r.tries = false, len(r.tries) > 1, r.tries[:1]
	}
}

// asked says that a command asks for the release of a grant, and may.
func (w *witness) asked(c Command, r *witnessed) bool {
	own := func(id RequestID) bool { return id.Session == r.tries[0].Session && id.Sequence == r.tries[0].Sequence }
	switch c := c.(type) {
	case Release:
		return c.Token == r.token && (r.session == SessionID{} || r.session == c.ID.Session)
	case EndSession:
		undelivered := slices.ContainsFunc(c.Undelivered, func(q uint64) bool {
			return own(RequestID{Session: c.Session, Sequence: q})
		})
		others := slices.ContainsFunc(r.tries, func(id RequestID) bool {
			return id.Session != c.Session && w.sessions[id.Session] != nil
		})
		return c.Session == r.session || r.session == SessionID{} && undelivered && !r.shared && !r.unconfirmed || r.unconfirmed && !others
	case Cancel:
		return own(c.Target) && !r.shared && len(r.tries) == 1
	}
	return false
}

func (w *witness) revoked(c Command, r *witnessed) bool {
	switch c := c.(type) {
	case ForceRelease:
		return r.named(c.Lock) && (c.Token == 0 || c.Token == r.token)
	case KillSession:
		return c.Session == r.session || w.abandoned(r)
	case Clear:
		return r.named(c.Lock) || c.Owner != "" && r.session == SessionID{}
	}
	return false
}

// named says that a request is for a lock, among others.
func (r *witnessed) named(lock string) bool {
	return slices.ContainsFunc(r.wants, func(want Want) bool { return want.Lock == lock })
}

func (w *witness) waitEnded(c Command, e Event) {
	i := w.waiting(e)
	if i < 0 {
		w.fail("a wait ended that was not under way: %+v", e)
	}
	r := w.line[i]
	w.line = slices.Delete(w.line, i, i+1)
	ok := false
	switch e.Code {
	case Revoked:
		clear, is := c.(Clear)
		ok = is && (r.named(clear.Lock) || clear.Owner != "" && r.session == SessionID{})
	case NotOwner:
		ok = w.ruled && w.isNobody(r.owner)
	case TimedOut:
		ok = r.until > 0 && w.now >= r.until
	case NoSession:
		ok = w.sessions[e.Request.Session] == nil
	case Cancelled:
		cancel, is := c.(Cancel)
		ok = is && w.isTarget(cancel, e) && len(r.tries) == 1
		w.onlyItsOwn(r, "cancelled")
	case KindMismatch:
		resize, is := c.(Resize)
		ok = is && slices.ContainsFunc(r.wants, func(want Want) bool { return want.Lock == resize.Lock && want.Permits > resize.Limit })
	}
	if !slices.Equal(append([]RequestID{e.Request}, e.Others...), r.tries) {
		w.fail("wait ended %+v, want the tries %+v", e, r.tries)
	}
	if !ok {
		w.fail("wait %+v ended with code %d at %d by %+v", r, e.Code, w.now, c)
	}
	for i := range r.tries {
		w.tryHasEnded(r, i, e)
	}
}

// sizeChanged notes the size of a semaphore, from before what the change brings about.
func (w *witness) sizeChanged(c Command, e Event) {
	resize, is := c.(Resize)
	if !is || len(e.Wants) != 1 || e.Wants[0] != (Want{Lock: resize.Lock, Mode: Permits, Limit: resize.Limit}) || !w.inUse(resize.Lock) {
		w.fail("size changed %+v by %+v", e, c)
	}
	w.resized[resize.Lock] = resize.Limit
}

// allFit fails if a request waits for more permits than its semaphore has.
func (w *witness) allFit() {
	for _, r := range w.line {
		for _, want := range r.wants {
			size, ok := w.resized[want.Lock]
			if ok && want.Permits > size {
				w.fail("request %+v waits for more than the %d permits that there are", r, size)
			}
		}
	}
}

func (w *witness) isTarget(c Cancel, e Event) bool {
	return c.Target.Session == e.Request.Session && c.Target.Sequence == e.Request.Sequence
}

// tryHasEnded notes what the end of a wait says, which is what a retry is answered.
func (w *witness) tryHasEnded(r *witnessed, i int, e Event) {
	if s := w.sessions[r.tries[i].Session]; s != nil {
		s.ended[r.tries[i].Sequence] = true
		s.final[r.tries[i].Sequence] = Result{Code: e.Code, Field: e.Result.Field, Detail: e.Result.Detail, Queued: r.joined[i]}
	}
}

// tryEnded checks that one try leaves for a reason of its own, and others wait on.
func (w *witness) tryEnded(c Command, e Event) {
	at := w.waiting(e)
	if at < 0 {
		w.fail("a try ended that did not wait: %+v", e)
	}
	r := w.line[at]
	i := slices.Index(r.tries, e.Request)
	cancel, is := c.(Cancel)
	cancelled := e.Code == Cancelled && is && w.isTarget(cancel, e)
	if gone := e.Code == NoSession && w.sessions[e.Request.Session] == nil; !gone && !cancelled {
		w.fail("try %+v ended with code %d by %+v", e.Request, e.Code, c)
	}
	w.tryHasEnded(r, i, e)
	r.tries = slices.Delete(slices.Clone(r.tries), i, i+1)
	r.joined = slices.Delete(slices.Clone(r.joined), i, i+1)
	if len(r.tries) == 0 || !slices.Equal(e.Others, r.tries) {
		w.fail("try ended %+v, want %+v to wait on", e, r.tries)
	}
}

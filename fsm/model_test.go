package fsm

import (
	"math"
	"slices"
	"sort"
)

// The model is the lock table again, written to be read: plain slices, every
// question answered by walking all of them, nothing kept twice. It knows
// nothing of encodings, snapshots, heaps or trees. Where the table and the
// model differ, one of them breaks a promise.
type model struct {
	now       Instant
	wall      int64
	lastToken uint64
	arrivals  uint64 // sessions and requests are numbered as they come
	cluster   [16]byte
	limits    Limits

	sessions []*modelSession // by number
	requests []*modelRequest // waiting or granted, by number
	locks    []*modelLock    // what a name keeps beside its requests
	records  []*modelRecord
	ended    []*modelEnded // by number
	events   []Event       // of the entry under way

	level       uint32
	index       uint64 // of the entry under way
	rightsIndex uint64
	tokens      []*modelToken // by number
	policies    []Policy      // by name
	as          *As           // the command under way, if it runs as somebody
}

type modelSession struct {
	id       SessionID
	number   uint64
	ttl      int64
	deadline Instant
	holder   string
	owner    string
	labels   []Label
	acked    []Span // ascending, with gaps between them; the first begins at 0
	answers  []modelAnswer

	revocations    []Revocation
	revocationLast uint64
}

type modelAnswer struct {
	sequence uint64
	command  Command // nil: an Acquire that was cancelled before it came
	result   Result
}

type modelRequest struct {
	number      uint64
	ask         Acquire
	tries       []modelTry // that wait, or of a detached grant: that was granted
	unconfirmed bool       // a detached grant that was waited for, and no try has confirmed it
	shared      bool       // more than one try knows of the grant
	queued      Instant
	waitUntil   Instant // 0: no limit
	token       uint64
	granted     Instant
	since       int64
	deadline    Instant // 0: none of its own
	over        bool    // released, ended, expired: no longer in model.requests
}

// modelTry is a sequence in which a request was sent.
type modelTry struct {
	session  SessionID
	sequence uint64
	queued   Instant
}

type modelLock struct {
	name       string
	limit      uint32 // semaphores only
	delayUntil Instant
	delayed    uint64 // number of the grant whose loss set the delay
}

// modelEnded is what is remembered of a session that has ended.
type modelEnded struct {
	id     SessionID
	owner  string
	number uint64
	forget Instant
}

// modelRecord is what is remembered under a once ID.
type modelRecord struct {
	ask     Acquire       // the first, or what it was when it was tried anew
	request *modelRequest // waits, holds, or has held
	forget  Instant       // 0: while its request lives
}

func newModel() *model { return &model{limits: modelLimits(Limits{}), level: 1} }

// later adds a duration to a time and stops at the end of time.
func later(at Instant, d int64) Instant {
	if d > 0 && int64(at) > math.MaxInt64-d {
		return math.MaxInt64
	}
	return at + Instant(d)
}

// apply runs an entry that was stamped in the term it is stored under.
func (m *model) apply(stamp Instant, wall int64, commands []Command) (results []Result, events []Event, moreDue bool) {
	m.events = nil
	m.now = max(m.now, stamp)
	m.wall = wall
	moreDue = m.expire()
	for _, c := range commands {
		results = append(results, m.run(c))
	}
	return results, m.events, moreDue
}

func (m *model) run(c Command) Result {
	switch c := c.(type) {
	case OpenSession:
		return m.openSession(c)
	case KeepAlive:
		return m.keepAlive(c)
	case EndSession:
		return m.endSessionByClient(c)
	case KillSession:
		return m.killSession(c)
	case Acquire:
		return m.remember(c.ID, c, func() Result { return m.acquire(c) })
	case Cancel:
		return m.remember(c.ID, c, func() Result { return m.cancel(c) })
	case Release:
		return m.remember(c.ID, c, func() Result { return m.release(c) })
	case Renew:
		return m.remember(c.ID, c, func() Result { return m.renew(c) })
	case SetValue:
		return m.remember(c.ID, c, func() Result { return m.setValue(c) })
	case ForceRelease:
		return m.remember(c.ID, c, func() Result { return m.forceRelease(c) })
	case Resize:
		return m.remember(c.ID, c, func() Result { return m.resize(c) })
	case Configure:
		return m.configure(c)
	case Found:
		return m.found(c)
	case Clear:
		return m.clear(c)
	case RaiseLevel:
		m.level = max(m.level, c.Level)
		return Result{}
	}
	return m.runRights(c)
}

// modelTimer is something that ends by time.
type modelTimer struct {
	at     Instant
	number uint64
	lock   string // delays of one grant end in the order of their names
	quiet  bool   // nobody needs to be told: it makes no ticks
	end    func()
}

// timers are all the things that will end by time, the next one first.
func (m *model) timers() []modelTimer {
	var all []modelTimer
	for _, s := range m.sessions {
		all = append(all, modelTimer{s.deadline, s.number, "", false, func() { m.endSession(s, TimedOut, "", "") }})
	}
	for _, r := range m.requests {
		if r.token != 0 && r.deadline != 0 {
			all = append(all, modelTimer{r.deadline, r.number, "", false, func() { m.endGrant(r, EventExpired, Event{}) }})
		}
		if r.token == 0 && r.waitUntil != 0 {
			all = append(all, modelTimer{r.waitUntil, r.number, "", false, func() { m.endWait(r, TimedOut) }})
		}
	}
	for _, l := range m.locks {
		if l.delayUntil != 0 {
			all = append(all, modelTimer{l.delayUntil, l.delayed, l.name, false, func() { l.delayUntil = 0 }})
		}
	}
	for _, a := range m.tokens {
		if a.Deadline != 0 {
			all = append(all, modelTimer{a.Deadline, a.number, "", false, func() { m.endToken(a) }})
		}
	}
	for _, o := range m.records {
		if o.forget != 0 {
			all = append(all, modelTimer{o.forget, o.request.number, "", true, func() { m.forgetRecord(o) }})
		}
	}
	for _, e := range m.ended {
		all = append(all, modelTimer{e.forget, e.number, "", true, func() { m.forgetEnded(e) }})
	}
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].at != all[j].at {
			return all[i].at < all[j].at
		}
		if all[i].number != all[j].number {
			return all[i].number < all[j].number
		}
		return all[i].lock < all[j].lock
	})
	return all
}

// loud are the timers that end something; the others only forget.
func (m *model) loud() []modelTimer {
	return slices.DeleteFunc(m.timers(), func(t modelTimer) bool { return t.quiet })
}

func (m *model) quiet() []modelTimer {
	return slices.DeleteFunc(m.timers(), func(t modelTimer) bool { return !t.quiet })
}

// expire ends what is due, only then hands on what became free, and then forgets.
func (m *model) expire() (moreDue bool) {
	m.endSome(m.loud)
	m.handOver()
	m.endSome(m.quiet)
	all := m.loud()
	return len(all) > 0 && all[0].at <= m.now
}

func (m *model) endSome(timers func() []modelTimer) {
	for range m.limits.ExpiriesPerEntry {
		all := timers()
		if len(all) == 0 || all[0].at > m.now {
			return
		}
		all[0].end()
	}
}

// handOver grants what can be granted, who came first first. Then those end who had their
// turn and are nobody any more, and it begins again.
func (m *model) handOver() {
	for again := true; again; {
		again = false
		var nobodies []*modelRequest
		for _, r := range slices.Clone(m.requests) {
			switch {
			case r.token != 0 || m.isDue(r) || !m.grantable(r):
			case m.isNobody(m.ownerOf(r.ask)):
				nobodies = append(nobodies, r)
			default:
				m.grant(r)
				r.unconfirmed = r.ask.Detached
			}
		}
		for _, r := range nobodies {
			m.endWait(r, NotOwner)
			again = true
		}
	}
	m.tidy()
}

// isDue says that a waiter has run out of time and only waits for its end.
func (m *model) isDue(r *modelRequest) bool {
	if r.waitUntil != 0 && r.waitUntil <= m.now {
		return true
	}
	for _, y := range r.tries {
		if m.session(y.session).deadline > m.now {
			return false
		}
	}
	return true
}

// owner is the session that a request belongs to; nil if it is detached.
func (m *model) owner(r *modelRequest) *modelSession {
	if r.ask.Detached {
		return nil
	}
	return m.session(r.ask.ID.Session)
}

// tidy forgets locks that nobody uses.
func (m *model) tidy() {
	m.locks = slices.DeleteFunc(m.locks, func(l *modelLock) bool {
		if len(m.on(l.name)) > 0 {
			return false
		}
		l.limit = 0
		return l.delayUntil == 0
	})
}

func (m *model) session(id SessionID) *modelSession {
	for _, s := range m.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// on are the requests, waiting or granted, that name a lock.
func (m *model) on(lock string) []*modelRequest {
	var on []*modelRequest
	for _, r := range m.requests {
		if _, ok := r.want(lock); ok {
			on = append(on, r)
		}
	}
	return on
}

func (m *model) holders(lock string) []*modelRequest {
	return slices.DeleteFunc(m.on(lock), func(r *modelRequest) bool { return r.token == 0 })
}

func (m *model) waiters(lock string) []*modelRequest {
	return slices.DeleteFunc(m.on(lock), func(r *modelRequest) bool { return r.token != 0 })
}

func (m *model) lock(name string) *modelLock {
	for _, l := range m.locks {
		if l.name == name {
			return l
		}
	}
	return nil
}

func (m *model) byToken(token uint64) *modelRequest {
	for _, r := range m.requests {
		if token != 0 && r.token == token {
			return r
		}
	}
	return nil
}

// want is what the request asks of one lock.
func (r *modelRequest) want(lock string) (Want, bool) {
	for _, w := range r.ask.Wants {
		if w.Lock == lock {
			return w, true
		}
	}
	return Want{}, false
}

// conflict says that two requests can never hold one lock together, as far as
// the line is concerned: semaphores are first come, first served.
func conflict(a, b Want) bool { return a.Mode != Shared || b.Mode != Shared }

// grantable says that all of a request's locks can be given to it now.
func (m *model) grantable(r *modelRequest) bool {
	for _, w := range r.ask.Wants {
		if !m.fits(w) {
			return false
		}
		for _, other := range m.waiters(w.Lock) {
			theirs, _ := other.want(w.Lock)
			if other.number < r.number && conflict(theirs, w) {
				return false
			}
		}
	}
	return true
}

// fits says that a lock's holders leave room for one more.
func (m *model) fits(w Want) bool {
	l := m.lock(w.Lock)
	if l != nil && l.delayUntil != 0 {
		return false
	}
	var out uint64
	for _, h := range m.holders(w.Lock) {
		theirs, _ := h.want(w.Lock)
		if w.Mode != Permits && conflict(theirs, w) {
			return false
		}
		out += uint64(theirs.Permits)
	}
	if w.Mode != Permits {
		return true
	}
	limit := w.Limit
	if l != nil && l.limit != 0 {
		limit = l.limit
	}
	return out+uint64(w.Permits) <= uint64(limit)
}

func (m *model) emit(e Event) { m.events = append(m.events, e) }

func (m *model) holderName(r *modelRequest) string {
	if s := m.owner(r); s != nil {
		return s.holder
	}
	return r.ask.Holder
}

package fsm

import (
	"cmp"
	"slices"
)

// How grants, waits, sessions and remembered answers end in the model.

// grant makes a waiting or new request a holder.
func (m *model) grant(r *modelRequest) {
	m.lastToken++
	r.token = m.lastToken
	r.granted = m.now
	r.since = m.wall
	if r.ask.TTL > 0 {
		r.deadline = later(m.now, r.ask.TTL)
	}
	for _, w := range r.ask.Wants {
		m.use(w)
	}
	m.setAnswer(r, r.grantedResult())
	e := m.about(r, EventGranted)
	e.Result = r.grantedResult()
	e.Waited = m.now - r.queued
	m.emit(e)
}

// use remembers the size of a semaphore while anybody is on it.
func (m *model) use(w Want) {
	l := m.lock(w.Lock)
	if l == nil {
		l = &modelLock{name: w.Lock}
		m.locks = append(m.locks, l)
	}
	if l.limit == 0 {
		l.limit = w.Limit
	}
}

func (r *modelRequest) grantedResult() Result {
	return Result{Token: r.token, Deadline: r.deadline, Queued: r.queued, Granted: r.granted}
}

// about is an event on a request.
func (m *model) about(r *modelRequest, kind EventKind) Event {
	return Event{
		Kind: kind, Request: r.ask.ID, Session: r.ask.ID.Session, Token: r.token,
		Wants: r.ask.Wants, Holder: m.holderName(r),
	}
}

// setAnswer replaces what a retry of the request will hear.
func (m *model) setAnswer(r *modelRequest, result Result) {
	if s := m.session(r.ask.ID.Session); s != nil {
		for i := range s.answers {
			if s.answers[i].sequence == r.ask.ID.Sequence {
				s.answers[i].result = result
			}
		}
	}
	for _, o := range m.once {
		if o.request == r {
			o.result = result
		}
	}
}

// remove takes a request out of the table; its answer is now only remembered.
func (m *model) remove(r *modelRequest) {
	r.over = true
	m.requests = slices.DeleteFunc(m.requests, func(x *modelRequest) bool { return x == r })
	for _, o := range m.once {
		if o.request == r {
			m.settleOnce(o)
			break
		}
	}
}

// settleOnce starts the time after which a once ID is forgotten.
func (m *model) settleOnce(o *modelOnce) {
	o.request = nil
	o.forget = later(m.now, m.limits.OnceNanos)
	m.boundOnce()
}

// boundOnce forgets the oldest answers beyond the limit.
func (m *model) boundOnce() {
	for {
		settled := 0
		var oldest *modelOnce
		for _, o := range m.once {
			if o.forget == 0 {
				continue
			}
			settled++
			if oldest == nil || o.forget < oldest.forget || o.forget == oldest.forget && o.number < oldest.number {
				oldest = o
			}
		}
		if settled <= m.limits.OnceRemembered {
			return
		}
		m.forgetOnce(oldest)
	}
}

func (m *model) forgetOnce(o *modelOnce) {
	m.once = slices.DeleteFunc(m.once, func(x *modelOnce) bool { return x == o })
}

// endGrant takes a grant away; e carries who and why.
func (m *model) endGrant(r *modelRequest, kind EventKind, e Event) {
	about := m.about(r, kind)
	about.Held = m.now - r.granted
	about.Number, about.Reason, about.Who = e.Number, e.Reason, e.Who
	m.emit(about)
	m.remove(r)
	if kind == EventExpired && r.ask.Delay > 0 {
		for _, w := range r.ask.Wants {
			m.delay(w.Lock, r)
		}
	}
}

// delay keeps a lock free for a while.
func (m *model) delay(name string, r *modelRequest) {
	l := m.lock(name)
	if until := later(m.now, r.ask.Delay); until > l.delayUntil {
		l.delayUntil, l.delayed = until, r.number
	}
}

// endWait ends a wait without a grant.
func (m *model) endWait(r *modelRequest, code Code) {
	e := m.about(r, EventWaitEnded)
	e.Code = code
	e.Waited = m.now - r.queued
	m.emit(e)
	m.setAnswer(r, Result{Code: code, Queued: r.queued})
	m.remove(r)
}

// endSession ends a session, its grants and its waits, and hands nothing on yet.
func (m *model) endSession(s *modelSession, code Code, reason, who string) {
	m.emit(Event{Kind: EventSessionEnded, Code: code, Session: s.id, Holder: s.holder, Reason: reason, Who: who})
	kind := EventReleased
	switch code {
	case TimedOut:
		kind = EventExpired
	case NotHeld:
		kind = EventRevoked
	}
	for _, r := range slices.Clone(m.requests) {
		if r.ask.ID.Session == s.id && r.token != 0 {
			m.endGrant(r, kind, Event{Reason: reason, Who: who})
		}
	}
	for _, r := range slices.Clone(m.requests) {
		if r.ask.ID.Session == s.id {
			m.endWait(r, NoSession)
		}
	}
	m.sessions = slices.DeleteFunc(m.sessions, func(x *modelSession) bool { return x == s })
	m.arrivals++
	m.ended = append(m.ended, &modelEnded{s.id, m.arrivals, later(m.now, m.limits.OnceNanos)})
	m.boundEnded()
}

// boundEnded forgets the sessions that are next to be forgotten, beyond the limit.
func (m *model) boundEnded() {
	for len(m.ended) > m.limits.EndedRemembered {
		m.forgetEnded(slices.MinFunc(m.ended, func(a, b *modelEnded) int {
			return cmp.Or(cmp.Compare(a.forget, b.forget), cmp.Compare(a.number, b.number))
		}))
	}
}

func (m *model) forgetEnded(e *modelEnded) {
	m.ended = slices.DeleteFunc(m.ended, func(x *modelEnded) bool { return x == e })
}

// hasEnded says that a session is remembered to have ended.
func (m *model) hasEnded(id SessionID) bool {
	return slices.ContainsFunc(m.ended, func(e *modelEnded) bool { return e.id == id })
}

// remember runs a command with a request ID at most once.
func (m *model) remember(id RequestID, kind Kind, do func() Result, attempt uint64) Result {
	switch {
	case id.Session != SessionID{} && id.Once != OnceID{}:
		return Result{Code: Invalid, Field: "id"}
	case id.Session != SessionID{}:
		return m.rememberInSession(id, kind, do)
	case id.Once != OnceID{}:
		return m.rememberOnce(id.Once, kind, do, attempt)
	}
	return do()
}

func (m *model) rememberInSession(id RequestID, kind Kind, do func() Result) Result {
	s := m.session(id.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if id.Sequence == 0 {
		return Result{Code: Invalid, Field: "id"}
	}
	s.acked = max(s.acked, id.Acked)
	s.answers = slices.DeleteFunc(s.answers, func(a modelAnswer) bool { return a.sequence <= s.acked })
	if id.Sequence <= s.acked {
		return Result{Code: StaleRequest}
	}
	for _, a := range s.answers {
		if a.sequence == id.Sequence && a.kind != kind {
			return invalid("id")
		}
		if a.sequence == id.Sequence {
			return a.result
		}
	}
	if len(s.answers) >= m.limits.RequestsWindow {
		return Result{Code: OverLimit, Field: "requests"}
	}
	result := do()
	s.answers = append(s.answers, modelAnswer{id.Sequence, kind, result})
	return result
}

func (m *model) rememberOnce(id OnceID, kind Kind, do func() Result, attempt uint64) Result {
	for _, o := range m.once {
		if o.id == id && o.kind != kind {
			return invalid("id")
		}
		if o.id == id {
			o.attempt = attempt
			return o.result
		}
	}
	m.arrivals++
	o := &modelOnce{id: id, kind: kind, number: m.arrivals, attempt: attempt}
	o.result = do()
	m.once = append(m.once, o)
	for _, r := range m.requests {
		if r.ask.ID.Once == id {
			o.request = r
			return o.result
		}
	}
	m.settleOnce(o)
	return o.result
}

// modelLimits are the limits with the documented defaults.
func modelLimits(l Limits) Limits {
	size := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	nanos := func(v *int64, seconds int64) {
		if *v == 0 {
			*v = seconds * 1e9
		}
	}
	size(&l.NameBytes, 512)
	size(&l.ValueBytes, 4096)
	size(&l.HolderBytes, 128)
	size(&l.Labels, 32)
	size(&l.LabelBytes, 256)
	size(&l.LocksPerRequest, 64)
	size(&l.WaitersPerLock, 10_000)
	size(&l.Waiters, 200_000)
	size(&l.GrantsPerSession, 10_000)
	size(&l.RequestsWindow, 10_000)
	size(&l.Sessions, 100_000)
	size(&l.Grants, 2_000_000)
	size(&l.OnceRemembered, 65_536)
	size(&l.EndedRemembered, 200_000)
	size(&l.ReasonBytes, 256)
	size(&l.ExpiriesPerEntry, 1024)
	nanos(&l.OnceNanos, 5*60)
	nanos(&l.MinTTL, 1)
	nanos(&l.MaxTTL, 24*60*60)
	nanos(&l.MaxWait, 60*60)
	nanos(&l.MaxDelay, 10*60)
	return l
}

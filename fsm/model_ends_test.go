package fsm

import (
	"cmp"
	"fmt"
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
	e := m.about(r, EventGranted)
	e.Others = r.ids()[1:]
	e.Result = r.grantedResult()
	e.Waited = m.now.Sub(r.queued)
	for _, y := range r.tries {
		m.answer(r, y, r.grantedResult())
		e.Result.Queued = y.queued // of the last one
	}
	m.emit(e)
}

// confirm frees an unconfirmed grant from the sessions of its tries.
func (m *model) confirm(r *modelRequest) {
	if r.unconfirmed {
		r.unconfirmed, r.shared, r.tries = false, len(r.tries) > 1, r.tries[:1]
	}
}

// withdraw takes a try away from an unconfirmed grant, which ends with the last one.
func (m *model) withdraw(r *modelRequest, session SessionID, sequence uint64, kind EventKind, e Event) {
	left := slices.DeleteFunc(slices.Clone(r.tries), func(y modelTry) bool {
		return y.session == session && y.sequence == sequence
	})
	if len(left) == 0 {
		m.endGrant(r, kind, e)
		return
	}
	r.tries = left
}

// ids are those of the tries.
func (r *modelRequest) ids() []RequestID {
	var ids []RequestID
	for _, y := range r.tries {
		ids = append(ids, r.idOf(y))
	}
	return ids
}

func (r *modelRequest) idOf(y modelTry) RequestID {
	return RequestID{Session: y.session, Sequence: y.sequence, Once: r.ask.ID.Once}
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
	e := Event{Kind: kind, Request: r.idOf(r.tries[0]), Token: r.token, Wants: r.ask.Wants, Holder: m.holderName(r), Owner: m.ownerOf(r.ask)}
	if !r.ask.Detached {
		e.Session = r.ask.ID.Session
	}
	return e
}

// answer replaces what a copy of a try will hear.
func (m *model) answer(r *modelRequest, y modelTry, result Result) {
	result.Queued = y.queued
	if a := m.session(y.session).answer(y.sequence); a != nil {
		a.result = result
	}
}

// remove takes a request out of the table.
func (m *model) remove(r *modelRequest) {
	r.over = true
	m.requests = slices.DeleteFunc(m.requests, func(x *modelRequest) bool { return x == r })
}

func (m *model) forgetRecord(o *modelRecord) {
	m.records = slices.DeleteFunc(m.records, func(x *modelRecord) bool { return x == o })
}

// endGrant takes a grant away; e carries who and why.
func (m *model) endGrant(r *modelRequest, kind EventKind, e Event) {
	about := m.about(r, kind)
	about.Held = m.now.Sub(r.granted)
	about.Number, about.Reason, about.Who = e.Number, e.Reason, e.Who
	m.emit(about)
	m.remove(r)
	if o := m.record(r.ask.ID.Once); o != nil {
		if o.forget = later(m.now, m.limits.OnceNanos); r.unconfirmed {
			m.forgetRecord(o)
		}
	}
	if kind == EventExpired && r.ask.Delay > 0 && !r.unconfirmed {
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
func (m *model) endWait(r *modelRequest, code Code) { m.endWaitFor(r, code, "", "") }

func (m *model) endWaitFor(r *modelRequest, code Code, reason, who string) {
	e := m.about(r, EventWaitEnded)
	e.Code, e.Reason, e.Who = code, reason, who
	if code == KindMismatch || code == NotOwner {
		e.Result.Code = code // with the reason, for people
	}
	e.Waited = m.now.Sub(r.queued)
	e.Others = r.ids()[1:]
	m.emit(e)
	for _, y := range r.tries {
		m.answer(r, y, Result{Code: code})
	}
	m.remove(r)
	if o := m.record(r.ask.ID.Once); o != nil {
		m.forgetRecord(o)
	}
}

// leave takes one try out of a request that waits.
func (m *model) leave(r *modelRequest, session SessionID, sequence uint64, code Code) {
	if len(r.tries) == 1 {
		m.endWait(r, code)
		return
	}
	e := m.about(r, EventTryEnded)
	e.Code = code
	e.Waited = m.now.Sub(r.queued)
	for i, y := range r.tries {
		if y.session == session && y.sequence == sequence {
			e.Request = r.idOf(y)
			m.answer(r, y, Result{Code: code})
			r.tries = slices.Delete(slices.Clone(r.tries), i, i+1)
			break
		}
	}
	e.Others = r.ids()
	m.emit(e)
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
		if m.owner(r) == s && r.token != 0 {
			m.endGrant(r, kind, Event{Reason: reason, Who: who})
		}
		for _, y := range slices.Clone(r.tries) {
			if r.unconfirmed && y.session == s.id {
				m.withdraw(r, y.session, y.sequence, kind, Event{Reason: reason, Who: who})
			}
		}
	}
	for _, r := range slices.Clone(m.requests) {
		for _, y := range slices.Clone(r.tries) {
			if y.session == s.id && r.token == 0 {
				m.leave(r, y.session, y.sequence, NoSession)
			}
		}
	}
	m.sessions = slices.DeleteFunc(m.sessions, func(x *modelSession) bool { return x == s })
	m.arrivals++
	m.ended = append(m.ended, &modelEnded{s.id, s.owner, m.arrivals, later(m.now, m.limits.OnceNanos)})
}

func (m *model) forgetEnded(e *modelEnded) {
	m.ended = slices.DeleteFunc(m.ended, func(x *modelEnded) bool { return x == e })
}

// hasEnded says that a session is remembered to have ended.
func (m *model) hasEnded(id SessionID) bool {
	return slices.ContainsFunc(m.ended, func(e *modelEnded) bool { return e.id == id })
}

// remember runs a command with a request ID at most once.
func (m *model) remember(id RequestID, c Command, do func() Result) Result {
	_, acquires := c.(Acquire)
	if s := m.session(id.Session); s != nil && m.foreign(s.owner) {
		return Result{Code: NotOwner}
	}
	switch {
	case id.Once != OnceID{} && (!acquires || id.Session == SessionID{}):
		return invalid("id")
	case id.Session == SessionID{}:
		return do()
	}
	s := m.session(id.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if id.Sequence == 0 {
		return invalid("id")
	}
	for _, span := range []Span{{1, id.Acked}, id.Answered[0], id.Answered[1]} {
		if span.First != 0 && span.First <= span.Last {
			m.acknowledge(s, span)
		}
	}
	if a := s.answer(id.Sequence); a != nil {
		return m.copyOf(a, c)
	}
	if s.hasAcked(id.Sequence) {
		return Result{Code: StaleRequest}
	}
	result := do()
	m.keep(s, modelAnswer{id.Sequence, c, result})
	return result
}

// copyOf answers a command whose sequence was seen before.
func (m *model) copyOf(a *modelAnswer, c Command) Result {
	acquire, acquires := c.(Acquire)
	switch {
	case a.command == nil && !acquires, a.command != nil && bareText(a.command) != bareText(c):
		return invalid("id")
	case acquires && a.result.Code == Busy:
		return m.busy(acquire)
	case acquires && acquire.Detached && a.result.Code == OK:
		r := m.byToken(a.result.Token)
		if r == nil {
			return Result{Code: NotHeld, Token: a.result.Token}
		}
		result := a.result
		result.Deadline = r.deadline
		return result
	}
	return a.result
}

// bareText is all of a command that must not differ between copies.
func bareText(c Command) string {
	bare := func(id RequestID) RequestID {
		id.Acked, id.Answered = 0, [2]Span{}
		return id
	}
	switch x := c.(type) {
	case Acquire:
		x.ID, x.Owner = bare(x.ID), ""
		c = x
	case Cancel:
		x.ID, x.Target = bare(x.ID), RequestID{Session: x.Target.Session, Sequence: x.Target.Sequence}
		c = x
	case Release:
		x.ID = bare(x.ID)
		c = x
	case Renew:
		x.ID = bare(x.ID)
		c = x
	case SetValue:
		x.ID = bare(x.ID)
		c = x
	case ForceRelease:
		x.ID, x.Who = bare(x.ID), ""
		c = x
	case Resize:
		x.ID = bare(x.ID)
		c = x
	}
	return fmt.Sprintf("%T %+v", c, c)
}

func (s *modelSession) answer(sequence uint64) *modelAnswer {
	for i := range s.answers {
		if s.answers[i].sequence == sequence {
			return &s.answers[i]
		}
	}
	return nil
}

func (s *modelSession) hasAcked(sequence uint64) bool {
	return slices.ContainsFunc(s.acked, func(span Span) bool { return span.First <= sequence && sequence <= span.Last })
}

// acknowledge forgets the answers that a client has.
func (m *model) acknowledge(s *modelSession, span Span) {
	s.answers = slices.DeleteFunc(s.answers, func(a modelAnswer) bool {
		return span.First <= a.sequence && a.sequence <= span.Last && a.result.Code != Queued
	})
	s.ack(span)
	s.closeGaps(m.limits.RequestsWindow)
}

func (s *modelSession) ack(span Span) {
	s.acked = append(s.acked, span)
	slices.SortFunc(s.acked, func(a, b Span) int { return cmp.Compare(a.First, b.First) })
	merged := s.acked[:1]
	for _, next := range s.acked[1:] {
		if last := &merged[len(merged)-1]; next.First-1 <= last.Last {
			last.Last = max(last.Last, next.Last)
		} else {
			merged = append(merged, next)
		}
	}
	s.acked = merged
}

// closeGaps takes what lies in the lowest gaps for acknowledged.
func (s *modelSession) closeGaps(most int) {
	for len(s.acked) > most+1 {
		s.acked[1].First = 0
		s.acked = s.acked[1:]
	}
}

// keep remembers an answer. The oldest beyond the limit count as acknowledged.
func (m *model) keep(s *modelSession, a modelAnswer) {
	s.answers = append(s.answers, a)
	slices.SortFunc(s.answers, func(a, b modelAnswer) int { return cmp.Compare(a.sequence, b.sequence) })
	answered := 0
	for _, a := range s.answers {
		if a.result.Code != Queued {
			answered++
		}
	}
	limit := m.limits.RequestsWindow
	if answered <= limit+limit/8 {
		return
	}
	s.answers = slices.DeleteFunc(s.answers, func(a modelAnswer) bool {
		if a.result.Code == Queued || answered <= limit {
			return false
		}
		answered--
		s.ack(Span{a.sequence, a.sequence})
		return true
	})
	s.closeGaps(limit)
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
	size(&l.OnceRemembered, 250_000)
	size(&l.EndedRemembered, 1_000_000)
	size(&l.ReasonBytes, 256)
	size(&l.ExpiriesPerEntry, 1024)
	size(&l.AccessTokens, 10_000)
	size(&l.Policies, 1000)
	size(&l.PolicyBytes, 16<<10)
	nanos(&l.OnceNanos, 5*60)
	nanos(&l.MinTTL, 1)
	nanos(&l.MaxTTL, 24*60*60)
	nanos(&l.MaxWait, 60*60)
	nanos(&l.MaxDelay, 10*60)
	return l
}

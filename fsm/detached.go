package fsm

import "slices"

// Detached acquires. One waits as a part of a session, like any other, and its grant
// belongs to no session. Between the two, when the wait has ended in a grant, the grant
// is unconfirmed: it still ends with the sessions of its tries, because the callers that waited
// may be gone. One of the sessions confirms it by a renewal before its caller is answered, and
// from then on the grant lasts for its TTL. Any request that shows its token confirms it, too.
// So a waiter that is gone holds nothing for longer than its session lasts. A grant that was
// given at once answers a request that has just been made, and is confirmed from the start.
//
// A caller that may lose its session, or retries its acquire through other nodes, gives it a
// once ID: the table keeps a record of the request under it, so that any try finds the
// request, its grant, or that the grant has ended.
//
// What was tried: to remember the answer under the once ID and to return it to every try. It
// returned grants that had ended, refused for minutes what was busy once, and accepted any
// command of the ID as the same one.

// maxTries bounds the tries of one request that wait.
const maxTries = 16

// try is a sequence of a session in which an acquire was sent.
type try struct {
	session  SessionID
	sequence uint64
}

// record is what is known of a once ID. Its request waits or holds, or it has been
// granted and the grant has ended.
type record struct {
	gen    uint64
	owner  *owner
	number uint64  // of the request
	token  uint64  // of the grant that has ended; before that 0
	forget Instant // when it is forgotten; 0: the request waits or holds
	asked  asked
}

// asked is what was asked for, to compare it with what another try asks for.
type asked struct {
	locks, value uint64 // digests
	ttl, delay   int64
}

// askedFor does not depend on the order of the locks: it means nothing.
func askedFor(c *Acquire) asked {
	a := asked{ttl: c.TTL, delay: c.Delay}
	for i := range c.Wants {
		var h digester
		h.want(&c.Wants[i])
		a.locks += h.sum()
	}
	var h digester
	h.bytes(c.Value)
	a.value = h.sum()
	return a
}

// differs names the first field in which b is not as a.
func (a *asked) differs(b asked) reason {
	switch {
	case a.locks != b.locks:
		return otherLocks
	case a.ttl != b.ttl:
		return otherTTL
	case a.delay != b.delay:
		return otherDelay
	case a.value != b.value:
		return otherValue
	}
	return noReason
}

// tries counts the tries of a request. A session's request is its own only one. Of a
// confirmed detached grant one is left.
func (r *request) tries() int {
	if r.session != (SessionID{}) {
		return 1
	}
	return len(r.more().tries)
}

func (r *request) try(i int) try {
	if r.session != (SessionID{}) {
		return try{r.session, r.sequence}
	}
	return r.more().tries[i]
}

func (r *request) tryID(i int) RequestID {
	y := r.try(i)
	return RequestID{Session: y.session, Sequence: y.sequence, Once: r.more().once}
}

// triesFrom are the IDs of the tries but the first few.
func (r *request) triesFrom(first int) []RequestID {
	if r.tries() <= first {
		return nil
	}
	ids := make([]RequestID, 0, r.tries()-first)
	for i := first; i < r.tries(); i++ {
		ids = append(ids, r.tryID(i))
	}
	return ids
}

// tryAgain answers another try of a once ID that has a record.
func (t *Table) tryAgain(c *Acquire, m *record) Result {
	if why := m.asked.differs(askedFor(c)); why != noReason {
		return t.refuse(Invalid, why, 0)
	}
	if m.forget != 0 {
		return t.hasEndedWith(m.token)
	}
	r, _ := t.requests.get(m.number)
	switch {
	case r.token != 0:
		r = t.confirm(r)
		t.share(r)
		return t.grantedBefore(r)
	case c.Wait == 0:
		return t.busy(c)
	}
	return t.join(c, r)
}

// share notes that more than one try knows of a grant: from now on no Cancel of one
// of them may take it from the other.
func (t *Table) share(r *request) {
	if r.extra.shared {
		return
	}
	e := *r.extra
	e.shared = true
	t.changeRequest(r).extra = &e
}

// grantedBefore answers a try that came now with a grant.
func (t *Table) grantedBefore(r *request) Result {
	res := r.grantedResult()
	res.Queued = t.now
	return res
}

// hasEndedWith answers an acquire whose grant has ended.
func (t *Table) hasEndedWith(token uint64) Result {
	res := t.refuse(NotHeld, grantEnded, int64(token))
	res.Token = token
	return res
}

// join puts another try beside those that wait.
func (t *Table) join(c *Acquire, r *request) Result {
	s := t.session(c.ID.Session)
	switch {
	case r.tries() >= maxTries:
		return t.refuse(OverLimit, fullTries, maxTries)
	case t.isFull(s):
		return t.refuse(OverLimit, fullSession, int64(t.limits.GrantsPerSession))
	}
	if res, ok := t.roomFor(r.owner.name, costTry); !ok {
		return res
	}
	if res, ok := t.quotaForBytes(r.owner, costTry); !ok {
		return res
	}
	wasDue := t.isDue(r)
	r = t.changeRequest(r)
	e := *r.extra
	e.tries = append(slices.Clip(e.tries), try{c.ID.Session, c.ID.Sequence})
	r.extra = &e
	t.rechargeRequest(r)
	if until := t.now.Add(c.Wait); until > r.deadline {
		r.deadline = until
		t.deadlines.move(r.timer, until)
	}
	s = t.changeSession(c.ID.Session, s)
	s.waits.add(r.number)
	if wasDue {
		// In a mass expiry that was cut it was passed over: now it has its turn.
		t.revive(r)
		t.promote()
		if r, _ = t.requests.get(r.number); r.token != 0 {
			return t.grantedBefore(t.confirm(r))
		}
	}
	t.queuedAs = r.number
	return Result{Code: Queued, Queued: t.now}
}

// isDue says that a waiter has run out of time: its own, or all that its tries'
// sessions have.
func (t *Table) isDue(r *request) bool {
	if r.deadline != 0 && r.deadline <= t.now {
		return true
	}
	for i := range r.tries() {
		if t.session(r.try(i).session).deadline > t.now {
			return false
		}
	}
	return true
}

// confirm takes an unconfirmed grant out of the sessions of its tries: a caller was answered
// with it, or shows its token.
func (t *Table) confirm(r *request) *request {
	if !r.more().unconfirmed {
		return r
	}
	t.dropUnconfirmed(r)
	e := *r.extra
	e.unconfirmed, e.shared, e.tries = false, len(e.tries) > 1, []try{e.tries[0]}
	r = t.changeRequest(r)
	r.extra = &e
	t.rechargeRequest(r)
	return r
}

// dropUnconfirmed takes an unconfirmed grant out of the lists of its tries' sessions.
func (t *Table) dropUnconfirmed(r *request) {
	for _, y := range r.extra.tries {
		s := t.changeSession(y.session, t.session(y.session))
		s.unconfirmed.remove(r.number)
	}
}

// abandonUnconfirmed takes one try away from an unconfirmed grant. The last one ends it; e says
// how.
func (t *Table) abandonUnconfirmed(r *request, y try, e Event) {
	if r.tries() == 1 {
		t.endGrant(r, e)
		return
	}
	s := t.changeSession(y.session, t.session(y.session))
	s.unconfirmed.remove(r.number)
	x := *r.extra
	i := slices.Index(x.tries, y)
	x.tries = slices.Delete(slices.Clone(x.tries), i, i+1)
	r = t.changeRequest(r)
	r.extra = &x
	t.rechargeRequest(r)
}

// abandonAllUnconfirmed takes the tries of a session that ends away from an unconfirmed grant.
func (t *Table) abandonAllUnconfirmed(number uint64, id SessionID, e Event) {
	for {
		r, held := t.requests.get(number)
		if !held {
			return
		}
		i := slices.IndexFunc(r.extra.tries, func(y try) bool { return y.session == id })
		if i < 0 {
			return
		}
		t.abandonUnconfirmed(r, r.extra.tries[i], e)
	}
}

// tellGranted answers the tries of a waiter that was granted. Those of a detached one
// have to confirm it.
func (t *Table) tellGranted(r *request) {
	e := Event{Kind: EventGranted, Result: r.grantedResult(), Waited: r.granted.Sub(r.queued), Others: r.triesFrom(1)}
	t.describe(&e, r)
	for i := range r.tries() {
		queued := t.answerTry(r.try(i), r.number, e.Result)
		e.Result.Queued = max(e.Result.Queued, queued)
	}
	t.events = append(t.events, e)
	if r.session != (SessionID{}) {
		s := t.session(r.session)
		s.grants.put(r.number, r.sequence)
		return
	}
	x := *r.extra
	x.unconfirmed = true
	r.extra = &x
	for _, y := range x.tries {
		t.session(y.session).unconfirmed.add(r.number)
	}
}

// leave takes one try out of a request that waits. The last one ends the wait.
func (t *Table) leave(r *request, y try, code Code) {
	if r.tries() == 1 {
		t.endWait(r, code)
		return
	}
	i := slices.Index(r.extra.tries, y)
	e := *r.extra
	e.tries = slices.Delete(slices.Clone(e.tries), i, i+1)
	event := Event{Kind: EventTryEnded, Code: code, Waited: t.now.Sub(r.queued)}
	t.describe(&event, r)
	event.Request = r.tryID(i)
	r = t.changeRequest(r)
	r.extra = &e
	t.rechargeRequest(r)
	event.Others = r.triesFrom(0)
	t.events = append(t.events, event)
	t.answerTry(y, r.number, Result{Code: code})
}

// leaveAll takes the tries of a session that ends out of a request that waits.
func (t *Table) leaveAll(number uint64, id SessionID) {
	for {
		r, waits := t.requests.get(number)
		if !waits {
			return
		}
		i := 0
		for i < r.tries() && r.try(i).session != id {
			i++
		}
		if i == r.tries() {
			return
		}
		t.leave(r, r.try(i), NoSession)
	}
}

// cancelTry ends what a try waits for or was granted. It says false if that is not
// for the try alone to end.
func (t *Table) cancelTry(r *request, y try) bool {
	switch {
	case r.token == 0:
		t.leave(r, y, Cancelled)
		return true
	case r.session != (SessionID{}):
	case r.extra.shared || !slices.Contains(r.extra.tries, y):
		return false
	case r.extra.unconfirmed:
		t.abandonUnconfirmed(r, y, Event{Kind: EventReleased})
		return true
	}
	once := r.more().once
	t.endGrant(r, Event{Kind: EventReleased})
	if once != (OnceID{}) {
		// No caller got the grant: the next try may have one.
		m, _ := t.records.get(once)
		t.forget(once, m)
	}
	return true
}

// releaseUndelivered ends the detached grants that no caller got.
func (t *Table) releaseUndelivered(id SessionID, s *session, undelivered []uint64) {
	for _, sequence := range undelivered {
		i, ok := s.find(sequence)
		if !ok || s.window[i].token == 0 {
			continue
		}
		number, _ := t.tokens.get(s.window[i].token)
		if r, ok := t.requests.get(number); ok && r.session == (SessionID{}) && !t.isForeign(r.owner) {
			t.cancelTry(r, try{id, sequence})
		}
	}
}

// settleRecord notes that the grant under a once ID has ended. Of an unconfirmed one nobody
// knows: the next try runs as new.
func (t *Table) settleRecord(r *request) {
	id := r.more().once
	if id == (OnceID{}) {
		return
	}
	if r.extra.unconfirmed {
		t.deleteRecord(id)
		return
	}
	m, _ := t.records.get(id)
	m = t.changeRecord(id, m)
	m.token, m.forget = r.token, t.now.Add(t.limits.OnceNanos)
	t.forgets.put(forgetKey{m.forget, m.number}, id)
}

// forget drops the record of a request that has ended.
func (t *Table) forget(id OnceID, m *record) {
	t.forgets.delete(forgetKey{m.forget, m.number})
	t.deleteRecord(id)
}

func (t *Table) deleteRecord(id OnceID) {
	m, _ := t.records.get(id)
	t.records.delete(id)
	m.owner.use.Once--
	t.charge(m.owner, -costRecord)
	t.leaveOwner(m.owner)
}

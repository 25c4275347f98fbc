package fsm

import "slices"

// held returns the grant of a command that shows a token, or nil. A session's grant
// is for its session alone: its client must not hear from others that it is gone.
// A detached grant may be out of the caller's reach: then bad is [NotOwner].
func (t *Table) held(id RequestID, name string, token uint64) (r *request, bad Code) {
	number, ok := t.tokens.get(token)
	if !ok {
		return nil, NotHeld
	}
	r, _ = t.requests.get(number)
	if r.session != (SessionID{}) && r.session != id.Session {
		return nil, NotHeld
	}
	if name != "" && r.want(name) == nil {
		return nil, NotHeld
	}
	if t.isGuarded(r.owner) {
		return nil, NotOwner
	}
	return t.confirm(r), OK
}

// notHeld is the answer where held has found nothing for the caller.
func (t *Table) notHeld(bad Code) Result {
	if bad == NotOwner {
		return t.refuse(NotOwner, foreignGrant, 0)
	}
	return Result{Code: bad}
}

func (t *Table) release(c *Release) Result {
	r, bad := t.held(c.ID, c.Lock, c.Token)
	if r == nil {
		return t.notHeld(bad)
	}
	e := Event{Kind: EventReleased}
	if c.Lost {
		e.Kind = EventExpired
	}
	t.endGrant(r, e)
	t.promote()
	return Result{}
}

func (t *Table) renew(c *Renew) Result {
	if why, arg := t.checkTTL(c.TTL); why != noReason {
		return t.refuse(Invalid, why, arg)
	}
	r, bad := t.held(c.ID, c.Lock, c.Token)
	if r == nil {
		return t.notHeld(bad)
	}
	if until := t.now.Add(c.TTL); r.deadline != 0 && until > r.deadline {
		r = t.changeRequest(r)
		r.deadline = until
		t.deadlines.move(r.timer, until)
	}
	return Result{Deadline: r.deadline}
}

func (t *Table) setValue(c *SetValue) Result {
	if len(c.Value) > t.limits.ValueBytes {
		return t.refuse(Invalid, maxValue, int64(t.limits.ValueBytes))
	}
	r, bad := t.held(c.ID, c.Lock, c.Token)
	if r == nil {
		return t.notHeld(bad)
	}
	e := *r.more()
	if more := costBytes(len(c.Value)) - costBytes(len(e.value)); more > 0 {
		if res, ok := t.roomFor(r.owner.name, more+costExtra); !ok {
			return res
		}
		if res, ok := t.quotaForBytes(r.owner, more+costExtra); !ok {
			return res
		}
	}
	e.value = c.Value
	r = t.changeRequest(r)
	r.extra = e.orNil()
	t.rechargeRequest(r)
	return Result{}
}

// orNil returns nil for an extra that says nothing.
func (e *extra) orNil() *extra {
	if e.tries == nil && e.value == nil && e.labels == nil && e.delay == 0 {
		return nil
	}
	return e
}

func (t *Table) forceRelease(c *ForceRelease) Result {
	if why := t.checkReason(c.Reason, c.Who); why != noReason {
		return t.refuse(Invalid, why, int64(t.limits.ReasonBytes))
	}
	l, ok := t.locks.get(c.Lock)
	if !ok {
		return Result{Code: NotHeld}
	}
	var res Result
	for _, r := range t.holdersOf(c.Lock, l, c.Token) {
		if len(res.Holders) < MaxHoldersShown {
			res.Holders = append(res.Holders, t.holderOn(r.number, c.Lock))
		}
		t.endByOperator(r, c.Reason, c.Who)
	}
	if res.Holders == nil {
		return Result{Code: NotHeld}
	}
	t.promote()
	return res
}

// holdersOf returns the grants on a lock, or the one with a token.
func (t *Table) holdersOf(name string, l *lock, token uint64) (grants []*request) {
	if token != 0 {
		number, _ := t.tokens.get(token)
		if r, ok := t.requests.get(number); ok && r.want(name) != nil {
			return []*request{r}
		}
		return nil
	}
	for number := range l.holders.all() {
		r, _ := t.requests.get(number)
		grants = append(grants, r)
	}
	return grants
}

// revoke notes for the client that an operator ended a grant. The grant paid for that, but
// not for the operator's words.
func (t *Table) revoke(s *session, token uint64, reason, who string) uint64 {
	s.revoked++
	if !t.hasBytes(s.owner, "", costRevoked+costBytes(len(reason))+costBytes(len(who))) {
		reason, who = "", ""
	}
	keep := s.revocations[max(0, len(s.revocations)-MaxRevocations+1):]
	s.revocations = append(slices.Clip(keep), Revocation{Number: s.revoked, Token: token, Reason: reason, Who: who})
	s.told = s.costOfRevocations()
	t.recharge(s)
	return s.revoked
}

func (t *Table) checkReason(text, who string) reason {
	switch {
	case !fits(text, t.limits.ReasonBytes):
		return badReason
	case !fits(who, t.limits.ReasonBytes):
		return badWho
	}
	return noReason
}

func (t *Table) resize(c *Resize) Result {
	if c.Limit == 0 {
		return t.refuse(Invalid, noLimit, 0)
	}
	l, ok := t.locks.get(c.Lock)
	switch {
	case !ok || !l.heldOrQueued:
		return Result{Code: NotHeld}
	case l.limit == 0:
		return t.refuse(KindMismatch, noSemaphore, 0)
	}
	t.events = append(t.events, Event{Kind: EventResized, Wants: []Want{{Lock: c.Lock, Mode: Permits, Limit: c.Limit}}})
	l = t.changeLock(c.Lock, l)
	shrinks := c.Limit < l.limit
	l.limit = c.Limit
	if shrinks {
		for _, number := range t.waitersOver(l, c.Limit) {
			r, _ := t.requests.get(number)
			t.endWaitFor(r, Event{Code: KindMismatch, Result: t.refuseShrunk(r, c)})
		}
	}
	t.free(l)
	t.promote()
	return Result{}
}

// refuseShrunk is the answer to a request that waits for more permits than the new size.
func (t *Table) refuseShrunk(r *request, c *Resize) Result {
	i := slices.IndexFunc(r.wants, func(w Want) bool { return w.Lock == c.Lock })
	t.refused = refusal{why: shrunk, arg: int64(i + 1), own: int64(r.wants[i].Permits), free: int64(c.Limit)}
	res := Result{Code: KindMismatch}
	t.refused.explain(&res)
	return res
}

// waitersOver returns the requests that wait for more permits than limit.
func (t *Table) waitersOver(l *lock, limit uint32) (waiters []uint64) {
	if l.queue == nil {
		return nil
	}
	t.scanned(l.queue.others.len())
	for number, permits := range l.queue.others.all() {
		if permits > limit {
			waiters = append(waiters, number)
		}
	}
	return waiters
}

// endGrant takes a grant away; e says why. The locks' waiters are looked at by
// the next promote.
func (t *Table) endGrant(r *request, e Event) {
	e.Held = t.now.Sub(r.granted)
	t.describe(&e, r)
	t.events = append(t.events, e)
	unconfirmed := r.more().unconfirmed // nobody has done anything under it
	if delay := r.more().delay; e.Kind == EventExpired && delay > 0 && !unconfirmed {
		for i := range r.wants {
			t.delay(r.wants[i].Lock, t.now.Add(delay), r)
		}
	}
	t.unhold(r)
	if r.session != (SessionID{}) {
		t.changeSession(r.session, t.session(r.session)).grants.remove(r.number)
	}
	if unconfirmed {
		t.dropUnconfirmed(r)
	}
	t.settleRecord(r)
	t.dropRequest(r)
}

// delay keeps a lock free of new holders for a while.
func (t *Table) delay(name string, until Instant, r *request) {
	l, _ := t.locks.get(name)
	if until <= l.delayUntil {
		return
	}
	l = t.changeLock(name, l)
	t.endDelayOf(name, l)
	l.delayUntil, l.delayNumber = until, r.number
	l.timer = t.deadlines.add(until, r.number, &target{lock: name})
	t.ownDelay(name, l, r.owner)
}

// endWait ends a wait of all tries without a grant.
func (t *Table) endWait(r *request, code Code) { t.endWaitFor(r, Event{Code: code}) }

// endWaitFor is endWait for a reason.
func (t *Table) endWaitFor(r *request, e Event) {
	e.Kind, e.Waited, e.Others = EventWaitEnded, t.now.Sub(r.queued), r.triesFrom(1)
	t.describe(&e, r)
	t.events = append(t.events, e)
	res := e.Result
	res.Code = e.Code
	for i := range r.tries() {
		t.answerTry(r.try(i), r.number, res)
	}
	for i := range r.wants {
		name := r.wants[i].Lock
		l, _ := t.locks.get(name)
		l = t.changeLock(name, l)
		l.queue.leave(r, i)
		t.leaveLock(name, l)
		t.work++
	}
	t.countWaiter(r, -1)
	if once := r.more().once; once != (OnceID{}) {
		t.deleteRecord(once) // the next try runs as new
	}
	t.dropRequest(r)
}

// dropRequest forgets a request that has left its locks and sessions.
func (t *Table) dropRequest(r *request) {
	t.deadlines.remove(r.timer)
	t.requests.delete(r.number)
	t.charge(r.owner, -r.cost)
	t.leaveOwner(r.owner)
}

// ownDelay counts the delay of a lock as its owner's.
func (t *Table) ownDelay(name string, l *lock, o *owner) {
	l.delayOwner = o
	o.use.Delays++
	t.charge(o, costOfDelay(name))
}

// endDelayOf takes the delay of a lock away, if there is one.
func (t *Table) endDelayOf(name string, l *lock) {
	o := l.delayOwner
	if o == nil {
		return
	}
	t.deadlines.remove(l.timer)
	l.delayUntil, l.delayNumber, l.timer, l.delayOwner = 0, 0, 0, nil
	o.use.Delays--
	t.charge(o, -costOfDelay(name))
	t.leaveOwner(o)
}

package fsm

// runAcquire decodes and runs an acquire.
func (t *Table) runAcquire(d *decoder) Result {
	var c Acquire
	c.decode(d)
	ran := false
	res := t.once(d, &c.ID, KindAcquire, func() Result {
		ran = true
		return t.acquire(&c)
	})
	if !ran {
		t.bringUpToDate(&c, &res)
	}
	return res
}

func (t *Table) acquire(c *Acquire) Result {
	if res, bad := t.checkAcquire(c); bad {
		return res
	}
	if res, ok := t.checkAcquirer(c); !ok {
		return res
	}
	if m, ok := t.recordOf(c); ok {
		return t.tryAgain(c, m)
	}
	free, res, bad := t.look(c)
	if bad {
		return res
	}
	if !free && c.Wait == 0 {
		return t.busy(c)
	}
	s := t.session(c.ID.Session)
	if (!free || !c.Detached) && t.isFull(s) {
		return t.refuse(OverLimit, fullSession, int64(t.limits.GrantsPerSession))
	}
	if res, ok := t.room(free, c); !ok {
		return res
	}
	if res, ok := t.quotaForRequest(free, c); !ok {
		return res
	}
	s = t.changeSession(c.ID.Session, s)
	r := t.newRequest(c)
	if !free {
		t.wait(r, c, s)
		return Result{Code: Queued, Queued: t.now}
	}
	t.hold(r)
	t.requests.put(r.number, r)
	if !c.Detached {
		s.grants.put(r.number, r.sequence)
	}
	t.emitGranted(r)
	return r.grantedResult()
}

func (t *Table) recordOf(c *Acquire) (*record, bool) {
	if c.ID.Once == (OnceID{}) {
		return nil, false
	}
	return t.records.get(c.ID.Once)
}

// bringUpToDate makes the remembered answer to a copy of an acquire say what is true
// now.
func (t *Table) bringUpToDate(c *Acquire, res *Result) {
	switch {
	case res.Code == Busy:
		*res = t.busy(c)
	case res.Code == OK && c.Detached:
		number, held := t.tokens.get(res.Token)
		if !held {
			*res = t.hasEndedWith(res.Token)
			return
		}
		r, _ := t.requests.get(number)
		res.Deadline = r.deadline
	}
}

func (t *Table) newRequest(c *Acquire) *request {
	r := &request{
		gen: t.requests.gen, number: t.nextNumber(), wants: c.Wants, ttl: c.TTL, queued: t.now, owner: t.owner(t.ownerOf(c)),
	}
	e := extra{value: c.Value, labels: c.Labels, delay: c.Delay}
	if !c.Detached {
		r.session, r.sequence = c.ID.Session, c.ID.Sequence
		r.extra = e.orNil()
		t.rechargeRequest(r)
		return r
	}
	e.holder, e.once = c.Holder, c.ID.Once
	e.tries = []try{{c.ID.Session, c.ID.Sequence}}
	r.extra = &e
	t.rechargeRequest(r)
	if e.once != (OnceID{}) {
		t.records.put(e.once, &record{gen: t.records.gen, owner: r.owner, number: r.number, asked: askedFor(c)})
		r.owner.use.Once++
		t.charge(r.owner, costRecord)
	}
	return r
}

// isFull says that a session may have no more grants and waits.
func (t *Table) isFull(s *session) bool {
	return s.grants.len()+s.unconfirmed.total+s.waits.total >= t.limits.GrantsPerSession
}

// wait queues a new request.
func (t *Table) wait(r *request, c *Acquire, s *session) {
	if c.Wait > 0 {
		r.deadline = t.now.Add(c.Wait)
		r.timer = t.deadlines.add(r.deadline, r.number, nil)
	}
	t.enqueue(r)
	t.requests.put(r.number, r)
	s.waits.add(r.number)
	t.queuedAs = r.number
	t.emitAbout(EventQueued, r)
}

// look says whether a request can be granted at once, and refuses one that
// takes a lock for what it is not. It leaves the locks in t.looked.
func (t *Table) look(c *Acquire) (free bool, res Result, bad bool) {
	free = true
	t.looked = t.looked[:0]
	for i := range c.Wants {
		w := &c.Wants[i]
		l, ok := t.locks.get(w.Lock)
		t.looked = append(t.looked, l)
		if !ok {
			continue
		}
		if l.heldOrQueued && l.limit != w.Limit {
			if l.limit != 0 && w.Limit != 0 {
				return false, t.refuse(KindMismatch, otherSize, int64(l.limit)), true
			}
			return false, t.refuse(KindMismatch, otherKind, int64(i+1)), true
		}
		free = free && l.roomForNew(w)
	}
	return free, Result{}, false
}

// busy names who holds the locks of a request.
func (t *Table) busy(c *Acquire) Result {
	res := Result{Code: Busy}
	for i := range c.Wants {
		l, ok := t.locks.get(c.Wants[i].Lock)
		if !ok {
			continue
		}
		for number := range l.holders.all() {
			if len(res.Holders) == MaxHoldersShown {
				return res
			}
			res.Holders = append(res.Holders, t.holderOn(number, c.Wants[i].Lock))
		}
	}
	return res
}

// room keeps a new request within the limits, and within its owner's share of each.
func (t *Table) room(free bool, c *Acquire) (Result, bool) {
	var use Use
	o, known := t.owners.get(t.ownerOf(c))
	if known {
		use = o.use
	}
	if res, ok := t.hasRoom(fullGrants, t.limits.Grants, t.grants+t.waiters, use.Grants+use.Waiters); !ok {
		return res, false
	}
	if c.ID.Once != (OnceID{}) {
		if res, ok := t.hasRoom(fullOnces, t.limits.OnceRemembered, t.records.len, use.Once); !ok {
			return res, false
		}
	}
	if res, ok := t.roomFor(t.ownerOf(c), c.costOf()); !ok {
		return res, false
	}
	if t.lastToken >= maxToken {
		return t.refuse(OverLimit, outOfTokens, 0), false
	}
	if free {
		return Result{}, true
	}
	if res, ok := t.hasRoom(fullWaiters, t.limits.Waiters, t.waiters, use.Waiters); !ok {
		return res, false
	}
	for _, l := range t.looked {
		if l == nil {
			continue
		}
		if res, ok := t.hasRoom(fullQueue, t.limits.WaitersPerLock, l.queue.len(), l.queue.inQueue(o)); !ok {
			return res, false
		}
	}
	return Result{}, true
}

// checkAcquire refuses arguments that are out of range.
func (t *Table) checkAcquire(c *Acquire) (Result, bool) {
	if c.ID.Session == (SessionID{}) {
		return t.refuse(Invalid, needsSession, 0), true
	}
	if c.ID.Once != (OnceID{}) && !c.Detached {
		return t.refuse(Invalid, badID, 0), true
	}
	if len(c.Wants) == 0 || len(c.Wants) > t.limits.LocksPerRequest {
		return t.refuse(Invalid, lockCount, int64(t.limits.LocksPerRequest)), true
	}
	for i := range c.Wants {
		if why, arg := t.checkWant(c.Wants, i); why != noReason {
			return t.refuse(Invalid, why, arg), true
		}
	}
	if why, arg := t.checkTimes(c); why != noReason {
		return t.refuse(Invalid, why, arg), true
	}
	if !fits(c.Holder, t.limits.HolderBytes) {
		return t.refuse(Invalid, badHolder, int64(t.limits.HolderBytes)), true
	}
	if !fits(c.Owner, maxOwnerBytes) {
		return t.refuse(Invalid, badOwner, maxOwnerBytes), true
	}
	if len(c.Value) > t.limits.ValueBytes {
		return t.refuse(Invalid, maxValue, int64(t.limits.ValueBytes)), true
	}
	if why, arg := t.checkLabels(c.Labels); why != noReason {
		return t.refuse(Invalid, why, arg), true
	}
	return Result{}, false
}

func (t *Table) checkWant(wants []Want, i int) (reason, int64) {
	w := &wants[i]
	if w.Lock == "" || !fits(w.Lock, t.limits.NameBytes) {
		return badName, int64(t.limits.NameBytes)
	}
	switch w.Mode {
	case Exclusive, Shared:
		if w.Permits != 0 || w.Limit != 0 {
			return permitsForeign, 0
		}
	case Permits:
		if w.Permits == 0 || w.Permits > w.Limit {
			return badPermits, 0
		}
	default:
		return badMode, 0
	}
	for k := range wants[:i] {
		if wants[k].Lock == w.Lock {
			return lockTwice, int64(i + 1)
		}
	}
	return noReason, 0
}

func (t *Table) checkTimes(c *Acquire) (reason, int64) {
	if c.Detached || c.TTL != 0 {
		if why, arg := t.checkTTL(c.TTL); why != noReason {
			return why, arg
		}
	}
	switch {
	case !c.Detached && c.Wait < -1:
		return badWait, 0
	case c.Detached && (c.Wait < 0 || c.Wait > t.limits.MaxWait):
		return maxWait, t.limits.MaxWait
	case c.Delay < 0 || c.Delay > t.limits.MaxDelay:
		return maxDelay, t.limits.MaxDelay
	}
	return noReason, 0
}

func (t *Table) checkTTL(ttl int64) (reason, int64) {
	switch {
	case ttl < t.limits.MinTTL:
		return minTTL, t.limits.MinTTL
	case ttl > t.limits.MaxTTL:
		return maxTTL, t.limits.MaxTTL
	}
	return noReason, 0
}

func (t *Table) checkLabels(labels []Label) (reason, int64) {
	if len(labels) > t.limits.Labels {
		return labelCount, int64(t.limits.Labels)
	}
	for _, l := range labels {
		if len(l.Key)+len(l.Value) > t.limits.LabelBytes || !Plain(l.Key) || !Plain(l.Value) {
			return badLabel, int64(t.limits.LabelBytes)
		}
	}
	return noReason, 0
}

// cancel ends the wait of an acquire, or its grant.
func (t *Table) cancel(c *Cancel) Result {
	switch inSession := c.ID.Session != (SessionID{}); {
	case c.Target.Session == (SessionID{}), c.Target.Sequence == 0,
		inSession && c.ID.Session != c.Target.Session, inSession && c.ID.Sequence == c.Target.Sequence:
		return t.refuse(Invalid, badTarget, 0)
	}
	s := t.session(c.Target.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if t.isGuarded(s.owner) {
		return t.refuse(NotOwner, foreignSession, 0)
	}
	target := try{c.Target.Session, c.Target.Sequence}
	if r := t.requestOf(s, target.sequence); r != nil {
		if t.isGuarded(r.owner) {
			return t.refuse(NotOwner, foreignGrant, 0)
		}
		if !t.cancelTry(r, target) {
			return Result{Code: NotHeld}
		}
		t.promote()
		return Result{}
	}
	if _, seen := s.find(target.sequence); seen || s.acked.has(target.sequence) {
		return Result{Code: NotHeld}
	}
	// The acquire may still be on its way: it must not be granted after this. What it
	// will ask for is not known.
	t.keep(target.session, answer{sequence: target.sequence, kind: KindAcquire, code: Cancelled})
	return Result{}
}

// requestOf returns the waiting or holding request with a sequence, or nil.
func (t *Table) requestOf(s *session, sequence uint64) *request {
	if i, ok := s.find(sequence); ok {
		a := &s.window[i]
		number := a.request
		if a.token != 0 {
			number, _ = t.tokens.get(a.token)
		}
		r, _ := t.requests.get(number)
		return r
	}
	if !s.acked.has(sequence) {
		return nil
	}
	// Acknowledged and yet to be cancelled: unusual, but it has one meaning.
	t.scanned(s.grants.len())
	for number, q := range s.grants.all() {
		if q == sequence {
			r, _ := t.requests.get(number)
			return r
		}
	}
	return nil
}

// holderOn describes a grant on one of its locks.
func (t *Table) holderOn(number uint64, name string) Holder {
	r, _ := t.requests.get(number)
	w := r.want(name)
	e := r.more()
	h := Holder{
		Lock: name, Token: r.token, Holder: e.holder, Session: r.session, Mode: w.Mode, Permits: w.Permits,
		Deadline: r.deadline, Since: r.since, Value: e.value, Labels: e.labels,
	}
	if s, ok := t.sessions.get(r.session); ok { // not t.session: views run beside each other
		h.Holder = s.holder
		if h.Deadline == 0 || s.deadline < h.Deadline {
			h.Deadline = s.deadline
		}
	}
	return h
}

// want returns what the request wants of a lock, or nil.
func (r *request) want(name string) *Want {
	for i := range r.wants {
		if r.wants[i].Lock == name {
			return &r.wants[i]
		}
	}
	return nil
}

// cost is about how many bytes it takes to remember a holder.
func (h *Holder) cost() int {
	return int(320 + costBytes(len(h.Lock)) + costBytes(len(h.Holder)) + costBytes(len(h.Value)) + costLabels(h.Labels))
}

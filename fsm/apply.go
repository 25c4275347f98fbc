package fsm

// maxStep is more than cluster time advances between two entries: leaders let it advance by
// a second at most. An entry that says more is damaged or forged. It would end everything
// that has a deadline, and could bring cluster time to where nothing can have one.
const maxStep = 400 * nanosPerDay

// Apply runs one entry of the log: first everything that is due at its stamp
// ends, then its commands run in order.
//
// data is not kept. Bytes that are no entry, and an entry that was stamped in
// another term than it is stored under, are refused as a whole: cluster time
// and all records stay as they were. A command that cannot be decoded gets the
// result [Malformed] or [UnknownCommand] and does not disturb the others.
//
// NextDue is not set; the caller asks [Table.NextDeadline].
func (t *Table) Apply(index, term uint64, data []byte) Applied {
	a := Applied{Index: index, Term: term}
	d := decoder{buf: data}
	h := d.header()
	count := h.commands
	switch {
	case d.bad || !framed(d, count):
		a.Refused = Malformed
	case h.term != term:
		a.Refused = StaleStamp
	case h.stamp > t.now.Add(maxStep):
		a.Refused = Malformed
	default:
		t.wall, t.applying = h.wall, index
		t.now = max(t.now, h.stamp)
		t.work = 0
		t.events = make([]Event, 0, min(count, 1024))
		a.MoreDue = t.endDue()
		a.Results = make([]Result, count)
		for i := range a.Results {
			a.Results[i] = t.run(d.frame())
		}
		a.Events, t.events = t.events, nil
	}
	a.Now = t.now
	t.index = index
	t.digest = chain(t.digest, data, &a)
	a.Digest = t.digest
	return a
}

// endDue ends what is due, in (deadline, number) order, and then hands on what
// became free. It says whether more is due than one entry ends.
func (t *Table) endDue() (more bool) {
	t.ends = 0
	for n := 0; ; n++ {
		if at, ok := t.NextDeadline(); !ok || at > t.now {
			break
		}
		if n >= t.limits.ExpiriesPerEntry || t.ends >= endsPerEntry {
			more = true
			break
		}
		t.endNext()
	}
	t.promote()
	t.forgetDue()
	return more
}

// endNext ends what is next due.
func (t *Table) endNext() {
	top := t.deadlines.heap[0]
	switch what := t.deadlines.what[top.slot]; {
	case what == nil:
		r, _ := t.requests.get(top.number)
		if r.token != 0 {
			t.endGrant(r, Event{Kind: EventExpired})
		} else {
			t.endWait(r, TimedOut)
		}
	case what.accessor != "":
		a, _ := t.accessTokens.get(what.accessor)
		t.endAccessToken(a)
	case what.session != SessionID{}:
		s := t.session(what.session)
		t.ends += s.grants.len() + s.unconfirmed.total + s.waits.total
		t.endSession(what.session, s, TimedOut, Event{Kind: EventExpired})
	default:
		t.endDelay(what.lock)
	}
}

func (t *Table) endDelay(name string) {
	l, _ := t.locks.get(name)
	l = t.changeLock(name, l)
	t.endDelayOf(name, l)
	t.leaveLock(name, l)
}

// forgetDue forgets what was remembered for long enough, in (time, number) order:
// as much as an entry ends, and beside that, because nobody waits for it. What is
// left is left to the next entry that comes.
func (t *Table) forgetDue() {
	for range t.limits.ExpiriesPerEntry {
		record, id, recorded := t.forgets.first()
		ended, _, ok := t.endings.first()
		switch {
		case recorded && record.at <= t.now && (!ok || compareForgets(record, ended) < 0):
			m, _ := t.records.get(id)
			t.forget(id, m)
		case ok && ended.at <= t.now:
			t.forgetEnded()
		default:
			return
		}
	}
}

// NextDeadline returns when something is next due, in cluster time; ok is
// false if nothing has a deadline. It may lie in the past: see Applied.MoreDue.
// Answers that are to be forgotten are not counted: they can wait for the next
// entry, and a cluster that holds nothing writes nothing.
func (t *Table) NextDeadline() (at Instant, ok bool) {
	if len(t.deadlines.heap) == 0 {
		return 0, false
	}
	return t.deadlines.heap[0].at, true
}

// HasDeadlines says that something ends by time.
func (t *Table) HasDeadlines() bool { return len(t.deadlines.heap) > 0 }

// run decodes and runs one command.
func (t *Table) run(frame []byte) Result {
	d := decoder{buf: frame}
	kind := Kind(d.byte())
	if kind.level() > t.level {
		return d.unknownCommand() // as those answer who do not know it
	}
	switch kind {
	case KindAcquire:
		return t.runAcquire(&d)
	case KindRelease:
		var c Release
		c.decode(&d)
		return t.once(&d, &c.ID, kind, func() Result { return t.release(&c) })
	case KindRenew:
		var c Renew
		c.decode(&d)
		return t.once(&d, &c.ID, kind, func() Result { return t.renew(&c) })
	case KindKeepAlive:
		var c KeepAlive
		c.decode(&d)
		return t.whole(&d, func() Result { return t.keepAlive(&c) })
	case KindOpenSession:
		var c OpenSession
		c.decode(&d)
		return t.whole(&d, func() Result { return t.openSession(&c) })
	case KindEndSession:
		var c EndSession
		c.decode(&d)
		return t.whole(&d, func() Result { return t.endSessionByClient(&c) })
	case KindAs:
		return t.runAs(&d)
	default:
		return t.runRare(&d, kind)
	}
}

func (t *Table) runRare(d *decoder, kind Kind) Result {
	switch kind {
	case KindCancel:
		var c Cancel
		c.decode(d)
		return t.once(d, &c.ID, kind, func() Result { return t.cancel(&c) })
	case KindSetValue:
		var c SetValue
		c.decode(d)
		return t.once(d, &c.ID, kind, func() Result { return t.setValue(&c) })
	case KindForceRelease:
		var c ForceRelease
		c.decode(d)
		return t.once(d, &c.ID, kind, func() Result { return t.forceRelease(&c) })
	case KindResize:
		var c Resize
		c.decode(d)
		return t.once(d, &c.ID, kind, func() Result { return t.resize(&c) })
	case KindKillSession:
		var c KillSession
		c.decode(d)
		return t.whole(d, func() Result { return t.killSession(&c) })
	case KindConfigure:
		var c Configure
		c.decode(d)
		return t.whole(d, func() Result { return t.configure(&c) })
	case KindFound:
		var c Found
		c.decode(d)
		return t.whole(d, func() Result { return t.found(&c) })
	case KindClear:
		var c Clear
		c.decode(d)
		return t.whole(d, func() Result { return t.clear(&c) })
	case KindRaiseLevel:
		var c RaiseLevel
		c.decode(d)
		return t.whole(d, func() Result { return t.raiseLevel(&c) })
	}
	return t.runRights(d, kind)
}

func (t *Table) runRights(d *decoder, kind Kind) Result {
	switch kind {
	case KindPutAccessToken:
		var c PutAccessToken
		c.decode(d)
		return t.whole(d, func() Result { return t.putAccessToken(&c) })
	case KindRevokeAccessToken:
		var c RevokeAccessToken
		c.decode(d)
		return t.whole(d, func() Result { return t.revokeAccessToken(&c) })
	case KindChangePolicies:
		var c ChangePolicies
		c.decode(d)
		return t.whole(d, func() Result { return t.changePolicies(&c) })
	case KindConfigureRights:
		var c configureRights
		c.decode(d)
		return t.whole(d, func() Result { return t.configure(&c.Configure) })
	}
	return d.unknownCommand()
}

func (d *decoder) unknownCommand() Result {
	if d.bad {
		return Result{Code: Malformed}
	}
	return Result{Code: UnknownCommand}
}

// whole runs a command that was decoded to its last byte.
func (t *Table) whole(d *decoder, do func() Result) Result {
	if !d.done() {
		return Result{Code: Malformed}
	}
	return do()
}

// once runs a command with a request ID at most once.
func (t *Table) once(d *decoder, id *RequestID, kind Kind, do func() Result) Result {
	if !d.done() {
		return Result{Code: Malformed}
	}
	if id.Session == (SessionID{}) && id.Once == (OnceID{}) {
		return do()
	}
	if t.usesForeignSession(id.Session) {
		return t.refuse(NotOwner, foreignSession, 0)
	}
	hash := hashOf(id, d.body)
	if res, done := t.recall(id, kind, hash); done {
		return res
	}
	res := do()
	t.remember(id, kind, hash, &res)
	return res
}

func (t *Table) configure(c *Configure) Result {
	limits, wrong := c.Limits.effective()
	if wrong >= 0 {
		return t.refuse(Invalid, badLimits, int64(wrong))
	}
	t.limits = limits
	return Result{}
}

func (t *Table) found(c *Found) Result {
	if t.cluster == ([16]byte{}) {
		t.cluster, t.key = c.Cluster, c.Key
	}
	return Result{}
}

// describe says what an event on a request is about.
func (t *Table) describe(e *Event, r *request) {
	e.Request, e.Session, e.Token, e.Wants = r.tryID(0), r.session, r.token, r.wants
	e.Owner = r.owner.name
	if r.session == (SessionID{}) {
		e.Holder = r.more().holder
	} else if s := t.session(r.session); s != nil {
		e.Holder = s.holder
	}
}

func (t *Table) emitAbout(kind EventKind, r *request) {
	e := Event{Kind: kind}
	t.describe(&e, r)
	t.events = append(t.events, e)
}

// emitGranted is for a request that has not waited.
func (t *Table) emitGranted(r *request) {
	e := Event{Kind: EventGranted, Result: r.grantedResult()}
	t.describe(&e, r)
	t.events = append(t.events, e)
}

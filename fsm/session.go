package fsm

import "slices"

func (t *Table) openSession(c *OpenSession) Result {
	if c.Session == (SessionID{}) {
		return t.refuse(Invalid, noSessionID, 0)
	}
	if t.as.set {
		if res, ok := t.checkMaker(c.Owner); !ok {
			return res
		}
	}
	if s := t.session(c.Session); s != nil {
		if t.isForeign(s.owner) {
			return t.refuse(NotOwner, foreignSession, 0)
		}
		s = t.extend(c.Session, s)
		t.promote()
		return Result{Deadline: s.deadline}
	}
	if t.hasEnded(c.Session) {
		return Result{Code: NoSession}
	}
	if why, arg := t.checkTTL(c.TTL); why != noReason {
		return t.refuse(Invalid, why, arg)
	}
	if !fits(c.Holder, t.limits.HolderBytes) {
		return t.refuse(Invalid, badHolder, int64(t.limits.HolderBytes))
	}
	if why, arg := t.checkLabels(c.Labels); why != noReason {
		return t.refuse(Invalid, why, arg)
	}
	if !fits(c.Owner, maxOwnerBytes) {
		return t.refuse(Invalid, badOwner, maxOwnerBytes)
	}
	if res, ok := t.roomForSession(c, t.usedBy(c.Owner)); !ok {
		return res
	}
	if res, ok := t.quotaForSession(c); !ok {
		return res
	}
	s := &session{
		gen: t.sessions.gen, number: t.nextNumber(), ttl: c.TTL, deadline: t.now.Add(c.TTL),
		owner: t.owner(c.Owner), holder: c.Holder, labels: c.Labels,
	}
	s.owner.use.Sessions++
	t.recharge(s)
	s.timer = t.deadlines.add(s.deadline, s.number, &target{session: c.Session})
	t.sessions.put(c.Session, s)
	t.events = append(t.events, Event{Kind: EventSessionOpened, Session: c.Session, Holder: s.holder})
	return Result{Deadline: s.deadline}
}

// roomForSession keeps a new session within the limits. It takes its place among those
// that have ended, too: there is then one when it ends.
func (t *Table) roomForSession(c *OpenSession, use Use) (Result, bool) {
	if res, ok := t.hasRoom(fullSessions, t.limits.Sessions, t.sessions.len, use.Sessions); !ok {
		return res, false
	}
	if res, ok := t.hasRoom(fullEnded, t.limits.EndedRemembered, t.sessions.len+t.ended.len, use.Sessions+use.Ended); !ok {
		return res, false
	}
	return t.roomFor(c.Owner, c.costOf())
}

// extend moves a session's deadline to now + TTL.
func (t *Table) extend(id SessionID, s *session) *session {
	until := t.now.Add(s.ttl)
	if until <= s.deadline {
		return s
	}
	s = t.changeSession(id, s)
	if s.deadline <= t.now {
		// It was due, in a mass expiry that was cut.
		for number := range s.waits.of.all() {
			r, _ := t.requests.get(number)
			t.revive(r)
		}
	}
	s.deadline = until
	t.deadlines.move(s.timer, until)
	return s
}

func (t *Table) keepAlive(c *KeepAlive) Result {
	res := Result{Alive: make([]Alive, len(c.Sessions))}
	for i, k := range c.Sessions {
		s := t.session(k.Session)
		if s == nil {
			continue
		}
		s = t.extend(k.Session, s)
		if len(s.revocations) > 0 && s.revocations[0].Number <= k.RevocationsSeen {
			seen := 0
			for seen < len(s.revocations) && s.revocations[seen].Number <= k.RevocationsSeen {
				seen++
			}
			s = t.changeSession(k.Session, s)
			s.revocations = slices.Clone(s.revocations[seen:])
			s.told = s.costOfRevocations()
			t.recharge(s)
		}
		if len(s.revocations) == 0 {
			res.Alive[i] = Alive{Deadline: s.deadline}
			continue
		}
		res.Alive[i] = Alive{Deadline: s.deadline, Revocations: slices.Clip(s.revocations)}
	}
	t.promote()
	return res
}

func (t *Table) endSessionByClient(c *EndSession) Result {
	s := t.session(c.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if t.isForeign(s.owner) {
		return t.refuse(NotOwner, foreignSession, 0)
	}
	t.releaseUndelivered(c.Session, s, c.Undelivered)
	t.endSession(c.Session, s, OK, Event{Kind: EventReleased})
	t.promote()
	return Result{}
}

func (t *Table) killSession(c *KillSession) Result {
	if why := t.checkReason(c.Reason, c.Who); why != noReason {
		return t.refuse(Invalid, why, int64(t.limits.ReasonBytes))
	}
	s := t.session(c.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	t.endSession(c.Session, s, NotHeld, Event{Kind: EventRevoked, Reason: c.Reason, Who: c.Who})
	t.promote()
	return Result{}
}

// endSession ends a session with all its grants, to which e happens, and all
// its waits, and remembers that it has ended. The locks' waiters are looked at by
// the next promote.
func (t *Table) endSession(id SessionID, s *session, code Code, e Event) {
	t.events = append(t.events, Event{
		Kind: EventSessionEnded, Code: code, Session: id, Holder: s.holder, Reason: e.Reason, Who: e.Who,
	})
	s = t.changeSession(id, s)
	grants, waits, unconfirmed := s.grants, s.waits, s.unconfirmed
	s.grants, s.waits, s.unconfirmed, s.window = numbers[uint64]{}, tally{}, tally{}, nil
	for _, number := range inOrder(&grants, &unconfirmed) {
		if r, held := t.requests.get(number); held && r.session == id {
			t.endGrant(r, e)
		} else {
			t.abandonAllUnconfirmed(number, id, e)
		}
	}
	for number := range waits.of.all() {
		t.leaveAll(number, id)
	}
	t.deadlines.remove(s.timer)
	t.sessions.delete(id)
	t.recent = nil
	t.charge(s.owner, -s.cost)
	s.owner.use.Sessions--
	t.rememberEnded(id, s.owner)
}

// inOrder returns the numbers of a session's grants and of those that are unconfirmed.
func inOrder(grants *numbers[uint64], unconfirmed *tally) []uint64 {
	all := make([]uint64, 0, grants.len()+unconfirmed.of.len())
	for number := range grants.all() {
		all = append(all, number)
	}
	for number := range unconfirmed.of.all() {
		all = append(all, number)
	}
	slices.Sort(all)
	return all
}

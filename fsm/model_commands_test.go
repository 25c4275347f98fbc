package fsm

import (
	"bytes"
	"slices"
	"sort"
	"strings"
)

// What each command does in the model.

func invalid(field string) Result { return Result{Code: Invalid, Field: field} }

func (m *model) openSession(c OpenSession) Result {
	if c.Session == (SessionID{}) {
		return invalid("session")
	}
	if !m.mayMake(c.Owner) {
		return Result{Code: NotOwner}
	}
	if s := m.session(c.Session); s != nil {
		if m.foreign(s.owner) {
			return Result{Code: NotOwner}
		}
		s.deadline = max(s.deadline, later(m.now, s.ttl))
		m.handOver() // it may have been due, after a cut, and passed over
		return Result{Deadline: s.deadline}
	}
	if m.hasEnded(c.Session) {
		return Result{Code: NoSession}
	}
	switch {
	case c.TTL < m.limits.MinTTL || c.TTL > m.limits.MaxTTL:
		return invalid("ttl")
	case len(c.Holder) > m.limits.HolderBytes || !modelPlain(c.Holder):
		return invalid("holder")
	case !m.labelsFit(c.Labels):
		return invalid("labels")
	case len(c.Owner) > 128 || !modelPlain(c.Owner):
		return invalid("owner")
	case !m.mayHave(c.Owner, m.limits.Sessions, m.sessionOwners()),
		!m.mayHave(c.Owner, m.limits.EndedRemembered, append(m.sessionOwners(), m.endedOwners()...)),
		m.over(c.Owner, m.sessionOwners(), func(q Quota) int { return q.Sessions }):
		return Result{Code: OverLimit}
	}
	m.arrivals++
	s := &modelSession{
		id: c.Session, number: m.arrivals, ttl: c.TTL, deadline: later(m.now, c.TTL),
		holder: c.Holder, owner: c.Owner, labels: c.Labels, acked: []Span{{}},
	}
	m.sessions = append(m.sessions, s)
	m.emit(Event{Kind: EventSessionOpened, Session: s.id, Holder: s.holder})
	return Result{Deadline: s.deadline}
}

func (m *model) labelsFit(labels []Label) bool {
	for _, l := range labels {
		if len(l.Key)+len(l.Value) > m.limits.LabelBytes || !modelPlain(l.Key) || !modelPlain(l.Value) {
			return false
		}
	}
	return len(labels) <= m.limits.Labels
}

func (m *model) keepAlive(c KeepAlive) Result {
	var result Result
	for _, k := range c.Sessions {
		s := m.session(k.Session)
		if s == nil {
			result.Alive = append(result.Alive, Alive{})
			continue
		}
		s.deadline = max(s.deadline, later(m.now, s.ttl))
		s.revocations = slices.DeleteFunc(s.revocations, func(r Revocation) bool { return r.Number <= k.RevocationsSeen })
		result.Alive = append(result.Alive, Alive{Deadline: s.deadline, Revocations: slices.Clone(s.revocations)})
	}
	m.handOver()
	return result
}

func (m *model) endSessionByClient(c EndSession) Result {
	s := m.session(c.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if m.foreign(s.owner) {
		return Result{Code: NotOwner}
	}
	for _, sequence := range c.Undelivered {
		for _, a := range s.answers {
			if r := m.byToken(a.result.Token); a.sequence == sequence && r != nil && r.ask.Detached && !m.foreign(r.ask.Owner) {
				m.cancelTry(r, s.id, sequence)
			}
		}
	}
	m.endSession(s, OK, "", "")
	m.handOver()
	return Result{}
}

func (m *model) killSession(c KillSession) Result {
	if field := m.reasonFault(c.Reason, c.Who); field != "" {
		return invalid(field)
	}
	s := m.session(c.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	m.endSession(s, NotHeld, c.Reason, c.Who)
	m.handOver()
	return Result{}
}

func (m *model) reasonFault(reason, who string) string {
	if len(reason) > m.limits.ReasonBytes || !modelPlain(reason) {
		return "reason"
	}
	if len(who) > m.limits.ReasonBytes || !modelPlain(who) {
		return "who"
	}
	return ""
}

func (m *model) nameOK(name string) bool {
	return name != "" && len(name) <= m.limits.NameBytes && modelPlain(name)
}

func (m *model) acquireFault(c Acquire) string {
	if c.ID.Session == (SessionID{}) || c.ID.Once != (OnceID{}) && !c.Detached {
		return "id"
	}
	if len(c.Wants) == 0 || len(c.Wants) > m.limits.LocksPerRequest {
		return "locks"
	}
	for i, w := range c.Wants {
		if field := m.wantFault(w); field != "" {
			return field
		}
		for _, earlier := range c.Wants[:i] {
			if earlier.Lock == w.Lock {
				return "lock"
			}
		}
	}
	switch {
	case (c.Detached || c.TTL != 0) && (c.TTL < m.limits.MinTTL || c.TTL > m.limits.MaxTTL):
		return "ttl"
	case c.Wait < -1, c.Detached && (c.Wait < 0 || c.Wait > m.limits.MaxWait):
		return "wait"
	case len(c.Holder) > m.limits.HolderBytes || !modelPlain(c.Holder):
		return "holder"
	case len(c.Owner) > 128 || !modelPlain(c.Owner):
		return "owner"
	case len(c.Value) > m.limits.ValueBytes:
		return "value"
	case !m.labelsFit(c.Labels):
		return "labels"
	case c.Delay < 0 || c.Delay > m.limits.MaxDelay:
		return "delay"
	}
	return ""
}

func (m *model) wantFault(w Want) string {
	if !m.nameOK(w.Lock) {
		return "lock"
	}
	switch w.Mode {
	case Exclusive, Shared:
		if w.Permits != 0 || w.Limit != 0 {
			return "permits"
		}
	case Permits:
		if w.Permits == 0 || w.Permits > w.Limit {
			return "permits"
		}
	default:
		return "mode"
	}
	return ""
}

// mismatch says that a lock is in use as something else.
func (m *model) mismatch(w Want) bool {
	if len(m.on(w.Lock)) == 0 {
		return false
	}
	return m.lock(w.Lock).limit != w.Limit // 0: not a semaphore
}

func (m *model) acquire(c Acquire) Result {
	if field := m.acquireFault(c); field != "" {
		return invalid(field)
	}
	owner := c.Owner
	if !c.Detached && m.as != nil {
		owner = m.as.Caller
	}
	if !m.mayMake(owner) {
		return Result{Code: NotOwner}
	}
	if o := m.record(c.ID.Once); o != nil {
		if m.foreign(o.ask.Owner) {
			return Result{Code: NotOwner}
		}
		return m.tryAgain(c, o)
	}
	for _, w := range c.Wants {
		if m.mismatch(w) {
			return Result{Code: KindMismatch, Field: "lock"}
		}
	}
	r := &modelRequest{
		number: m.arrivals + 1, ask: c, queued: m.now, tries: []modelTry{{c.ID.Session, c.ID.Sequence, m.now}},
	}
	if c.Wait > 0 {
		r.waitUntil = later(m.now, c.Wait)
	}
	free := m.grantable(r)
	switch {
	case !free && c.Wait == 0:
		return m.busy(c)
	case (!free || !c.Detached) && m.owned(c.ID.Session) >= m.limits.GrantsPerSession,
		!m.mayHave(m.ownerOf(c), m.limits.Grants, m.requestOwners(m.requests)),
		c.ID.Once != OnceID{} && !m.mayHave(m.ownerOf(c), m.limits.OnceRemembered, m.recordOwners()),
		!free && !m.roomToWait(c),
		m.over(m.ownerOf(c), m.requestOwners(m.requests), func(q Quota) int { return q.Grants }),
		!free && m.over(m.ownerOf(c), m.requestOwners(m.waiting()), func(q Quota) int { return q.Waiters }):
		return Result{Code: OverLimit}
	}
	m.arrivals++
	m.requests = append(m.requests, r)
	if c.ID.Once != (OnceID{}) {
		m.records = append(m.records, &modelRecord{ask: c, request: r})
	}
	if free {
		m.grant(r)
		return r.grantedResult()
	}
	for _, w := range c.Wants {
		m.use(w)
	}
	m.emit(m.about(r, EventQueued))
	return Result{Code: Queued, Queued: m.now}
}

func (m *model) roomToWait(c Acquire) bool {
	for _, w := range c.Wants {
		if !m.mayHave(m.ownerOf(c), m.limits.WaitersPerLock, m.requestOwners(m.waiters(w.Lock))) {
			return false
		}
	}
	return m.mayHave(m.ownerOf(c), m.limits.Waiters, m.requestOwners(m.waiting()))
}

// mayHave says that an owner may have one more: what all have is a list of their owners,
// and the owner has less of it than is free.
func (m *model) mayHave(owner string, limit int, all []string) bool {
	own := 0
	for _, other := range all {
		if other == owner {
			own++
		}
	}
	return own < limit-len(all)
}

// ownerOf is the owner of a session, for what is its own; a detached acquire has another.
func (m *model) ownerOf(c Acquire) string {
	if c.Detached {
		return c.Owner
	}
	return m.session(c.ID.Session).owner
}

func (m *model) sessionOwners() (owners []string) {
	for _, s := range m.sessions {
		owners = append(owners, s.owner)
	}
	return owners
}

func (m *model) endedOwners() (owners []string) {
	for _, e := range m.ended {
		owners = append(owners, e.owner)
	}
	return owners
}

func (m *model) requestOwners(requests []*modelRequest) (owners []string) {
	for _, r := range requests {
		owners = append(owners, m.ownerOf(r.ask))
	}
	return owners
}

// recordOwners are those of the acquires that made the records: once IDs are for detached
// ones only.
func (m *model) recordOwners() (owners []string) {
	for _, o := range m.records {
		owners = append(owners, o.ask.Owner)
	}
	return owners
}

// owned counts the grants of a session and the tries that wait in it.
func (m *model) owned(id SessionID) int {
	owned := 0
	for _, r := range m.requests {
		if r.token != 0 && r.ask.Detached && !r.unconfirmed {
			continue
		}
		for _, y := range r.tries {
			if y.session == id {
				owned++
			}
		}
	}
	return owned
}

func (m *model) record(id OnceID) *modelRecord {
	for _, o := range m.records {
		if o.ask.ID.Once == id {
			return o
		}
	}
	return nil
}

// tryAgain answers a try of a once ID that is remembered.
func (m *model) tryAgain(c Acquire, o *modelRecord) Result {
	was, r := o.ask, o.request
	inOrder := func(wants []Want) []Want {
		return slices.SortedFunc(slices.Values(wants), func(a, b Want) int { return strings.Compare(a.Lock, b.Lock) })
	}
	switch {
	case !slices.Equal(inOrder(c.Wants), inOrder(was.Wants)):
		return invalid("locks")
	case c.TTL != was.TTL:
		return invalid("ttl")
	case c.Delay != was.Delay:
		return invalid("delay")
	case !bytes.Equal(c.Value, was.Value):
		return invalid("value")
	case r.over:
		return Result{Code: NotHeld, Token: r.token}
	case r.token != 0:
		m.confirm(r)
		r.shared = true
		return Result{Token: r.token, Deadline: r.deadline, Queued: m.now, Granted: r.granted}
	case c.Wait == 0:
		return m.busy(c)
	case len(r.tries) == 16 || m.owned(c.ID.Session) >= m.limits.GrantsPerSession:
		return Result{Code: OverLimit}
	}
	r.tries = append(r.tries, modelTry{c.ID.Session, c.ID.Sequence, m.now})
	r.waitUntil = max(r.waitUntil, later(m.now, c.Wait))
	m.handOver() // it may have been due, after a cut, and passed over
	if r.token != 0 {
		m.confirm(r)
		return Result{Token: r.token, Deadline: r.deadline, Queued: m.now, Granted: r.granted}
	}
	return Result{Code: Queued, Queued: m.now}
}

// busy names who holds what was asked for.
func (m *model) busy(c Acquire) Result {
	result := Result{Code: Busy}
	for _, w := range c.Wants {
		for _, h := range m.holders(w.Lock) {
			if len(result.Holders) < MaxHoldersShown {
				result.Holders = append(result.Holders, m.holderOn(h, w.Lock))
			}
		}
	}
	return result
}

func (m *model) holderOn(r *modelRequest, lock string) Holder {
	w, _ := r.want(lock)
	h := Holder{
		Lock: lock, Token: r.token, Holder: m.holderName(r), Mode: w.Mode,
		Permits: w.Permits, Deadline: r.deadline, Since: r.since, Value: r.ask.Value, Labels: r.ask.Labels,
	}
	if s := m.owner(r); s != nil {
		h.Session = s.id
		if h.Deadline == 0 || s.deadline < h.Deadline {
			h.Deadline = s.deadline
		}
	}
	return h
}

func (m *model) cancel(c Cancel) Result {
	inSession := c.ID.Session != SessionID{}
	itself := inSession && c.ID.Sequence == c.Target.Sequence
	if c.Target.Session == (SessionID{}) || inSession && c.ID.Session != c.Target.Session || c.Target.Sequence == 0 || itself {
		return invalid("target")
	}
	s := m.session(c.Target.Session)
	if s == nil {
		return Result{Code: NoSession}
	}
	if m.guarded(s.owner) {
		return Result{Code: NotOwner}
	}
	for _, r := range m.requests {
		if r.hasTry(s.id, c.Target.Sequence) && (r.token == 0 || !r.ask.Detached || s.toldOf(c.Target.Sequence, r.token)) {
			if m.guarded(m.ownerOf(r.ask)) {
				return Result{Code: NotOwner}
			}
			if !m.cancelTry(r, s.id, c.Target.Sequence) {
				return Result{Code: NotHeld}
			}
			m.handOver()
			return Result{}
		}
	}
	if s.answer(c.Target.Sequence) != nil || s.hasAcked(c.Target.Sequence) {
		return Result{Code: NotHeld}
	}
	m.keep(s, modelAnswer{c.Target.Sequence, nil, Result{Code: Cancelled}})
	return Result{}
}

// toldOf says that a sequence is remembered to have got the token. A detached grant
// outlives the session of its acquire: another session may have the same ID since, and
// use the sequence for something else.
func (s *modelSession) toldOf(sequence, token uint64) bool {
	a := s.answer(sequence)
	return a != nil && a.result.Token == token
}

func (r *modelRequest) hasTry(session SessionID, sequence uint64) bool {
	return slices.ContainsFunc(r.tries, func(y modelTry) bool { return y.session == session && y.sequence == sequence })
}

// cancelTry ends what a try waits for or was granted, unless another try knows of
// the grant.
func (m *model) cancelTry(r *modelRequest, session SessionID, sequence uint64) bool {
	switch {
	case r.token == 0:
		m.leave(r, session, sequence, Cancelled)
		return true
	case r.shared || !r.hasTry(session, sequence):
		return false
	case r.unconfirmed:
		m.withdraw(r, session, sequence, EventReleased, Event{})
		return true
	}
	m.endGrant(r, EventReleased, Event{})
	if o := m.record(r.ask.ID.Once); o != nil {
		m.forgetRecord(o)
	}
	return true
}

// grantFor finds the grant of a command that shows a token.
func (m *model) grantFor(id RequestID, lock string, token uint64) (*modelRequest, Result) {
	r := m.byToken(token)
	if r == nil {
		return nil, Result{Code: NotHeld}
	}
	if !r.ask.Detached && r.ask.ID.Session != id.Session {
		return nil, Result{Code: NotHeld}
	}
	if _, ok := r.want(lock); lock != "" && !ok {
		return nil, Result{Code: NotHeld}
	}
	if m.guarded(m.ownerOf(r.ask)) {
		return nil, Result{Code: NotOwner}
	}
	m.confirm(r) // its token is known
	return r, Result{}
}

func (m *model) release(c Release) Result {
	r, bad := m.grantFor(c.ID, c.Lock, c.Token)
	if r == nil {
		return bad
	}
	if c.Lost {
		m.endGrant(r, EventExpired, Event{})
	} else {
		m.endGrant(r, EventReleased, Event{})
	}
	m.handOver()
	return Result{}
}

func (m *model) renew(c Renew) Result {
	if c.TTL < m.limits.MinTTL || c.TTL > m.limits.MaxTTL {
		return invalid("ttl")
	}
	r, bad := m.grantFor(c.ID, c.Lock, c.Token)
	if r == nil {
		return bad
	}
	if r.deadline != 0 {
		r.deadline = max(r.deadline, later(m.now, c.TTL))
	}
	return Result{Deadline: r.deadline}
}

func (m *model) setValue(c SetValue) Result {
	if len(c.Value) > m.limits.ValueBytes {
		return invalid("value")
	}
	r, bad := m.grantFor(c.ID, c.Lock, c.Token)
	if r == nil {
		return bad
	}
	r.ask.Value = c.Value
	return Result{}
}

func (m *model) forceRelease(c ForceRelease) Result {
	if field := m.reasonFault(c.Reason, c.Who); field != "" {
		return invalid(field)
	}
	var result Result
	for _, r := range m.holders(c.Lock) {
		if c.Token != 0 && c.Token != r.token {
			continue
		}
		if len(result.Holders) < MaxHoldersShown {
			result.Holders = append(result.Holders, m.holderOn(r, c.Lock))
		}
		m.revoke(r, c.Reason, c.Who)
	}
	if result.Holders == nil {
		return Result{Code: NotHeld}
	}
	m.handOver()
	return result
}

func (m *model) revoke(r *modelRequest, reason, who string) {
	e := Event{Reason: reason, Who: who}
	if s := m.owner(r); s != nil {
		s.revocationLast++
		e.Number = s.revocationLast
		s.revocations = append(s.revocations, Revocation{Number: e.Number, Token: r.token, Reason: reason, Who: who})
		s.revocations = s.revocations[max(0, len(s.revocations)-MaxRevocations):]
	}
	m.endGrant(r, EventRevoked, e)
}

// clear ends a line that is short enough for one entry.
func (m *model) clear(c Clear) Result {
	if field := m.reasonFault(c.Reason, c.Who); field != "" {
		return invalid(field)
	}
	if c.Owner != "" {
		return m.clearOwner(c)
	}
	if len(m.on(c.Lock)) == 0 {
		return Result{Code: NotHeld}
	}
	done := &Cleared{UpTo: c.UpTo}
	if c.UpTo == 0 {
		done.UpTo = m.arrivals
	}
	waiters := m.waiters(c.Lock)
	sort.SliceStable(waiters, func(i, k int) bool { // those who share first
		a, _ := waiters[i].want(c.Lock)
		b, _ := waiters[k].want(c.Lock)
		return a.Mode == Shared && b.Mode != Shared
	})
	for _, r := range waiters {
		if r.number <= done.UpTo {
			done.Waiters++
			m.endWaitFor(r, Revoked, c.Reason, c.Who)
		}
	}
	for _, r := range m.holders(c.Lock) {
		if r.number <= done.UpTo {
			done.Grants++
			m.revoke(r, c.Reason, c.Who)
		}
	}
	m.handOver()
	return Result{Cleared: done}
}

func (m *model) clearOwner(c Clear) Result {
	if c.Lock != "" {
		return invalid("owner")
	}
	done := &Cleared{UpTo: c.UpTo, After: c.After}
	if c.UpTo == 0 {
		done.UpTo = m.arrivals
	}
	for _, r := range slices.Clone(m.requests) {
		if r.number <= c.After || r.number > done.UpTo {
			continue
		}
		done.After = r.number
		switch {
		case !r.ask.Detached || r.ask.Owner != c.Owner:
		case r.token != 0:
			done.Grants++
			m.revoke(r, c.Reason, c.Who)
		default:
			done.Waiters++
			m.endWaitFor(r, Revoked, c.Reason, c.Who)
		}
	}
	m.handOver()
	return Result{Cleared: done}
}

func (m *model) resize(c Resize) Result {
	if c.Limit == 0 {
		return invalid("limit")
	}
	if len(m.on(c.Lock)) == 0 {
		return Result{Code: NotHeld}
	}
	l := m.lock(c.Lock)
	if l.limit == 0 {
		return Result{Code: KindMismatch, Field: "lock"}
	}
	l.limit = c.Limit
	m.emit(Event{Kind: EventResized, Wants: []Want{{Lock: c.Lock, Mode: Permits, Limit: c.Limit}}})
	for _, r := range m.waiters(c.Lock) {
		if w, _ := r.want(c.Lock); w.Permits > c.Limit {
			m.endWait(r, KindMismatch)
		}
	}
	m.handOver()
	return Result{}
}

func (m *model) configure(c Configure) Result {
	for _, v := range []int64{
		int64(c.Limits.NameBytes), int64(c.Limits.ValueBytes), int64(c.Limits.HolderBytes), int64(c.Limits.Labels),
		int64(c.Limits.LabelBytes), int64(c.Limits.LocksPerRequest), int64(c.Limits.WaitersPerLock), int64(c.Limits.Waiters),
		int64(c.Limits.GrantsPerSession), int64(c.Limits.RequestsWindow), int64(c.Limits.Sessions), int64(c.Limits.Grants),
		int64(c.Limits.OnceRemembered), int64(c.Limits.EndedRemembered), c.Limits.OnceNanos, c.Limits.MinTTL, c.Limits.MaxTTL, c.Limits.MaxWait,
		c.Limits.MaxDelay, int64(c.Limits.ReasonBytes), int64(c.Limits.ExpiriesPerEntry), c.Limits.TableBytes,
		int64(c.Limits.AccessTokens), int64(c.Limits.Policies), int64(c.Limits.PolicyBytes),
	} {
		if v < 0 {
			return invalid("limits")
		}
	}
	m.limits = modelLimits(c.Limits)
	return Result{}
}

func (m *model) found(c Found) Result {
	if m.cluster == [16]byte{} {
		m.cluster = c.Cluster
	}
	return Result{}
}

// The reads.

func (m *model) view(name string) LockView {
	v := LockView{Name: name, Waiters: len(m.waiters(name))}
	for _, r := range m.holders(name) {
		v.HolderCount++
		if len(v.Holders) < MaxHoldersShown {
			v.Holders = append(v.Holders, m.holderOn(r, name))
		}
	}
	if l := m.lock(name); l != nil {
		v.Limit, v.DelayUntil = l.limit, l.delayUntil
	}
	return v
}

func (m *model) list(prefix, after string, limit int) (locks []LockView, more bool) {
	var names []string
	for _, l := range m.locks {
		if strings.HasPrefix(l.name, prefix) && l.name > after {
			names = append(names, l.name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if len(locks) == limit {
			return locks, true
		}
		locks = append(locks, m.view(name))
	}
	return locks, false
}

package fsm

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// check verifies every invariant of the state and returns the first that is
// broken. Tests run it after each entry, Restore on what it has read.
//
//	now >= 0, lastToken < 2^53, every limit in its range
//	numbers are unique over sessions, their ends, access tokens and requests, and <= lastNumber
//	r.token > 0 ⇔ r holds each of its locks ⇔ tokens[r.token] = r
//	r.token = 0 ⇔ r stands in the queue of each of its locks
//	an Exclusive holder is alone; kind and size of a lock are the same for all on it
//	used = Σ permits of the holders; a waiter is queued with what it wants
//	no waiter is grantable: one of its locks does not admit it, or it is barred
//	a waiter is registered at a lock that does not admit it, or at none and is barred
//	a lock has a holder, a waiter or a delay
//	a session's r is in its grants or waits, and the session is open
//	a detached r that waits is in the waits of its tries' sessions, which are open
//	the answer to each try of r is Queued while it waits
//	a once ID's record has its request, or a grant that has ended and is to be forgotten
//	no open session is remembered as ended
//	everything that ends by time is in the deadlines at its time
//	access tokens and policies: see check_rights.go
//	what an owner uses, and what it costs, is what the sessions, requests and records of its name do
func (t *Table) check() error {
	for _, part := range [...]func() error{
		t.checkScalars, t.checkNumbers, t.checkRequests, t.checkLocks, t.checkSessions, t.checkRecords, t.checkEnded, t.checkRights, t.checkDeadlines, t.checkOwners,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) checkScalars() error {
	if t.now < 0 || t.lastToken > maxToken {
		return fmt.Errorf("now %d, last token %d", t.now, t.lastToken)
	}
	if t.level < 1 || !fits(t.version, maxVersion) {
		return fmt.Errorf("feature level %d of version %q", t.level, t.version)
	}
	for i := range limitTable {
		e := &limitTable[i]
		if v := e.get(&t.limits); v < 1 || v > e.max {
			return fmt.Errorf("limit %s is %d, want 1 to %d", e.field, v, e.max)
		}
	}
	if t.requests.len != t.grants+t.waiters || t.tokens.len != t.grants {
		return fmt.Errorf("%d requests, %d tokens, %d grants, %d waiters", t.requests.len, t.tokens.len, t.grants, t.waiters)
	}
	if len(t.freed)+len(t.candidates)+len(t.stranded) != 0 {
		return fmt.Errorf("%d locks are freed and not handed on, %d waiters not looked at", len(t.freed), len(t.candidates))
	}
	return nil
}

// checkNumbers: requests are unique by their tree. A delay and a record have the
// number of a request that has ended, and may have the same one.
func (t *Table) checkNumbers() error {
	var numbers []uint64
	for _, s := range t.sessions.all() {
		numbers = append(numbers, s.number)
	}
	for _, e := range t.ended.all() {
		numbers = append(numbers, e.key.number)
	}
	for _, a := range t.accessTokens.all() {
		numbers = append(numbers, a.number)
	}
	if err := t.checkUnique(numbers); err != nil {
		return err
	}
	var ended []uint64
	for key := range t.forgets.all() {
		if _, also := slices.BinarySearch(numbers, key.number); also {
			return fmt.Errorf("record of the number %d of something else", key.number)
		}
		ended = append(ended, key.number)
	}
	if err := t.checkUnique(ended); err != nil {
		return err
	}
	for name, l := range t.locks.all() {
		if l.delayUntil == 0 {
			continue
		}
		_, taken := t.requests.get(l.delayNumber)
		if _, also := slices.BinarySearch(numbers, l.delayNumber); taken || also || l.delayNumber > t.lastNumber {
			return fmt.Errorf("delay of lock %q has the number %d of something else", name, l.delayNumber)
		}
	}
	return nil
}

// checkUnique also sorts the numbers.
func (t *Table) checkUnique(numbers []uint64) error {
	slices.Sort(numbers)
	for i, n := range numbers {
		_, taken := t.requests.get(n)
		if n == 0 || n > t.lastNumber || taken || i > 0 && numbers[i-1] == n {
			return fmt.Errorf("number %d is used twice or out of range, last %d", n, t.lastNumber)
		}
	}
	return nil
}

func (t *Table) checkRequests() error {
	for number, r := range t.requests.all() {
		if r.number != number || number == 0 || number > t.lastNumber {
			return fmt.Errorf("request %d stands at %d, last number %d", r.number, number, t.lastNumber)
		}
		if err := t.checkRequest(r); err != nil {
			return fmt.Errorf("request %d: %w", number, err)
		}
		if r.token == 0 {
			if err := t.checkWaiter(r); err != nil {
				return fmt.Errorf("request %d: %w", number, err)
			}
		}
	}
	return nil
}

func (t *Table) checkRequest(r *request) error {
	detached := r.session == SessionID{}
	e := r.more()
	if n := len(r.wants); n == 0 || n > maxLocksPerRequest {
		return fmt.Errorf("%d locks", n)
	}
	for i := range r.wants {
		if r.want(r.wants[i].Lock) != &r.wants[i] {
			return fmt.Errorf("lock %q is named twice", r.wants[i].Lock)
		}
		if err := t.checkOnLock(r, &r.wants[i]); err != nil {
			return fmt.Errorf("lock %q: %w", r.wants[i].Lock, err)
		}
	}
	switch {
	case detached && (r.ttl < 1 || r.sequence != 0 || len(e.tries) == 0),
		!detached && (r.sequence == 0 || e.once != OnceID{} || e.holder != "" || e.tries != nil || e.unconfirmed || e.shared):
		return errors.New("neither in a session nor detached")
	case r.ttl < 0 || r.deadline < 0 || r.queued < 0 || r.queued > t.now || e.delay < 0:
		return fmt.Errorf("times: ttl %d, deadline %d, queued %d, delay %d", r.ttl, r.deadline, r.queued, e.delay)
	}
	if m, ok := t.records.get(e.once); (e.once != OnceID{}) && (!ok || m.number != r.number || m.forget != 0) {
		return fmt.Errorf("has no record of its once ID %x", e.once)
	}
	if r.token == 0 {
		return t.checkWait(r)
	}
	number, ok := t.tokens.get(r.token)
	switch {
	case !ok || number != r.number || r.token > t.lastToken:
		return fmt.Errorf("token %d belongs to request %d, last token %d", r.token, number, t.lastToken)
	case r.granted < r.queued || r.granted > t.now || (r.deadline != 0) != (r.ttl != 0):
		return fmt.Errorf("queued %d, granted %d, ttl %d, deadline %d", r.queued, r.granted, r.ttl, r.deadline)
	case detached && (!e.unconfirmed && len(e.tries) != 1 || len(e.tries) > maxTries || e.unconfirmed && e.shared):
		return fmt.Errorf("was granted to the tries %+v, unconfirmed %v, shared %v", e.tries, e.unconfirmed, e.shared)
	}
	for _, y := range e.tries {
		if y.session == (SessionID{}) || y.sequence == 0 {
			return fmt.Errorf("was granted to the tries %+v", e.tries)
		}
		if s, ok := t.sessions.get(y.session); e.unconfirmed && (!ok || !s.unconfirmed.of.has(r.number)) {
			return fmt.Errorf("is unconfirmed and not in session %x", y.session)
		}
	}
	return t.checkGrant(r)
}

// checkWaiter: nobody who could be granted waits, and nobody is forgotten.
func (t *Table) checkWaiter(r *request) error {
	blocked := false
	for i := range r.wants {
		l, _ := t.locks.get(r.wants[i].Lock)
		admits, registered := l.admits(r.number), l.queue.registered.has(r.number)
		if registered != (int(r.registered) == i+1) || registered && admits {
			return fmt.Errorf("registered at lock %q: %v, says %d of its own; admitted %v", r.wants[i].Lock, registered, r.registered, admits)
		}
		blocked = blocked || !admits
	}
	if barred := t.barred(r); !barred && (!blocked || r.registered == 0) {
		return fmt.Errorf("waits and could be granted: %v; registered at %d of its locks", !blocked, r.registered)
	}
	return nil
}

// checkOnLock finds the request on one of its locks.
func (t *Table) checkOnLock(r *request, w *Want) error {
	l, ok := t.locks.get(w.Lock)
	if !ok || w.Lock == "" {
		return errors.New("no such lock")
	}
	switch {
	case w.Mode < Exclusive || w.Mode > Permits,
		w.Mode == Permits && (w.Permits == 0 || w.Limit < w.Permits),
		w.Mode != Permits && (w.Permits != 0 || w.Limit != 0),
		(w.Mode == Permits) != (l.limit != 0):
		return fmt.Errorf("wants %+v of a lock of size %d", *w, l.limit)
	}
	if ok := l.holders.has(r.number); ok != (r.token != 0) {
		return fmt.Errorf("among the holders: %v, with token %d", ok, r.token)
	}
	if r.token != 0 {
		return nil
	}
	switch {
	case l.queue == nil, w.Mode == Shared && !l.queue.shared.has(r.number), w.Mode != Shared && !l.queue.others.has(r.number):
		return errors.New("not queued")
	case w.Mode == Permits && w.Permits > l.limit:
		return fmt.Errorf("waits for %d permits of %d", w.Permits, l.limit)
	}
	return nil
}

// checkWait: each try is queued, and a copy of it would be answered so.
func (t *Table) checkWait(r *request) error {
	if e := r.more(); r.session == (SessionID{}) && (r.deadline == 0 || len(e.tries) > maxTries || e.unconfirmed || e.shared) {
		return fmt.Errorf("waits detached until %d, shared %v, with the tries %+v", r.deadline, e.shared, e.tries)
	}
	for i := range r.tries() {
		y := r.try(i)
		s, ok := t.sessions.get(y.session)
		if !ok {
			return fmt.Errorf("no session %x", y.session)
		}
		at, ok := s.find(y.sequence)
		if !ok {
			return fmt.Errorf("no answer for sequence %d", y.sequence)
		}
		a := &s.window[at]
		switch {
		case a.request != r.number || a.kind != KindAcquire || a.code != Queued || a.token != 0 || a.more != nil,
			a.queued < r.queued || a.queued > t.now || i == 0 && r.session != (SessionID{}) && a.queued != r.queued:
			return fmt.Errorf("answer %+v to a try that waits since %d", *a, r.queued)
		}
		for k := range i {
			if r.try(k) == y {
				return fmt.Errorf("try %+v twice", y)
			}
		}
	}
	return nil
}

// checkGrant: a retry in its session would be told the truth.
func (t *Table) checkGrant(r *request) error {
	if r.session == (SessionID{}) {
		return nil
	}
	s, ok := t.sessions.get(r.session)
	if !ok {
		return fmt.Errorf("no session %x", r.session)
	}
	i, ok := s.find(r.sequence)
	if !ok {
		if !s.acked.has(r.sequence) {
			return fmt.Errorf("no answer for sequence %d", r.sequence)
		}
		return nil
	}
	a := &s.window[i]
	if a.kind != KindAcquire || a.code != OK || a.token != r.token || a.queued != r.queued || a.granted != r.granted {
		return fmt.Errorf("answer %+v", *a)
	}
	return nil
}

func (t *Table) checkLocks() error {
	for name, l := range t.locks.all() {
		if err := t.checkLock(name, l); err != nil {
			return fmt.Errorf("lock %q: %w", name, err)
		}
	}
	return nil
}

// checkLock checks what does not follow from its requests' own checks.
func (t *Table) checkLock(name string, l *lock) error {
	var used uint64
	alone := false
	last := uint64(0)
	for number := range l.holders.all() {
		w := t.wantOf(number, name, true)
		if w == nil || number <= last {
			return fmt.Errorf("holder %d is not its own, or not in order", number)
		}
		last = number
		used += uint64(w.Permits)
		alone = alone || w.Mode == Exclusive
	}
	if used != l.used || alone != l.heldAlone || alone && l.holders.len() != 1 {
		return fmt.Errorf("%d holders, %d permits out, alone %v; have %d, %v", l.holders.len(), used, alone, l.used, l.heldAlone)
	}
	if err := t.checkLine(name, l.queue); err != nil {
		return err
	}
	inUse := l.holders.len()+l.queue.len() > 0
	switch {
	case inUse != l.heldOrQueued || !inUse && (l.limit != 0 || l.delayUntil == 0):
		return fmt.Errorf("in use %v, have %v; size %d, delay until %d", inUse, l.heldOrQueued, l.limit, l.delayUntil)
	case l.delayUntil < 0 || (l.delayUntil != 0) != (l.timer != 0):
		return fmt.Errorf("delay until %d, timer %d", l.delayUntil, l.timer)
	}
	return nil
}

func (t *Table) checkLine(name string, q *queue) error {
	if q == nil {
		return nil
	}
	last := uint64(0)
	for number := range q.shared.all() {
		if w := t.wantOf(number, name, false); w == nil || w.Mode != Shared || number <= last {
			return fmt.Errorf("shared waiter %d is not its own, or not in order", number)
		}
		last = number
	}
	last = 0
	for number, permits := range q.others.all() {
		if w := t.wantOf(number, name, false); w == nil || w.Mode == Shared || w.Permits != permits || number <= last {
			return fmt.Errorf("waiter %d for %d permits is not its own, or not in order", number, permits)
		}
		last = number
	}
	last = 0
	for number := range q.registered.all() {
		if number <= last || !q.has(number) {
			return fmt.Errorf("request %d is registered and does not wait, or is not in order", number)
		}
		last = number
	}
	if q.freed {
		return errors.New("freed and not handed on")
	}
	return nil
}

// wantOf returns what the request with a number wants of a lock, which it holds
// or waits for; nil if it does not.
func (t *Table) wantOf(number uint64, name string, held bool) *Want {
	r, ok := t.requests.get(number)
	if !ok || (r.token != 0) != held {
		return nil
	}
	return r.want(name)
}

func (t *Table) checkSessions() error {
	owned := 0
	for id, s := range t.sessions.all() {
		if err := t.checkSession(id, s); err != nil {
			return fmt.Errorf("session %x: %w", id, err)
		}
		owned += s.grants.len() + s.unconfirmed.total + s.waits.total
	}
	for _, r := range t.requests.all() {
		if r.token == 0 || r.session != (SessionID{}) || r.more().unconfirmed {
			owned -= r.tries()
		}
	}
	if owned != 0 {
		return fmt.Errorf("sessions have %d requests too many", owned)
	}
	return nil
}

func (t *Table) checkSession(id SessionID, s *session) error {
	if id == (SessionID{}) || s.ttl < 1 || s.deadline < 1 || s.deadline > t.now.Add(s.ttl) {
		return fmt.Errorf("ttl %d, deadline %d, now %d", s.ttl, s.deadline, t.now)
	}
	last := uint64(0)
	for number, sequence := range s.grants.all() {
		r, ok := t.requests.get(number)
		if !ok || r.session != id || r.sequence != sequence || r.token == 0 || number <= last {
			return fmt.Errorf("grant %d of sequence %d is not its own, or not in order", number, sequence)
		}
		last = number
	}
	for _, list := range [...]*tally{&s.unconfirmed, &s.waits} {
		total := 0
		last = 0
		for number, times := range list.of.all() {
			r, ok := t.requests.get(number)
			if !ok || times == 0 || number <= last || r.token != 0 != (list == &s.unconfirmed) || r.token != 0 && !r.more().unconfirmed {
				return fmt.Errorf("request %d does not wait or is told, or is not in order", number)
			}
			last = number
			total += int(times)
		}
		if total != list.total {
			return fmt.Errorf("%d tries, have %d", total, list.total)
		}
	}
	if err := t.checkWindow(id, s); err != nil {
		return err
	}
	last = s.acked.upTo
	for _, span := range s.acked.above {
		if span.First-1 <= last || span.First > span.Last || last == math.MaxUint64 {
			return fmt.Errorf("acknowledged %+v is not in order", s.acked)
		}
		last = span.Last
	}
	for i := range s.revocations {
		n := s.revocations[i].Number
		if n == 0 || n > s.revoked || i > 0 && s.revocations[i-1].Number >= n || i >= MaxRevocations {
			return fmt.Errorf("revocation %d is not in order, last %d", n, s.revoked)
		}
	}
	return nil
}

// checkWindow: each wait of the session has its own answer.
func (t *Table) checkWindow(id SessionID, s *session) error {
	shown, waits := 0, 0
	for i := range s.window {
		a := &s.window[i]
		shown += a.cost()
		if a.sequence == 0 || i > 0 && s.window[i-1].sequence >= a.sequence || a.asked == 0 && a.code != Cancelled {
			return fmt.Errorf("answer %d, %+v, is not in order", i, *a)
		}
		if (a.code == Queued) != (a.request != 0) {
			return fmt.Errorf("answer %+v names a request", *a)
		}
		if a.request == 0 {
			continue
		}
		waits++
		r, ok := t.requests.get(a.request)
		if !ok || !r.hasTry(try{id, a.sequence}) {
			return fmt.Errorf("answer %+v names a request that is not its own", *a)
		}
		if !s.waits.of.has(a.request) {
			return fmt.Errorf("answer %+v names a request that does not wait", *a)
		}
	}
	if waits != s.waits.total {
		return fmt.Errorf("%d answers wait, %d tries", waits, s.waits.total)
	}
	if shown != s.shown || shown > maxShownWindow {
		return fmt.Errorf("answers show %d bytes of holders, have %d", shown, s.shown)
	}
	return nil
}

func (r *request) hasTry(y try) bool {
	for i := range r.tries() {
		if r.try(i) == y {
			return true
		}
	}
	return false
}

func (t *Table) checkRecords() error {
	ended := 0
	for id, m := range t.records.all() {
		if id == (OnceID{}) || m.asked.ttl < 1 || m.asked.delay < 0 {
			return fmt.Errorf("record %x asks for %+v", id, m.asked)
		}
		if m.forget == 0 {
			if r, ok := t.requests.get(m.number); !ok || r.more().once != id || m.token != 0 {
				return fmt.Errorf("record %x of request %d, which is not its own", id, m.number)
			}
			continue
		}
		ended++
		due, ok := t.forgets.get(forgetKey{m.forget, m.number})
		_, held := t.tokens.get(m.token)
		if !ok || due != id || m.forget < 1 || held || m.token < 1 || m.token > t.lastToken {
			return fmt.Errorf("record %x of a grant with token %d that has ended, held %v, to be forgotten at %d", id, m.token, held, m.forget)
		}
	}
	if ended != t.forgets.len {
		return fmt.Errorf("%d records to forget, have %d", ended, t.forgets.len)
	}
	return nil
}

func (t *Table) checkEnded() error {
	if t.ended.len != t.endings.len {
		return fmt.Errorf("%d sessions have ended, %d are to be forgotten", t.ended.len, t.endings.len)
	}
	for id, e := range t.ended.all() {
		_, open := t.sessions.get(id)
		if due, ok := t.endings.get(e.key); open || !ok || due != id || e.key.at < 1 || id == (SessionID{}) {
			return fmt.Errorf("session %x has ended, open %v, to be forgotten at %d", id, open, e.key.at)
		}
	}
	return nil
}

func (t *Table) checkDeadlines() error {
	d := &t.deadlines
	want := t.sessions.len
	for _, s := range t.sessions.all() {
		if err := d.checkSlot(s.timer, s.number, s.deadline); err != nil {
			return err
		}
	}
	for _, r := range t.requests.all() {
		if r.deadline == 0 && r.timer == 0 {
			continue
		}
		want++
		if err := d.checkSlot(r.timer, r.number, r.deadline); err != nil {
			return err
		}
	}
	for _, l := range t.locks.all() {
		if l.delayUntil == 0 {
			continue
		}
		want++
		if err := d.checkSlot(l.timer, l.delayNumber, l.delayUntil); err != nil {
			return err
		}
	}
	for _, a := range t.accessTokens.all() {
		if a.Deadline == 0 && a.timer == 0 {
			continue
		}
		want++
		if err := d.checkSlot(a.timer, a.number, a.Deadline); err != nil {
			return err
		}
	}
	if len(d.heap) != want {
		return fmt.Errorf("%d deadlines, want %d", len(d.heap), want)
	}
	for i := 1; i < len(d.heap); i++ {
		if d.before(&d.heap[i], &d.heap[(i-1)/4]) {
			return fmt.Errorf("deadline %+v stands below %+v", d.heap[i], d.heap[(i-1)/4])
		}
	}
	return nil
}

// checkSlot finds the deadline of a record.
func (d *deadlines) checkSlot(slot int32, number uint64, at Instant) error {
	if slot <= 0 || int(slot) >= len(d.where) {
		return fmt.Errorf("number %d ends at %d and has slot %d", number, at, slot)
	}
	i := int(d.where[slot])
	if i < 0 || i >= len(d.heap) || d.heap[i].slot != slot || d.heap[i].number != number || d.heap[i].at != at {
		return fmt.Errorf("number %d ends at %d and has slot %d at %d", number, at, slot, i)
	}
	return nil
}

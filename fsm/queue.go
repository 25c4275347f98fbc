package fsm

import "slices"

// A request is granted when, at each of its locks, it is compatible with the
// holders and no earlier waiter that conflicts with it stands before it. Shared
// does not conflict with Shared; everything else does, permits too: a wish for
// many permits is not overtaken for ever by wishes for few.
//
// So of two waiters that conflict anywhere, only the earlier can be grantable:
// granting one grantable waiter never takes the turn of another. It can only
// bring others behind it to their turn. The set of those granted therefore does
// not depend on the order, and handing out tokens by ascending number needs one
// pass: see promote.

// room says that the holders leave room for one more.
func (l *lock) room(w *Want) bool {
	if l.delayUntil != 0 {
		return false
	}
	switch w.Mode {
	case Exclusive:
		return len(l.holders) == 0
	case Shared:
		return !l.heldAlone
	}
	return l.used+uint64(w.Permits) <= uint64(l.size(w))
}

// size is the semaphore's size: it is w's if nobody uses the lock.
func (l *lock) size(w *Want) uint32 {
	if l.heldOrQueued {
		return l.limit
	}
	return w.Limit
}

// roomForNew says that a request that is not in the queue may be granted.
func (l *lock) roomForNew(w *Want) bool {
	if !l.room(w) {
		return false
	}
	if w.Mode == Shared {
		return l.barrier == 0
	}
	return len(l.queue) == 0
}

// turn says that no earlier waiter stands in the way of one in the queue.
func (l *lock) turn(number uint64, mode Mode) bool {
	if mode == Shared {
		return l.barrier == 0 || number < l.barrier
	}
	return l.queue[0].number == number
}

// useLock returns the lock of a want, to be changed; it makes it if l is nil.
func (t *Table) useLock(w *Want, l *lock) *lock {
	if l != nil {
		l = t.changeLock(w.Lock, l)
	} else {
		l = &lock{gen: t.locks.gen}
		t.locks.put(w.Lock, l)
	}
	if !l.heldOrQueued {
		l.heldOrQueued, l.limit = true, w.Limit
	}
	return l
}

// leaveLock drops a lock that nobody uses, or has its waiters looked at.
func (t *Table) leaveLock(name string, l *lock) {
	switch {
	case len(l.queue) > 0:
		t.freed = append(t.freed, name)
	case len(l.holders) > 0:
	case l.delayUntil != 0:
		l.heldOrQueued, l.limit = false, 0
	default:
		t.locks.delete(name)
	}
}

// enqueue puts a new request into the queues of its locks, which look has found.
func (t *Table) enqueue(r *request) {
	for i := range r.wants {
		w := &r.wants[i]
		l := t.useLock(w, t.looked[i])
		l.queue = append(l.queue, place{r.number, w.Mode})
		if w.Mode != Shared && l.barrier == 0 {
			l.barrier = r.number
		}
	}
	t.waiters++
}

// dequeue takes a waiting request out of the queue of one of its locks.
func (l *lock) dequeue(number uint64) {
	i, _ := slices.BinarySearchFunc(l.queue, number, func(p place, n uint64) int { return compareInts(p.number, n) })
	l.queue = takeFrom(l.queue, i)
	if l.barrier != number {
		return
	}
	l.barrier = 0
	for _, p := range l.queue[i:] {
		if p.mode != Shared {
			l.barrier = p.number
			break
		}
	}
}

// hold makes a request a holder of its locks, which t.looked has.
func (t *Table) hold(r *request) {
	for i := range r.wants {
		w := &r.wants[i]
		l := t.useLock(w, t.looked[i])
		l.holders = addTo(l.holders, r.number)
		l.used += uint64(w.Permits)
		l.heldAlone = w.Mode == Exclusive
	}
	t.grants++
	t.lastToken++
	r.token = t.lastToken
	r.granted, r.since = t.now, t.wall
	r.deadline = 0
	if r.ttl > 0 {
		r.deadline = sumTimes(t.now, r.ttl)
		r.timer = t.deadlines.add(r.deadline, r.number, nil)
	}
	t.tokens.put(r.token, r.number)
}

// unhold takes a grant off its locks.
func (t *Table) unhold(r *request) {
	for i := range r.wants {
		w := &r.wants[i]
		l, _ := t.locks.get(w.Lock)
		l = t.changeLock(w.Lock, l)
		at, _ := slices.BinarySearch(l.holders, r.number)
		l.holders = takeFrom(l.holders, at)
		l.used -= uint64(w.Permits)
		l.heldAlone = false
		t.leaveLock(w.Lock, l)
	}
	t.grants--
	t.tokens.delete(r.token)
}

// promote grants every waiter whose turn has come, by ascending number, until
// there is none.
//
// A candidate that is granted brings only waiters behind it, of larger numbers,
// to their turn: those are added to the candidates that are still to come.
func (t *Table) promote() {
	if len(t.freed) == 0 {
		return
	}
	t.candidates = t.candidates[:0]
	for _, name := range t.freed {
		t.nominate(name)
	}
	t.freed = t.freed[:0]
	slices.Sort(t.candidates)
	for i := 0; i < len(t.candidates); i++ {
		r, ok := t.requests.get(t.candidates[i])
		if !ok || r.token != 0 || !t.grantable(r) {
			continue
		}
		r = t.changeRequest(r)
		t.grantWaiter(r)
		for k := range r.wants {
			if w := &r.wants[k]; w.Mode == Permits {
				t.nominateNext(w.Lock, i+1)
			}
		}
	}
}

// nominate adds the waiters of a lock that may be granted as far as this lock
// is concerned: the first, or all Shared ones before the first that is not.
func (t *Table) nominate(name string) {
	l, ok := t.locks.get(name)
	if !ok || len(l.queue) == 0 || l.delayUntil != 0 || l.heldAlone {
		return
	}
	for _, p := range l.queue {
		if p.mode != Shared {
			break
		}
		t.candidates = append(t.candidates, p.number)
	}
	if first := l.queue[0]; first.mode != Shared {
		t.candidates = append(t.candidates, first.number)
	}
}

// nominateNext adds the first waiter of a semaphore to the candidates from
// place at.
func (t *Table) nominateNext(name string, at int) {
	l, _ := t.locks.get(name)
	if len(l.queue) == 0 {
		return
	}
	i, _ := slices.BinarySearch(t.candidates[at:], l.queue[0].number)
	t.candidates = slices.Insert(t.candidates, at+i, l.queue[0].number)
}

// grantable says that the turn of a waiter has come at all of its locks, and
// that it has not run out of time: after a mass expiry that was cut, those that
// are due wait for their end and get nothing any more.
func (t *Table) grantable(r *request) bool {
	if t.isDue(r) || t.lastToken >= maxToken {
		return false
	}
	for i := range r.wants {
		w := &r.wants[i]
		l, _ := t.locks.get(w.Lock)
		if !l.turn(r.number, w.Mode) || !l.room(w) {
			return false
		}
	}
	return true
}

// grantWaiter takes a waiter out of its queues and makes it a holder.
func (t *Table) grantWaiter(r *request) {
	t.looked = t.looked[:0]
	for i := range r.wants {
		l, _ := t.locks.get(r.wants[i].Lock)
		l = t.changeLock(r.wants[i].Lock, l)
		l.dequeue(r.number)
		t.looked = append(t.looked, l)
	}
	t.waiters--
	t.deadlines.remove(r.timer)
	r.timer = 0
	t.hold(r)
	t.tellGranted(r)
}

func (r *request) grantedResult() Result {
	return Result{Token: r.token, Deadline: r.deadline, Queued: r.queued, Granted: r.granted}
}

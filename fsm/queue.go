package fsm

// A request is granted when, at each of its locks, it is compatible with the
// holders and no earlier waiter that conflicts with it stands before it. Shared
// does not conflict with Shared; everything else does, permits too, so that a
// request for many permits is not starved by requests for few.
//
// So of two waiters that conflict anywhere, only the earlier can be grantable:
// granting one grantable waiter never takes the turn of another. It can only
// bring others behind it to their turn. The set of those granted therefore does
// not depend on the order, and handing out tokens by ascending number needs one
// pass: see promote.go.

// queue is who waits for a lock.
type queue struct {
	shared     numbers[none]   // the waiters for it as Shared
	others     numbers[uint32] // all others, with the permits that each wants; 0: Exclusive
	registered numbers[none]   // those of both that are registered here: see promote.go
	owners     numbers[int32]  // how many of the waiters each owner has, by owner.number
	freed      bool            // the lock is in Table.freed
}

func (q *queue) len() int {
	if q == nil {
		return 0
	}
	return q.shared.len() + q.others.len()
}

func (q *queue) has(number uint64) bool {
	return q != nil && (q.shared.has(number) || q.others.has(number))
}

// turn returns what a waiter wants of the lock if no earlier one stands in its
// way: all that are Shared have their turn up to the first that is not, and that
// one if it is the first of all.
func (q *queue) turn(number uint64) (mode Mode, permits uint32, ok bool) {
	barrier, permits, some := q.others.first()
	if !some || number < barrier {
		return Shared, 0, true
	}
	if first, _, some := q.shared.first(); number > barrier || some && first < number {
		return 0, 0, false
	}
	if permits > 0 {
		return Permits, permits, true
	}
	return Exclusive, 0, true
}

// leave takes out the waiter whose want at i is this lock.
func (q *queue) leave(r *request, i int) {
	if r.wants[i].Mode == Shared {
		q.shared.remove(r.number)
	} else {
		q.others.remove(r.number)
	}
	q.countInQueue(r.owner, -1)
	if int(r.registered) == i+1 {
		q.registered.remove(r.number)
	}
}

// room says that the holders of a lock of this size leave room for one more.
func (l *lock) room(mode Mode, permits, size uint32) bool {
	if l.delayUntil != 0 {
		return false
	}
	switch mode {
	case Exclusive:
		return l.holders.len() == 0
	case Shared:
		return !l.heldAlone
	}
	return l.used+uint64(permits) <= uint64(size)
}

// roomForNew reports whether a request that is not queued may be granted.
func (l *lock) roomForNew(w *Want) bool {
	size := w.Limit // it is w's if nobody uses the lock
	if l.heldOrQueued {
		size = l.limit
	}
	if !l.room(w.Mode, w.Permits, size) {
		return false
	}
	if w.Mode == Shared {
		return l.queue == nil || l.queue.others.len() == 0
	}
	return l.queue.len() == 0
}

// admits says that a waiter may be granted as far as this lock is concerned. If
// it admits one, it admits every waiter before that one.
func (l *lock) admits(number uint64) bool {
	mode, permits, ok := l.queue.turn(number)
	return ok && l.room(mode, permits, l.limit)
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
	t.work++
	return l
}

// leaveLock drops a lock that nobody uses, or has its waiters looked at.
func (t *Table) leaveLock(name string, l *lock) {
	switch {
	case l.queue.len() > 0:
		t.free(l)
	case l.holders.len() > 0:
	case l.delayUntil != 0:
		l.heldOrQueued, l.limit = false, 0
	default:
		t.locks.delete(name)
	}
}

// free has the waiters of a lock looked at by the next promote.
func (t *Table) free(l *lock) {
	if l.queue.len() > 0 && !l.queue.freed {
		l.queue.freed = true
		t.freed = append(t.freed, l)
	}
}

// enqueue queues a new request at its locks, which look has found, and
// registers it at the first that does not admit it.
func (t *Table) enqueue(r *request) {
	for i := range r.wants {
		w := &r.wants[i]
		l := t.useLock(w, t.looked[i])
		blocks := r.registered == 0 && !l.roomForNew(w)
		t.queueAt(r, w, l)
		if blocks {
			r.register(i, l)
		}
	}
	t.countWaiter(r, 1)
}

// queueAt puts a request at the end of the queue of one of its locks.
func (t *Table) queueAt(r *request, w *Want, l *lock) {
	if l.queue == nil {
		l.queue = &queue{}
	}
	if w.Mode == Shared {
		l.queue.shared.put(r.number, none{})
	} else {
		l.queue.others.put(r.number, w.Permits)
	}
	l.queue.countInQueue(r.owner, 1)
}

// hold makes a request a holder of its locks, which t.looked has.
func (t *Table) hold(r *request) {
	for i := range r.wants {
		w := &r.wants[i]
		l := t.useLock(w, t.looked[i])
		l.holders.put(r.number, none{})
		l.used += uint64(w.Permits)
		l.heldAlone = w.Mode == Exclusive
	}
	t.countGrant(r, 1)
	t.lastToken++
	r.token = t.lastToken
	r.granted, r.since = t.now, t.wall
	r.deadline = 0
	if r.ttl > 0 {
		r.deadline = t.now.Add(r.ttl)
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
		l.holders.remove(r.number)
		l.used -= uint64(w.Permits)
		l.heldAlone = false
		t.leaveLock(w.Lock, l)
		t.work++
	}
	t.countGrant(r, -1)
	t.tokens.delete(r.token)
}

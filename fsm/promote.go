package fsm

import "slices"

// How what became free is handed on.
//
// It must not cost as much as all who wait: ten thousand may wait for a parent
// as Shared, whose holders come and go, and for a child that somebody has. So every
// waiter is registered at one of its locks, one that does not admit it, and when
// the state of a lock changes only those that are registered there are looked at.
// A lock that does not admit a waiter admits none behind it. So they are looked at
// in ascending order, up to the first that is not admitted. Each of the others is
// granted, or moves its registration to another lock that does not admit it.
//
// That misses nobody, because after each command
//
//	every waiter is registered at a lock that does not admit it,
//	or at none, and then it is barred
//
// where barred means that it is granted nothing, whatever its locks say. A lock
// begins to admit a waiter only when
//
//   - a holder or a waiter leaves it, its delay ends, or it is resized: then it is
//     in t.freed, and promote looks at those that are registered there; or when
//   - promote grants an earlier waiter, which had kept it from its turn. That one now
//     holds the lock, and keeps out all that it conflicts with, but on a semaphore:
//     there grantWaiter looks at the next one.
//
// Who is barred stays so until revive, which has it looked at.
//
// So who is granted follows from the state alone, and a registration decides only when
// it is found out that nobody can be. Registrations are no part of the state: Restore
// makes them anew, and they may differ from node to node.
//
// What it costs: a lock that has admitted a waiter goes on admitting it, because
// who comes later does not get past it and who was before it has left; but for a
// delay that begins and a semaphore that shrinks. The look at a waiter begins at the
// lock where it is registered, goes around, and ends at the first lock that does not
// admit it. So from its coming to its end a waiter is looked at at most once for each
// of its locks, and its locks are looked at three times each: when it passes them,
// when they stop it, and when it is granted.
//
// Rejected: to look, at every lock that is freed, at all Shared waiters before the
// first that is not. The end of a session with n grants took n × n looks.

// candidate is a waiter to be looked at.
type candidate struct {
	number uint64
	lock   *lock // where it is registered; nil: nowhere, because it was barred
}

// promote grants every waiter whose turn has come, by ascending number, until
// there is none. A grant brings only waiters behind it, of larger numbers, to
// their turn; so the candidate with the smallest number is always next. Those who may
// not be granted anything any more end afterwards, and who was behind them is looked at.
func (t *Table) promote() {
	t.grantFreed()
	for len(t.stranded) > 0 {
		for _, number := range t.stranded {
			r, waits := t.requests.get(number)
			if !waits {
				continue // revived by several of its sessions, and found twice
			}
			t.endWaitFor(r, Event{Code: NotOwner, Result: t.refuse(NotOwner, revokedCaller, 0)})
		}
		t.stranded = t.stranded[:0]
		t.grantFreed()
	}
}

func (t *Table) grantFreed() {
	for _, l := range t.freed {
		l.queue.freed = false
		t.nominate(l, 0)
	}
	t.freed = t.freed[:0]
	for len(t.candidates) > 0 {
		c := t.takeCandidate()
		r, _ := t.requests.get(c.number)
		t.tryGrant(r, c.lock)
		if c.lock != nil {
			t.nominate(c.lock, c.number)
		}
	}
}

// nominate makes the first waiter that is registered at a lock behind a number
// a candidate, if the lock admits it.
func (t *Table) nominate(l *lock, behind uint64) {
	t.work++
	if n, ok := l.queue.registered.after(behind); ok && l.admits(n) {
		t.addCandidate(candidate{n, l})
	}
}

// tryGrant grants a waiter, or registers it where it has to wait. from is the
// lock where it is registered.
func (t *Table) tryGrant(r *request, from *lock) {
	if from == nil && (r.token != 0 || r.registered != 0) {
		return // revived by several of its sessions, and looked at before
	}
	at, to := t.blocker(r)
	switch {
	case to == nil && !t.barred(r):
		if t.isStranded(r.owner) {
			r.unregister(from)
			t.stranded = append(t.stranded, r.number)
			return
		}
		t.grantWaiter(t.changeRequest(r), from)
	case to == nil:
		r.unregister(from)
	case to != from:
		r.unregister(from)
		r.register(at, to)
	}
}

// blocker returns a lock that does not admit a waiter, and its place in wants; it
// looks from the lock where the waiter is registered. If all admit it, t.looked has
// them.
func (t *Table) blocker(r *request) (int, *lock) {
	n := len(r.wants)
	t.looked = slices.Grow(t.looked[:0], n)[:n]
	at := max(int(r.registered)-1, 0)
	for range n {
		t.work++
		l, _ := t.locks.get(r.wants[at].Lock)
		if !l.admits(r.number) {
			return at, l
		}
		t.looked[at] = l
		if at++; at == n {
			at = 0
		}
	}
	return 0, nil
}

// barred says that a waiter is granted nothing, whatever its locks say: it is due
// and waits for its end, after a mass expiry that was cut, or there are no more
// tokens.
func (t *Table) barred(r *request) bool { return t.isDue(r) || t.lastToken >= maxToken }

// isStranded says that an owner was known by an access token, and none of the name is left:
// what waits for it ends when its turn has come. See as.go.
func (t *Table) isStranded(o *owner) bool { return t.level >= levelOfRights && t.isRevoked(o.name) }

// revive has the next promote look at a waiter that was due and is not any more.
func (t *Table) revive(r *request) {
	t.work++
	if r.registered == 0 {
		t.addCandidate(candidate{number: r.number})
	}
}

// grantWaiter takes a waiter out of the queues of its locks, which t.looked has,
// and makes it a holder. promote itself looks at the next one at from.
func (t *Table) grantWaiter(r *request, from *lock) {
	for i := range r.wants {
		l := t.changeLock(r.wants[i].Lock, t.looked[i])
		l.queue.leave(r, i)
		t.looked[i] = l
	}
	t.countWaiter(r, -1)
	t.deadlines.remove(r.timer)
	r.timer, r.registered = 0, 0
	t.hold(r)
	t.tellGranted(r)
	for i, l := range t.looked {
		if r.wants[i].Mode == Permits && l != from {
			t.nominate(l, r.number)
		}
	}
}

func (r *request) grantedResult() Result {
	return Result{Token: r.token, Deadline: r.deadline, Queued: r.queued, Granted: r.granted}
}

// register registers a waiter at the lock of its want at i. The field is changed in
// place, in a record that a snapshot may have, too: none reads it.
func (r *request) register(i int, l *lock) {
	l.queue.registered.put(r.number, none{})
	r.registered = int32(i + 1)
}

// unregister ends that. l is nil if the waiter is registered nowhere.
func (r *request) unregister(l *lock) {
	if l != nil {
		l.queue.registered.remove(r.number)
		r.registered = 0
	}
}

// registerWaiters registers all waiters of a table that was read from a snapshot.
func (t *Table) registerWaiters() {
	for _, r := range t.requests.all() {
		if r.token != 0 {
			continue
		}
		if at, l := t.blocker(r); l != nil {
			r.register(at, l)
		}
	}
}

// The candidates are a heap by number. No two have the same, but of those that are
// revived: a waiter is registered at one lock, which nominates one at a time.

func (t *Table) addCandidate(c candidate) {
	h := append(t.candidates, c)
	i := len(h) - 1
	for ; i > 0 && c.number < h[(i-1)/2].number; i = (i - 1) / 2 {
		h[i] = h[(i-1)/2]
	}
	h[i] = c
	t.candidates = h
}

// takeCandidate takes out the one with the smallest number.
func (t *Table) takeCandidate() candidate {
	h := t.candidates
	top, c := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	i := 0
	for {
		kid := 2*i + 1
		if kid+1 < len(h) && h[kid+1].number < h[kid].number {
			kid++
		}
		if kid >= len(h) || c.number <= h[kid].number {
			break
		}
		h[i] = h[kid]
		i = kid
	}
	if len(h) > 0 {
		h[i] = c
	}
	t.candidates = h
	return top
}

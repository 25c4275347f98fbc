package fsm

// clearPerEntry bounds the requests that one [Clear] ends, clearLooks those that it looks
// at for their owner.
const (
	clearPerEntry = 512
	clearLooks    = 50_000
)

// Cleared is what a [Clear] has done.
type Cleared struct {
	Grants, Waiters int
	More            bool   // there are others: send it again, with UpTo
	UpTo            uint64 // who came later is left alone
	After           uint64 // of an owner's: all up to this number were looked at
}

// clear ends the whole line of a lock: those who wait before those who hold, so that
// nobody is granted it in between, where that takes several entries.
func (t *Table) clear(c *Clear) Result {
	if why := t.checkReason(c.Reason, c.Who); why != noReason {
		return t.refuse(Invalid, why, int64(t.limits.ReasonBytes))
	}
	if c.Owner != "" {
		return t.clearOwner(c)
	}
	l, ok := t.locks.get(c.Lock)
	if !ok || l.holders.len()+l.queue.len() == 0 {
		return Result{Code: NotHeld}
	}
	done := &Cleared{UpTo: c.UpTo}
	if done.UpTo == 0 {
		done.UpTo = t.lastNumber
	}
	waiters, more := l.waitersUpTo(done.UpTo)
	done.Waiters, done.More = len(waiters), more
	for _, number := range waiters {
		r, _ := t.requests.get(number)
		t.endWaitFor(r, Event{Code: Revoked, Reason: c.Reason, Who: c.Who})
	}
	if !done.More {
		done.Grants, done.More = t.clearHolders(c, done.UpTo, clearPerEntry-len(waiters))
	}
	t.promote()
	return Result{Cleared: done}
}

// waitersUpTo returns the first waiters up to a number, and whether there are more.
func (l *lock) waitersUpTo(number uint64) (waiters []uint64, more bool) {
	if l.queue == nil {
		return nil, false
	}
	for _, list := range [...]func(func(uint64) bool){l.queue.eachShared, l.queue.eachOther} {
		list(func(n uint64) bool {
			if more = n <= number && len(waiters) == clearPerEntry; more || n > number {
				return false
			}
			waiters = append(waiters, n)
			return true
		})
		if more {
			break
		}
	}
	return waiters, more
}

func (q *queue) eachShared(yield func(uint64) bool) {
	for n := range q.shared.all() {
		if !yield(n) {
			return
		}
	}
}

func (q *queue) eachOther(yield func(uint64) bool) {
	for n := range q.others.all() {
		if !yield(n) {
			return
		}
	}
}

func (t *Table) clearHolders(c *Clear, upTo uint64, most int) (ended int, more bool) {
	l, ok := t.locks.get(c.Lock)
	if !ok {
		return 0, false
	}
	var numbers []uint64
	for number := range l.holders.all() {
		if number > upTo {
			break
		}
		if len(numbers) == most {
			more = true
			break
		}
		numbers = append(numbers, number)
	}
	for _, number := range numbers {
		r, _ := t.requests.get(number)
		t.endByOperator(r, c.Reason, c.Who)
	}
	return len(numbers), more
}

// endByOperator takes a grant away and has its session told.
func (t *Table) endByOperator(r *request, reason, who string) {
	e := Event{Kind: EventRevoked, Reason: reason, Who: who}
	if s := t.session(r.session); s != nil {
		e.Number = t.revoke(t.changeSession(r.session, s), r.token, reason, who)
	}
	t.endGrant(r, e)
}

// clearOwner ends an owner's detached requests, in the order in which they came.
func (t *Table) clearOwner(c *Clear) Result {
	if c.Lock != "" {
		return t.refuse(Invalid, badOwner, maxOwnerBytes)
	}
	done := &Cleared{UpTo: c.UpTo, After: c.After}
	if done.UpTo == 0 {
		done.UpTo = t.lastNumber
	}
	var found []*request
	looked := 0
	for number, r := range t.requests.from(sumNumbers(c.After, 1)) {
		if number > done.UpTo {
			break
		}
		if looked == clearLooks || len(found) == clearPerEntry {
			done.More = true
			break
		}
		looked++
		done.After = number
		if r.session == (SessionID{}) && r.owner.name == c.Owner {
			found = append(found, r)
		}
	}
	for _, r := range found {
		if r.token != 0 {
			done.Grants++
			t.endByOperator(r, c.Reason, c.Who)
		} else {
			done.Waiters++
			t.endWaitFor(r, Event{Code: Revoked, Reason: c.Reason, Who: c.Who})
		}
	}
	t.promote()
	return Result{Cleared: done}
}

// sumNumbers adds to a number; numbers stop at the largest.
func sumNumbers(n, d uint64) uint64 { return max(n, n+d) }

package fsm

import (
	"fmt"
	"strings"
)

// checkOwners counts again what each owner has, in all and in each queue.
func (t *Table) checkOwners() error {
	var want tree[string, *owner]
	want.cmp = strings.Compare
	sum := int64(0)
	cost := func(o *owner, n int64) {
		c, _ := want.get(o.name)
		c.bytes += n
		sum += n
	}
	use := func(o *owner) *Use {
		c, ok := want.get(o.name)
		if !ok {
			c = &owner{name: o.name}
			want.put(o.name, c)
			cost(o, costOfOwner(o.name))
		}
		return &c.use
	}
	for _, s := range t.sessions.all() {
		use(s.owner).Sessions++
		cost(s.owner, s.costOf())
		if s.cost != s.costOf() || s.told != s.costOfRevocations() || s.peak < len(s.window) {
			return fmt.Errorf("session of %q costs %d, with revocations %d; was charged %d and %d; %d answers, peak %d", s.owner.name, s.costOf(), s.costOfRevocations(), s.cost, s.told, len(s.window), s.peak)
		}
	}
	for _, r := range t.requests.all() {
		if s, ok := t.sessions.get(r.session); ok && s.owner != r.owner {
			return fmt.Errorf("request %d of %q is in a session of %q", r.number, r.owner.name, s.owner.name)
		}
		if r.token != 0 {
			use(r.owner).Grants++
		} else {
			use(r.owner).Waiters++
		}
		cost(r.owner, r.costOf())
		if r.cost != r.costOf() {
			return fmt.Errorf("request %d costs %d, was charged %d", r.number, r.costOf(), r.cost)
		}
	}
	for _, m := range t.records.all() {
		use(m.owner).Once++
		cost(m.owner, costRecord)
	}
	for _, e := range t.ended.all() {
		use(e.owner).Ended++
		cost(e.owner, costEnded)
	}
	for name, l := range t.locks.all() {
		if (l.delayUntil != 0) != (l.delayOwner != nil) {
			return fmt.Errorf("lock %q: delay until %d, with an owner: %v", name, l.delayUntil, l.delayOwner != nil)
		}
		if l.delayOwner != nil {
			use(l.delayOwner).Delays++
			cost(l.delayOwner, costOfDelay(name))
		}
	}
	if want.len != t.owners.len {
		return fmt.Errorf("%d owners have something, have %d", want.len, t.owners.len)
	}
	for name, o := range t.owners.all() {
		if c, ok := want.get(name); !ok || o.name != name || c.use != o.use || c.bytes != o.bytes {
			return fmt.Errorf("owner %q has %+v, %d bytes; counted %+v, %d", name, o.use, o.bytes, c.use, c.bytes)
		}
	}
	if sum+t.rightsBytes != t.bytes {
		return fmt.Errorf("records cost %d bytes, and %d for rights, have %d", sum, t.rightsBytes, t.bytes)
	}
	return t.checkQueueOwners()
}

func (t *Table) checkQueueOwners() error {
	for name, l := range t.locks.all() {
		if l.queue == nil {
			continue
		}
		var want numbers[int32]
		count := func(number uint64) {
			r, _ := t.requests.get(number)
			n, _ := want.get(r.owner.number)
			want.put(r.owner.number, n+1)
		}
		for number := range l.queue.shared.all() {
			count(number)
		}
		for number := range l.queue.others.all() {
			count(number)
		}
		if want.len() != l.queue.owners.len() {
			return fmt.Errorf("lock %q: %d owners wait, have %d", name, want.len(), l.queue.owners.len())
		}
		for o, n := range want.all() {
			if got, _ := l.queue.owners.get(o); got != n {
				return fmt.Errorf("lock %q: an owner has %d waiters, counted %d", name, got, n)
			}
		}
	}
	return nil
}

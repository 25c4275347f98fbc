package fsm

import "slices"

// SessionSummary is what an operator sees of a session.
type SessionSummary struct {
	Session  SessionID
	Number   uint64 // sessions and requests are numbered as they come
	Owner    string
	Holder   string
	Labels   []Label
	TTL      int64   // nanoseconds
	Deadline Instant // cluster time
	Grants   int
	Waiters  int   // its places in queues
	Bytes    int64 // that it costs itself, without its grants
}

// Sessions returns, in the order in which they were opened, at most limit open sessions
// that pass the filter and were opened after the one with a number, and whether there are
// more. It looks at all sessions.
func (t *Table) Sessions(filter SessionFilter, after uint64, limit int) (list []SessionSummary, more bool) {
	on := t.sessionsOn(filter.Lock)
	var found []SessionSummary
	for id, s := range t.sessions.all() {
		if s.number <= after || filter.Owner != nil && s.owner.name != *filter.Owner {
			continue
		}
		if _, is := on.get(id); filter.Lock != "" && !is {
			continue
		}
		found = append(found, SessionSummary{
			Session: id, Number: s.number, Owner: s.owner.name, Holder: s.holder, Labels: s.labels, TTL: s.ttl, Deadline: s.deadline,
			Grants: s.grants.len() + s.unconfirmed.total, Waiters: s.waits.total, Bytes: s.cost,
		})
	}
	slices.SortFunc(found, func(a, b SessionSummary) int { return compareInts(a.Number, b.Number) })
	if more = len(found) > limit; more {
		found = found[:limit]
	}
	for i := range found {
		found[i].Labels = slices.Clone(found[i].Labels)
	}
	return found, more
}

// SessionFilter says which sessions are meant. The zero value means all.
type SessionFilter struct {
	Owner *string // nil: of any
	Lock  string  // that hold it or wait for it; empty: any
}

// sessionsOn are the sessions that hold a lock or wait for it.
func (t *Table) sessionsOn(name string) (on tree[SessionID, none]) {
	on.cmp = compareSessions
	l, ok := t.locks.get(name)
	if !ok {
		return on
	}
	add := func(number uint64) {
		r, _ := t.requests.get(number)
		for i := range r.tries() {
			if r.token == 0 || r.session != (SessionID{}) || r.more().unconfirmed {
				on.put(r.try(i).session, none{})
			}
		}
	}
	for number := range l.holders.all() {
		add(number)
	}
	if l.queue != nil {
		for number := range l.queue.shared.all() {
			add(number)
		}
		for number := range l.queue.others.all() {
			add(number)
		}
	}
	return on
}

// FindSession returns the open session for which is returns true, the one that was opened
// first if there are several.
func (t *Table) FindSession(is func(SessionID) bool) (found SessionID, ok bool) {
	var number uint64
	for id, s := range t.sessions.all() {
		if (!ok || s.number < number) && is(id) {
			found, number, ok = id, s.number, true
		}
	}
	return found, ok
}

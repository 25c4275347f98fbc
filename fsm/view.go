package fsm

import (
	"bytes"
	"slices"
	"strings"
)

// LockView is a lock as it is after the last entry. It shares nothing with the
// table.
type LockView struct {
	Name        string
	Holders     []Holder // the first MaxHoldersShown, in the order of their requests
	HolderCount int
	Waiters     int
	Limit       uint32  // size of the semaphore in use; otherwise 0
	DelayUntil  Instant // cluster time before which nobody new is granted the lock; 0: no delay
}

// Stats counts what is in the table.
type Stats struct {
	Locks       int // with a holder, a waiter or a delay
	Sessions    int
	Grants      int
	Waiters     int // requests
	Owners      int
	Bytes       int64 // what the table costs, of Limits.TableBytes
	LastToken   uint64
	Now         Instant // cluster time
	Digest      uint64
	DigestIndex uint64
}

// SessionView is an open session.
type SessionView struct {
	Session     SessionID
	TTL         int64   // nanoseconds
	Deadline    Instant // cluster time
	Holder      string
	Labels      []Label
	Tokens      []uint64     // of its grants, in the order of their requests
	Waiters     int          // its requests that wait, and tries of detached ones
	Answers     int          // remembered for retries
	Acked       uint64       // up to this one
	Revocations []Revocation // not yet seen by the client
}

// HasSession reports whether a session is open.
func (t *Table) HasSession(id SessionID) bool {
	_, ok := t.sessions.get(id)
	return ok
}

// Lock returns what is to be seen of a lock. A free one has no holders.
func (t *Table) Lock(name string) LockView {
	l, ok := t.locks.get(name)
	if !ok {
		return LockView{Name: name}
	}
	return t.view(name, l)
}

func (t *Table) view(name string, l *lock) LockView {
	v := LockView{
		Name: name, HolderCount: l.holders.len(), Waiters: l.queue.len(), Limit: l.limit, DelayUntil: l.delayUntil,
	}
	for number := range l.holders.all() {
		if len(v.Holders) == MaxHoldersShown {
			break
		}
		h := t.holderOn(number, name)
		h.Value, h.Labels = bytes.Clone(h.Value), slices.Clone(h.Labels)
		v.Holders = append(v.Holders, h)
	}
	return v
}

// HoldersOf returns who holds the locks of a request, as [Busy] does: the first
// MaxHoldersShown. They are read only: what is in them is shared with the table.
func (t *Table) HoldersOf(wants []Want) []Holder { return t.busy(&Acquire{Wants: wants}).Holders }

// List returns, in the order of their names, at most limit locks whose names
// begin with prefix and are greater than after, and says whether there are more.
func (t *Table) List(prefix, after string, limit int) (locks []LockView, more bool) {
	for name, l := range t.locks.from(max(prefix, after)) {
		if name <= after && after != "" {
			continue
		}
		if !strings.HasPrefix(name, prefix) {
			break
		}
		if len(locks) >= limit {
			return locks, true
		}
		locks = append(locks, t.view(name, l))
	}
	return locks, false
}

// Stats returns the counts.
func (t *Table) Stats() Stats {
	return Stats{
		Locks: t.locks.len, Sessions: t.sessions.len, Grants: t.grants, Waiters: t.waiters,
		Owners: t.owners.len, Bytes: t.bytes, LastToken: t.lastToken, Now: t.now, Digest: t.digest, DigestIndex: t.index,
	}
}

// Session returns an open session; false if there is none with the ID.
func (t *Table) Session(id SessionID) (SessionView, bool) {
	s, ok := t.sessions.get(id)
	if !ok {
		return SessionView{}, false
	}
	v := SessionView{
		Session: id, TTL: s.ttl, Deadline: s.deadline, Holder: s.holder, Labels: slices.Clone(s.labels),
		Waiters: s.waits.total, Answers: len(s.window), Acked: s.acked.upTo, Revocations: slices.Clone(s.revocations),
	}
	for number := range s.grants.all() {
		r, _ := t.requests.get(number)
		v.Tokens = append(v.Tokens, r.token)
	}
	return v, true
}

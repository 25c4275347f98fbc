// Package fsm is the lock table: what a Raft log of commands means.
//
// It is pure. [Table.Apply] takes the bytes of one log entry and returns what
// it did; it reads no clock, no randomness and no map, starts no goroutine and
// does no I/O, so that the same log gives the same bytes on every node, in every
// version and on every architecture. It imports the standard
// library alone: package internal/replica makes a state machine of Raft of it.
//
// # Objects
//
// A lock is a name with at least one holder, one waiter or a delay; a name with
// none of them takes no memory. A request is an acquire of one or several locks,
// wanted all or none: it waits in the queue of each of them, and then, as a
// grant with one token, holds all of them. A session is a client's liveness and
// owns requests, and remembers in its window what they were answered. A detached
// request waits in the sessions of its tries, and as a grant lives by its own TTL. A
// record is what is known of a once ID, the name that a caller gives to the tries of a
// detached request.
//
// An access token says by which secret a caller proves who he is; a policy, what he may do.
// The table keeps them, and guards what belongs to whom ([As]); what somebody may do is
// decided where a request enters.
//
// The state is eight copy-on-write B-trees and some numbers (table.go). Records
// refer to each other by key, never by pointer, and lists are ascending numbers;
// what every invariant is stands at check (check.go).
//
// # An entry
//
//  1. An entry that was stamped in another term than it is stored under is
//     refused as a whole ([StaleStamp]), as are bytes that are no entry and a stamp
//     that is implausibly far ahead ([Malformed]): cluster time and all records stay as they are.
//  2. now = max(now, stamp).
//  3. What is due (deadline <= now) ends in the order of (deadline, number):
//     sessions, grants, waits, delays, access tokens. Numbers are given as sessions,
//     requests and access tokens come. At most Limits.ExpiriesPerEntry of them end, and once more than
//     16,384 grants and waits have ended with their sessions no further one; the
//     rest waits for the next entry ([Applied].MoreDue).
//  4. Only then do freed locks go to their waiters, so that nobody who was due
//     is granted anything.
//  5. What was remembered for long enough, of once IDs and of ended sessions, is
//     forgotten, at most Limits.ExpiriesPerEntry in number. Nothing of it is
//     forgotten early: at their limits, new ones are refused.
//  6. The commands run in order. What one frees is handed on before the next.
//
// What is due but was cut in step 3 exists until an entry ends it: it may be
// renewed or released, but as a waiter it is granted nothing.
//
// What is to be forgotten is not told as a deadline: an idle cluster need not
// write an entry for it. When it is late it has much to forget, which must not
// keep anything from ending in time.
//
// # Granting
//
// A waiter is granted when, at all of its locks, it is compatible with the
// holders and no earlier waiter that conflicts with it stands before it. Shared
// and Shared do not conflict; everything else does, permits too. Nobody is
// overtaken by somebody it conflicts with, so nobody starves, and a request over
// several locks cannot deadlock with another. See queue.go.
//
// Looking for those waiters does not cost more the more of them wait for the lock
// and cannot have it yet. See promote.go.
//
// # Events
//
// Every change of a grant, wait, session or size of a semaphore is an event, in the order in
// which it happened; that a try has joined a wait is only the result of its acquire. First comes
// the end of a session, then the ends of its grants by number, then those of its waits,
// then the grants of what became free.
//
// # Concurrency
//
// A [Table] is for one goroutine. A [Snapshot] may be written from another while
// the table goes on: what both share is never changed in place (tree.go). The
// package starts no goroutine.
//
// # What may change
//
// The encodings of entries and snapshots, the numbers of kinds, codes, modes and
// reasons, and the defaults of the limits are what nodes of different versions
// must agree on. A new field of a command takes a new kind; a new snapshot takes
// a new version, and all older ones are still read.
//
// # Files
//
//   - table.go: what is in the table? limits.go: what bounds it? check.go and
//     check_owners.go: which invariants hold?
//   - apply.go: what does an entry do, in which order? command.go and result.go: what can be
//     asked, and what is answered? refusal.go: why is something refused?
//   - acquire.go, release.go, session.go, clear.go: what do the commands do? detached.go:
//     and for grants without a session?
//   - queue.go: who may be granted? promote.go: how is that found, when a lock is free?
//   - window.go: how does a request take effect once? acked.go: which sequences are
//     acknowledged?
//   - instant.go: what is a moment of cluster time? deadlines.go: what ends next?
//   - owners.go: who may have how much? cost.go: what does a record take of memory?
//   - codec.go and codec_commands.go: what does an entry look like in bytes? snapshot.go and
//     restore.go: and a snapshot? digest.go: how do two nodes compare their states?
//   - rights.go: what are access tokens, policies and callers? access_tokens.go, policies.go:
//     what do their commands do? as.go: whose is what? quotas.go: how much may a caller have?
//     codec_rights.go: what does that look like in bytes? view_rights.go: what can be seen of
//     it? check_rights.go: which of its invariants hold?
//   - text.go: which names are allowed?
//   - tree.go and numbers.go: the ordered maps and lists that all this is made of.
//   - view.go and view_sessions.go: what can be seen from outside?
//   - level.go: which commands may be written while members of an older version are there?
package fsm

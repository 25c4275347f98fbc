// Package history records what clients of a cluster asked, were told and
// believed, and what the nodes applied, and checks it against the promises S1 to
// S9 of docs/design.md.
//
// Objects:
//   - a [History] is the record: plain data, which can be written down and read
//     back;
//   - a [Recorder] collects one while a cluster runs: calls and answers from an
//     interceptor of the client's streams and unary calls, beliefs from the
//     client's trace, applied entries from the nodes' hook;
//   - [History.Check] judges it, by several independent ways.
//
// All times of one history are readings of one clock, which nobody skews: the
// virtual clock of a simulation, or the monotonic clock of the process that all
// clients run in. A clock of a client or a node never appears in it.
//
// # The checks
//
// None of them knows the code of the table; each has a name, which a [Violation]
// bears.
//
//   - beliefs: no two clients believed at the same time in what excludes the
//     other, nobody believed longer than the cluster may have thought so, nobody
//     was told of a loss too early, and whoever was answered a keep-alive was told
//     what it had missed (S1, S2, S3). It needs no model and no log.
//   - tokens: they rise with real time and belong to one request each (S4); what
//     was asked twice was answered once (S6); strangers release nothing (S5).
//   - order: answers name log indexes, which do not contradict real time (S7, S8).
//   - porcupine: for each lock that is only taken exclusively, some order of the
//     operations explains all answers. It is a search, by another program, and
//     model.go is all that it is told. What is shared or counted is left to
//     beliefs and log.
//
// and, if nodes were watched:
//
//   - digest: each index has one state on all nodes, in all their lives (S9, S7);
//   - clock: cluster time never falls and never runs ahead of real time (S2);
//   - log: the events, replayed through a small model, keep exclusion, tokens,
//     deadlines, delays after a loss, the line of waiters and owners (S1 to S6,
//     FIFO), nobody stands in line with nobody in his way, whatever ends has a
//     cause, and reads saw what was held at their index (S8);
//   - answers: what was answered is in the log, once and as it was told (S3, S5,
//     S6, S7).
//
// Who has no session is known by the ID of its own that an acquire has, or by its
// holder, if nobody else calls itself so: the session and sequence under which a
// node has sent it are in the log alone. What such a caller is told of a grant counts
// as a belief, until the time that it was told. detached.go has what is special about
// that: an ID that several tries have, answers that are true when they are given, a
// grant that nobody takes from who was told of it, and places in line whose owner is
// gone.
//
// The log also decides outcomes that no client was told.
//
// Of an empty history nothing is wrong. Who knows that there was something to
// record says so in [Options].
//
// # What a check relies on
//
// Every client that releases or forces anything is recorded; an operator who goes
// past the recorder looks like somebody who breaks promises, unless the log shows
// the revocation and [Options].Alone is not set. Entries, if there are any, are all of the log from its first
// entry on. The history is taken when the clients have stopped. Clients are not
// paused: a client that stands still believes longer than it was allowed to, as
// it does in life, where only the token protects. [Options].Late allows for a
// machine that is merely busy.
//
// Where a time is not known, a bound is used that only lets a check see less.
package history

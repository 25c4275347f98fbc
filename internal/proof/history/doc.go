// Package history records the requests of a cluster's clients, their answers, the times in
// which clients took grants to be valid, and what the nodes applied. It checks this record
// against the promises S1 to S9 of docs/design.md. A belief is a time in which a client took
// a grant to be valid.
//
// Objects:
//   - a [History] is the record: plain data, which can be written to a file and read
//     back;
//   - a [Recorder] collects one while a cluster runs: calls and answers from an
//     interceptor of the client's streams and unary calls, beliefs from the
//     client's trace, applied entries from the nodes' hook;
//   - [History.Check] checks it, in several independent ways.
//
// All times of one history are readings of one clock that no fault skews: the virtual clock
// of a simulation, or the monotonic clock of the process that all clients run in. The clocks
// of clients and nodes are never used.
//
// # The checks
//
// None of them uses the code of the table. Each has a name, which is part of a [Violation].
//
//   - beliefs: no two conflicting grants were valid at the same time, no grant was valid
//     for longer than the cluster kept it, no loss was reported too early, and each answer
//     to a keep-alive had the revocations that the client had missed (S1, S2, S3). It needs
//     no model and no log.
//   - tokens: they rise with real time and belong to one request each (S4); a request that
//     was sent twice has one answer (S6); other clients release nothing (S5).
//   - order: answers name log indexes, which do not contradict real time (S7, S8).
//   - porcupine: for each lock that is only taken exclusively, some order of the operations
//     explains all answers. Porcupine searches for it, with the rules of model.go. Shared
//     and counted locks are left to beliefs and log.
//
// and, if nodes were watched:
//
//   - digest: each index has one state on all nodes, in all their runs (S9, S7);
//   - clock: cluster time never falls and never runs ahead of real time (S2);
//   - log: the events, replayed through a small model, keep exclusion, tokens, deadlines,
//     delays after a loss, sizes of semaphores, the order of waiters, and the owner of each
//     grant (S1 to S6, FIFO); no request waits for a lock that is free for it; everything
//     that ends has a cause; and reads return what was held at their index (S8);
//   - answers: each answer is in the log, once and with the same content (S3, S5, S6, S7).
//
// A caller without a session is identified by the once ID of its acquire, or by its holder
// if no other client has the same: the session and sequence under which a node has sent the
// acquire are only in the log. The grant that such a caller got counts as a belief until the
// time in the answer. detached.go has the special cases: several tries under one ID, answers
// that are true when they are given, grants that must not be taken from a caller that got the
// answer, and places in queues whose caller is gone.
//
// The log also decides outcomes that clients do not know.
//
// An empty history breaks no promise. [Options] can require that something was recorded.
//
// # What a check relies on
//
// Every client that releases or force-releases anything must be recorded. An operator that is
// not recorded causes false alarms, unless the log has the revocation and [Options].Alone is not
// set. Entries, if there are any, are the whole log from its first entry on. The history is
// taken when the clients have stopped. Clients are not paused: a paused client takes its
// grant to be valid for too long, as in production, where only the token protects.
// [Options].Late allows for a busy machine.
//
// If a time is not known, a check uses a bound that can hide a violation and cannot make one
// up.
//
// # Files
//
//   - history.go: what is in a history? record.go: how is one collected? stream.go, unary.go,
//     backend.go: from which calls? write.go: how is it written to a file and read back?
//   - check.go: which checks are there, and what do they share? facts.go: what do the
//     operations say about grants and sessions?
//   - beliefs.go, tokens.go: the checks of those names, and tokens.go that of order.
//     porcupine.go: the search, over the moves.go of each lock, by the rules of model.go, made
//     smaller by narrow.go.
//   - log.go: digest, clock, and the log. replay.go: its events one by one; causes.go: why
//     did something end? stuck.go: does a request wait for a free lock? sizes.go: how
//     large is a semaphore? answers.go: the check of that name.
//   - detached.go: the special cases of callers without a session.
//
// A Violation has the name of its check, which leads to the file: "log" to replay.go, "order" to
// tokens.go, "digest" and "clock" to log.go.
package history

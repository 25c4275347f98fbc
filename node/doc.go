// Package node runs one member of a Locknode cluster.
//
// A [Node] composes Raft, gossip, the lock table and the servers; it is the only
// package that knows them all. Its parts:
//
//   - the path of a command: wire.Start (route.go) gives the command a session of the node's
//     own if it has none (package host), and brings it to the leader. The proposer
//     (propose.go), in whose queues clients take turns (lanes.go), packs it into an entry
//     with a stamp of the leader's clock (clock.go). The table decides, and the answer goes
//     back. An acquire that has to wait is answered by the event that ends its wait
//     (wait.go), and streams get notices of what happens to their sessions (notice.go);
//   - leadership (lead.go): nothing is served before the barrier and the first
//     entry of a term have been applied, and nothing after the term is over;
//   - keep-alives of sessions that do not exist (missing.go): they are not part of an entry;
//   - reads: one round of the voters serves all the reads that wait (read.go), and
//     they are answered once the table has applied what the round covered (readnow.go); what
//     a node reports about its table waits for nothing (state.go);
//   - snapshots (snapshot.go): how much of the log a start may have to apply again;
//   - the comparison of states (comparedigests.go): nodes compare the digests of their
//     states, and one that differs from a majority stops;
//   - the limits of the system: open files (files.go), and room for log lines (logs.go),
//     which repeat while a peer is down;
//   - membership (package internal/membership): the leader turns gossip into Raft's
//     configuration.
//
// A node is closed (close.go) in this order: the clients that it has given out are closed,
// so that their sessions end and their locks are free while the node still serves; with
// LeaveOnStop the node leaves; leadership is handed over; the servers stop, and clients
// send what was cut to another node; the node's own sessions end; reads, rounds and the
// router answer what they still have; Raft, membership, gossip and the connections to
// others end, and then the stores. Each step has a time limit, and all are done even if one
// fails. A node that ends by itself takes the same steps, as far as it can.
//
// From release 0.1.0 on, exported names change with a minor release only, and CHANGELOG says
// how; [Config] and [client.Status] may get fields in any release. What is less stable says so.
//
// Goroutines, all joined by Close: join (until Raft runs, and then for watchPlace), lead,
// watchLeader, earnVote, snapshots.run, compareStates, the proposer of the current term, rights.run,
// rounds.run, reads.run, router.run, host.Run, and those of the servers, of gossip and of
// Raft. Raft's callbacks only enqueue; observe runs on the goroutine that applies entries.
//
// Invariants: stamps of one term come from one clock; at most one entry is in
// flight; every call that Start has taken is answered once or abandoned.
//
// Files that are not named above:
//   - wire.go: how is a node called by its server, its peers and its own clients?
//   - node.go: how is a node opened? config.go: what can be configured? bind.go: which
//     addresses does it bind? memory.go, files_unix.go, files_other.go: what does the system
//     allow, and what are the server's budgets? limits.go: which limits does a new cluster get?
//     quotas.go: what may one caller have? secure.go: how does it use TLS? auth.go: who may do
//     what? metrics.go: what is counted? text.go: which text cannot
//     be printed?
//   - op.go: which command is an operation? answer.go: which answer, with its code and text,
//     is a result of the table? observe.go: who gets what an entry has done?
//     admin.go: what can an operator request of a node? operator.go: what can an operator do
//     about clients? operator_rights.go: and about access tokens and policies? audit.go: what is
//     recorded? grants.go: which node records grants? peercalls.go: what do other nodes ask?
//   - join.go: how does Raft start in a cluster? seeds.go: where were the others last?
//     leave.go: can the others do without this node? voter.go: may the next node be stopped?
//     reseed.go: how does a node come back with an empty directory?
//     gossipkeys.go: how does it get the keys of gossip, and who gets them from it?
//     gossipkeys_operator.go: how are they rotated? reload.go: how are files read again?
//   - leader.go: which node leads, and where? peers.go: how are other nodes reached?
//     trouble.go: why is one not reached? directory.go: where are the members?
//   - level.go: which commands does the table's feature level allow?
//   - pastdigests.go: which digests can be compared?
package node

// Package node runs one member of a Locknode cluster.
//
// A [Node] composes Raft, gossip, the lock table and the servers; it is the only
// package that knows them all. What it owns:
//
//   - the way of a command: wire.Start (route.go) gives it a session of the node's own if
//     it has none (package host), and brings it to the leader; the proposer (propose.go),
//     in whose queues clients take turns (lanes.go), packs it into an entry with a stamp
//     of the leader's clock (clock.go); the table decides, and the answer goes back. An
//     acquire that has to wait is answered by the event that ends its wait (wait.go), and
//     streams are notified of what happens to their sessions (notice.go);
//   - leadership (lead.go): nothing is served before the barrier and the first
//     entry of a term have been applied, and nothing after the term is over;
//   - keep-alives of sessions that do not exist (strays.go): they take no part in an entry;
//   - reads: one round of the voters serves all the reads that wait (read.go), and
//     they are answered once the table has applied what the round covered (readnow.go); what
//     a node reports about its table waits for nothing (state.go);
//   - snapshots (snapshot.go): how much of the log a start may have to apply again;
//   - the alarm (comparedigests.go): nodes compare the digests of their states, and one that
//     differs from a majority stops;
//   - the limits of the system: open files (files.go), and room for log lines (logs.go),
//     which repeat while a peer is down;
//   - membership (package internal/membership): the leader turns gossip into Raft's
//     configuration.
//
// The end of a node (close.go), in this order: the clients that it has given out are
// closed, so that their sessions end and their locks are free while there is somebody
// to tell; with LeaveOnStop it leaves; leadership is handed over; the servers stop,
// and clients send what was cut to another node; the node's own sessions end; reads,
// rounds and the router answer what they still have; Raft, membership, gossip and the
// connections to others end, and then the stores. Each step has a time limit, and all
// are done even if one fails. A node that ends by itself goes the same way, as far as
// it can.
//
// From release 0.1.0 on, exported names change with a minor release only, and CHANGELOG says
// how; [Config] and [client.Status] may get fields in any release. What is less stable says so.
//
// Goroutines, all joined by Close: join (until Raft runs, and then after the node's
// place), lead, watchLeader, earnVote, snapshots.run, compareStates, the proposer of the
// current term, rounds.run, reads.run, router.run, host.Run, and those of the servers, of
// gossip and of Raft.
// Raft's callbacks only enqueue; observe runs on the goroutine that applies entries.
//
// Invariants: stamps of one term come from one clock; at most one entry is in
// flight; every call that Start has taken is answered once or abandoned.
//
// Files that are not named above:
//   - wire.go is a node as its server, its peers and its own clients ask it.
//   - node.go opens a node; config.go says what can be configured; bind.go binds its
//     addresses; memory.go and files_unix.go, files_other.go ask what the system allows;
//     metrics.go counts; text.go refuses text that cannot be printed.
//   - op.go translates an operation into a command; apply.go passes on what an entry has
//     done; admin.go answers what people ask of a node, operator.go what an operator does
//     about clients.
//   - join.go starts Raft in a cluster; seeds.go remembers where the others were; leave.go
//     waits until the others can do without this node; voter.go says whether the next node
//     may be stopped; reseed.go makes a node come back with an empty directory.
//   - peers.go connects to other nodes, words.go says why one is not reached; directory.go
//     says where the members are.
//   - level.go knows the table's feature level, and refuses what is above it.
//   - pastdigests.go keeps the digests that comparedigests.go compares.
package node

// Package node runs one member of a Locknode cluster.
//
// A [Node] composes Raft, gossip, the lock table and the servers; it is the only
// package that knows them all. What it owns:
//
//   - the road of a command: Start (route.go) gives it a session of the node's own if
//     it has none (package host), and brings it to the leader, the
//     proposer (propose.go) packs it into an entry with a stamp of the leader's
//     clock (clock.go), the table decides, and the answer goes back; an acquire
//     that has to wait is answered by the event that ends its wait (wait.go), and
//     streams are told what happens to their sessions (notice.go);
//   - leadership (lead.go): nothing is served before the barrier and the first
//     entry of a term have been applied, and nothing after the term is over;
//   - reads: one round of the voters serves all the reads that wait (read.go), and
//     they are answered once the table has what it covered (readnow.go); what a node
//     says of its table to who only asks waits for nothing (state.go);
//   - snapshots (snapshot.go): how much of the log a start may have to apply again;
//   - the alarm (drift.go): nodes compare the digests of their states, and one that
//     differs from a majority stops;
//   - membership (membership.go): the leader turns gossip into Raft's
//     configuration.
//
// The end of a node (close.go), in this order: the clients that it has given out are
// closed, so that their sessions end and their locks are free while there is somebody
// to tell; with LeaveOnStop it leaves; leadership is handed over; the servers stop,
// and what they cut, clients ask another node again; the sessions of requests without
// one end; reads, rounds and the router answer what they still have; Raft, membership,
// gossip and the connections to others end, and then the stores. Each step has a
// limit, and whatever fails, all are done. A node that ends by itself goes the same
// way, as far as it can.
//
// Goroutines, all joined by Close: join (until Raft runs, and then after the node's
// place), lead, watchLeader, earnVote, snapshots.run, compareStates, the proposer of the
// current term, rounds.run, reads.run, router.run, host.Run, and those of the servers, of
// gossip and of Raft.
// Raft's callbacks only enqueue; observe runs on the goroutine that applies entries.
//
// Invariants: stamps of one term come from one clock; at most one entry is in
// flight; every call that Start has taken is answered once or abandoned.
package node

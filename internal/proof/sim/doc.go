// Package sim runs whole clusters in memory: real nodes, real Raft, real gossip,
// real gRPC and the real Go client, over a network ([simnet]) and disks
// ([simdisk]) with faults, and with clocks that can be skewed. In a
// testing/synctest bubble minutes pass in a fraction of a second.
//
// Objects:
//   - [Cluster] is the nodes and clients, each with a host of its own, and the
//     record of what happened to them. Package locktest wraps it for tests.
//
// What differs from real processes: a paused process has its network stopped, and stops at
// [Cluster.PausePoint]; a paused node stops between the stamp of an entry and its proposal.
// Timers go on. The goroutines of a killed process end a little later; they reach no
// network and no disk any more.
//
// Goroutines: those of nodes and clients, and one for each that is being closed;
// Close waits for all of them.
//
// Files:
//   - cluster.go: a cluster and its options. member.go: one node. process.go: one client.
//     clock.go: their clocks, and pauses.
//   - faults.go: faults of network, disks and clocks. slow.go: a node that applies late.
//     reseed.go: a node that is removed and joins again.
//   - stranger.go: false requests on the Raft port. misleader.go: false gossip.
//   - endedbyitself.go: which nodes ended without being stopped?
//     comparetables.go: do all nodes have the same table? rights.go: who had which rights when?
package sim

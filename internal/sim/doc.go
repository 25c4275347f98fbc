// Package sim runs whole clusters in memory: real nodes, real Raft, real gossip,
// real gRPC and the real Go client, over a network ([simnet]) and disks
// ([simdisk]) that can be broken on purpose, with clocks that can be skewed. In a
// testing/synctest bubble minutes pass in a fraction of a second.
//
// Objects:
//   - [Cluster] is the nodes and clients, each with a host of its own, and the
//     record of what happened to them. Package locktest wraps it for tests.
//
// What is not as in the world: a process that is paused has its network stopped
// and stops where it meets [Cluster.PausePoint], and a node between the stamp of
// an entry and its hand-in; its timers go on. A killed process's goroutines end a
// little later; they reach no network and no disk any more.
//
// Goroutines: those of nodes and clients, and one for each that is being closed;
// Close waits for all of them.
package sim

// Package gossipkeys has the keys that encrypt gossip, and how they get from node to node.
//
// Objects:
//   - [Ring] is the keys that a node has at one time: the first one encrypts, all of them decrypt. It
//     is not changed; a change makes another ring with a greater version.
//   - [Store] is the ring that a node uses. It writes each new ring to a file before it is used.
//   - [Ask] and [Answer] are the two ends of an exchange: each node shows the other one its ring, and
//     both go on with the newer one.
//
// A ring is a register whose newest value wins. Newer is the greater version; of two of the same
// version one that an operator has given, and of two such the one with the greater hash. So any
// two nodes that exchange their rings agree, in whatever order that happens, and a node that was
// away while keys were rotated has them after one exchange.
//
// A node that is given no key makes one up. Such a ring has version 0, as has every ring of a node
// that belongs to no cluster yet, and the rings of a cluster have version 1 at least: so fresh nodes
// agree on one of theirs, and a node that joins takes that of the cluster and cannot replace it.
//
// Invariants:
//   - Keys leave a node only through Ask and Answer, whose connection is in TLS and whose other end
//     has the certificate of a node of this cluster (package node sees to that), and into the file,
//     which its user alone can read. Logs, answers and errors name a key by its [Fingerprint].
//   - The key that encrypts is never removed, and a ring is never empty.
//   - A ring has at most [MaxKeys] keys, and what is read from the network or the disk is bounded and
//     checked before it is used.
//
// The package starts no goroutine.
//
// Files:
//   - ring.go: what is a ring, and which of two is newer? store.go: which one is in use? file.go: how
//     is it written and read? exchange.go: what do two nodes say to each other?
package gossipkeys

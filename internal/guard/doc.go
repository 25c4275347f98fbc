// Package guard does what hashicorp/raft leaves to its user: it stands between
// raft and the disk, and between raft and the network.
//
// Objects:
//   - [Stores] opens a data directory and wraps its log, stable and snapshot
//     stores. Every log entry, the term and the vote carry a checksum; a vote is
//     one record; every write is watched.
//   - [Transport] is a raft.Transport whose heartbeats change raft on its main
//     goroutine only, that never pipelines, that keeps from raft what would end
//     the process or take its memory, and that carries nothing while the disk is
//     stalled or has failed.
//   - [Stream] is the plain TCP layer below it: limits, a preface, hooks for TLS.
//   - [HandOver] gives leadership away without raft's own transfer, which can get stuck.
//   - [Shutdown] and [Stop] end a raft within a deadline.
//
// Invariants:
//   - No entry, term or vote reaches raft whose checksum was not just compared.
//   - A write that failed is reported once and never retried; from then on every
//     write is refused and not one byte leaves through the transport. What raft
//     holds only in memory after that point therefore binds nobody.
//   - Raft panics where it cannot save its term or read a committed entry. On
//     raft's main goroutine the stores end that goroutine instead (see
//     endInsteadOfPanic), so that a failed disk stops the node and not the
//     process it lives in.
//   - A log that ends before the last acknowledged entry is refused. The mark
//     file remembers that entry; mark <= durable log at every moment.
//
// Goroutines: a Stream owns its accept loop and one goroutine per handshake, all
// ended by Close. Stores own none, except that OnFailure is called on its own.
// A Transport owns one that hands requests to raft, one for each damaged snapshot
// that it takes in to throw it away, and those of raft.NetworkTransport; they end
// with Close.
package guard

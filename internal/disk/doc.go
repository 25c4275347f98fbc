// Package disk wraps the stores that Raft uses, and checks what they read and write.
//
// Objects:
//   - [Stores] opens a data directory and wraps its log, stable and snapshot stores. Every
//     log entry, the term and the vote carry a checksum; a vote is one record; every write
//     is watched.
//   - [Identity] says which node and cluster the directory belongs to, and what the node has
//     promised.
//   - [Reseed] sets aside what a node must not use any more.
//
// Invariants:
//   - No entry, term or vote reaches Raft whose checksum was not just compared.
//   - A write that failed is reported once and never retried; from then on every write is
//     refused, and [Stores.Gate] closes the transport. What Raft holds only in memory after
//     that point therefore binds nobody.
//   - Raft panics where it cannot save its term or read a committed entry. On Raft's main
//     goroutine the stores end that goroutine instead (see endInsteadOfPanic), so that a
//     failed disk stops the node and not its process.
//   - A log that ends before the last acknowledged entry is refused. The mark file remembers
//     that entry, the term and the vote; mark <= durable log at every moment.
//
// Goroutines: Stores own none, except that OnFailure is called on its own, and that a leader's
// log has one while it writes. Close waits for its write.
//
// Files:
//   - stores.go opens and closes all of them; files.go opens those of a directory, checks
//     that they fit each other, and says what is missing.
//   - logstore.go is the log that Raft gets. Its entries are in segment files (package
//     raftlog, which checks them and has the mark written), or in raft-boltdb, where
//     checksum.go seals them. boltcheck.go reads a bbolt file before it may be opened.
//   - leaderlog.go lets a leader send entries while it writes them.
//   - stable.go keeps term and vote; snapshots.go the snapshots; identity.go whose they are.
//   - watch.go notices writes that hang or fail; nopanic.go ends Raft's goroutine then;
//     errors.go and system.go say what is wrong, and which errors are the system's.
//   - reseed.go sets a directory aside; modes.go closes files to other users; dir_unix.go and
//     dir_other.go lock and sync directories.
package disk

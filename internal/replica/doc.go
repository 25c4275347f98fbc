// Package replica is one node's copy of the lock table, as hashicorp/raft drives it.
//
// Package fsm defines what a log of commands means and knows no Raft. Here its table
// becomes a [raft.FSM]: entries that Raft has committed are applied to it one after the
// other, it can be read meanwhile, and snapshots of it are written and read.
//
// Files: table.go has all of it.
//
// Goroutines: none. Apply and Restore run on the goroutine of Raft that applies, and so do
// the functions that New and the On methods set; a snapshot is written on another goroutine
// of Raft; View and TryView may be called from any.
package replica

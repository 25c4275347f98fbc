// Package simdisk is the disk of one node in memory, with the faults that disks have: it can
// lose acknowledged writes, hang, be slow, fail, and damage data. It is made for simulations
// in a testing/synctest bubble and replaces files, as a disk.Memory.
//
// Objects:
//   - [Disk] holds the content and the faults; it is kept when the node restarts.
//   - [Disk.Memory] returns the stores for one run of the node. They refuse
//     everything with [ErrCrashed] once [Disk.Crash], [Disk.Wipe] or another
//     Memory has ended that run, so that goroutines of a killed node change nothing any
//     more.
//
// Invariants:
//   - A write is one operation: all of it happens or nothing, and it is
//     acknowledged after it has. One that is not acknowledged may have happened.
//     Operations become durable in the order in which they happened.
//   - Without [Disk.Lie], what is acknowledged is durable.
//   - Arguments and results share no memory with the stored data.
//   - The log has no gaps: first, first+1, …, last.
//
// Goroutines: none. A write that must wait does so in its caller's.
//
// Files: disk.go has a disk and its writes, faults.go its faults, content.go its content;
// log.go, stable.go and snapshots.go are the stores that Raft gets.
package simdisk

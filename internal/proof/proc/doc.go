// Package proc runs whole clusters of real `locknode serve` processes on
// loopback, and kills, pauses and restarts them on request.
//
// The demo, the benchmark and the integration tests need the same things: free
// ports, a directory, nodes that are known to be ready, a way to kill, stop,
// pause, restart and ask each of them, and nothing left behind.
//
// Objects: a [Cluster] owns its directory and its [Node]s; a Node owns at most
// one process at a time. A [Helper] is a process beside them, such as a client.
//
// Goroutines: each running process has one, which starts it, waits for it and
// ends with it. On Linux that goroutine keeps its thread, so that the kernel kills
// the process when this one exits or is killed.
//
// Invariants: a process that was started has been reaped when Kill, Stop,
// Finish or Cluster.Close returns without an error. A Node's ports and directory stay the
// same through all its restarts.
//
// Files:
//   - cluster.go: a cluster as a whole. agree.go: are its nodes in the same state?
//   - node.go: one node: start, kill, pause, ask. helper.go: a process beside the nodes.
//   - process.go: one run of either. die_linux.go, die_other.go: is it killed when this
//     process ends?
//   - ports.go: which ports are free?
package proc

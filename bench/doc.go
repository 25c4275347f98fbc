// Command bench measures Locknode beside what a user would take instead: etcd, Redis and
// Redlock. All of them run on this machine, on loopback, each started with its defaults,
// and all are given the same work by the same loops. It is a module of its own, so
// that users of Locknode depend on none of the others.
//
//	go run . [-rounds 5] [-duration 3s] [-systems all] [-workloads all] [-write]
//
// A round measures every workload with every system, one directly after the other, so that
// noise of the machine hits all of them. Each measurement has a fresh cluster, and
// nothing else runs meanwhile. The table has the median of the rounds; a ratio is the median of the
// ratios within the rounds.
//
// Every answer is checked. A lock that two workers have at once, a try that gets a held
// lock, and a read that says that a held lock is free are wrong answers, with which the
// program exits with 1.
//
// The module needs the other packages of this repository, which go.work says; go.mod does not
// name them, because it could only do so for a published version. The programs that are
// measured are built with GOWORK=off, so that each has the modules of its own go.mod.
//
// Goroutines: measure starts the workers and joins them. Processes belong to a
// cluster and are reaped by its close.
//
// Files:
//   - main.go: flags, and what is done with the result. run.go: rounds, in which order?
//   - workload.go: what is measured, and which answers are wrong? load.go: one measurement.
//   - system.go: what is measured against what, and what is missing here? locknode.go,
//     etcd.go, redis.go, redlock.go: one of them each.
//   - process.go: building programs, processes, ports. cpu.go: how much CPU did they use?
//   - result.go: medians and ratios. table.go: the table for people and for the document.
//   - document.go: what -write changes. plot.go: the plots.
package main

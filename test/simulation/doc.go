// Package simulation runs whole clusters under random faults, in virtual time, and checks
// every history.
//
// Objects:
//   - a [Plan] determines one run: how many nodes, how fast their clocks run, what each
//     client does, and which faults come when. It is a function of a seed and a
//     profile, and can be written to a file, changed and run again;
//   - [Run] executes a plan on a cluster of package internal/proof/sim, and returns an
//     [Outcome]: the history, the result of its checks, and how long the cluster took
//     to recover after each episode of faults;
//   - [Shrink] looks for the smallest plan that still fails.
//
// A plan is reproducible; a run is only if the test binary is built with the overlay
// that test/detsim makes.
//
// Files:
//   - plan.go: what does a run do? run.go: how is it run? faults.go, addresses.go: which
//     faults are there? shrink.go: which parts of a plan are not needed?
//   - worker.go: what can a client do? values.go, delays.go, modes.go, trees.go, masses.go,
//     crowd.go, greedy.go, scripts.go, embedded.go, reads.go, rights.go: one of these each, by its name.
//   - raw.go: how does a worker speak the protocol itself? soon.go: how long may something
//     take?
package simulation

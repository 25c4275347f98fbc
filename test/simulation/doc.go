// Package simulation breaks whole clusters at random, in virtual time, and checks
// every history.
//
// Objects:
//   - a [Plan] says what one run does: how many nodes, how their clocks run, which
//     clients do what, and which faults come when. It is a function of a seed and
//     a profile, and can be written down, changed and run again;
//   - [Run] carries a plan out on a cluster of package internal/proof/sim, and returns
//     an [Outcome]: the history, its judgement, and how long the cluster took to
//     recover after each episode of faults;
//   - [Shrink] looks for the smallest plan that still goes wrong.
//
// A plan is the same each time; a run is not, to the last step, unless the test
// binary is built with the overlay that test/detsim makes.
//
// Files:
//   - plan.go: what does a run do? run.go: how does it go? faults.go, addresses.go: which
//     faults are there? shrink.go: what of a plan is not needed?
//   - worker.go: what can a client do? values.go, delays.go, modes.go, trees.go, masses.go,
//     crowd.go, greedy.go, scripts.go, embedded.go, reads.go: one of these each, by its name.
//   - raw.go: how does a worker speak the protocol itself? soon.go: how long may something
//     take?
package simulation

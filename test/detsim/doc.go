// Command detsim makes tests in virtual time reproducible.
//
// A bubble of testing/synctest has its own clock, but two runs still differ: the
// runtime chooses at random which ready case of a select runs, which of two timers
// of one instant fires first and where the iteration over a map starts, and it
// preempts a goroutine after 10 ms of real time. detsim copies those files of the
// runtime from GOROOT, removes the random choices from the copies, and writes them
// with an overlay for the go command's flag -overlay. Nothing is installed, and
// builds without the overlay are not affected.
//
//	go run ./test/detsim                                   # write, and print the command
//	go run ./test/detsim ./test/detsim -run TestSample -v  # write, and run go test with these arguments
//
// A test is then reproducible if it runs on one processor, without the garbage
// collector, and if its goroutines are in a bubble and wait for nothing outside of
// it except files. All random numbers of the runtime follow from the environment
// variable LOCKNODE_DETSIM_SEED; numbers from crypto/rand do if the test calls
// testing/cryptotest.SetGlobalRandom. A bubble that is not on one processor without
// the collector panics, instead of giving results that cannot be reproduced.
//
// One difference remains: the first bubble of a process uses a few more random
// numbers than later ones, for things that are set up once. So either give each
// seed a process of its own, or run a short bubble first that does not count. With
// GOGC=off memory only grows: call runtime.GC between bubbles, or in a bubble after
// synctest.Wait at fixed virtual times.
//
// The runtime has no interface for this, so each version of Go has to be reviewed: a
// version that is not in known.go is refused, as is a file that is not the released
// one, and an edit whose place is not found exactly once.
//
// Files: main.go writes the overlay and runs go; edits.go: what is changed in the runtime, and
// why? known.go: which versions of Go were reviewed?
package main

// Command detsim makes tests in virtual time repeat themselves.
//
// A bubble of testing/synctest has a clock of its own and still never runs the
// same way twice: the runtime draws which ready case of a select is taken, which
// of two timers of one instant fires first and where the walk over a map begins,
// and it preempts whoever runs for 10 ms of real time. detsim copies those files
// of the runtime from GOROOT, takes that out of the copies, and writes them with
// an overlay for the go command's flag -overlay. Nothing is installed, and what
// is built without the overlay is as it was.
//
//	go run ./test/detsim                                   # write, and print the command
//	go run ./test/detsim ./test/detsim -run TestSample -v  # write, and run go test with these arguments
//
// What then repeats: a test that runs on one processor, without the garbage
// collector, whose goroutines are in a bubble and wait for nothing outside of it
// but files. All numbers that the runtime draws follow from the environment
// variable LOCKNODE_DETSIM_SEED; numbers from crypto/rand do if the test calls
// testing/cryptotest.SetGlobalRandom. A bubble that is started in another way
// than on one processor without collector panics instead of lying.
//
// What does not: the first bubble of a process draws a few numbers more than
// later ones, for what is set up once. So either each seed has a process of its
// own, or a short bubble that does not count runs first. With GOGC=off memory
// only grows: call runtime.GC between bubbles, or in a bubble after
// synctest.Wait at fixed virtual times.
//
// The runtime has no interface for this, so every version of Go is looked at by
// a person: one that is not in known.go is refused, as is a file that is not the
// released one, and an edit whose place is not found exactly once.
//
// Files: main.go writes the overlay and runs go; edits.go: what is changed in the runtime, and
// why? known.go: in which versions of Go has somebody looked at it?
package main

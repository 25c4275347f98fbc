// Command mutants shows that the tests can fail.
//
// It has a list of deliberate bugs, each with the promise that it breaks and the
// test that has to notice it. For each bug it builds that test with an edited
// copy of the source (go test -overlay; the source itself is left alone) and runs
// it: the test must fail, by itself and within a minute of running time. The same
// test without the bug must pass.
//
//	go run ./test/mutants                   # all of them; some minutes
//	go run ./test/mutants -run 'release|dedup' -v
//	go run ./test/mutants -slice 4          # four of them, other ones each day
//	go run ./test/mutants -simulate tight   # what does the simulation find in a minute?
//	go run ./test/mutants -list
//	go run ./test/mutants -markdown         # the table of docs/testing.md
//
// It ends with 1 if a bug survives, and with 2 if something else is wrong: an
// edit whose place is not found exactly once, a bug that does not compile, a test
// that does not exist or does not pass without the bug.
//
// Files:
//   - main.go has the flags; mutant.go: what is a bug? run.go: who has noticed it? report.go:
//     how is that told?
//   - list_fsm.go, list_client.go, list_node.go and list_program.go are the bugs of those
//     packages; list_tables.go those of the tables of kinds and codes; list_levels.go those of
//     feature levels; list_guard.go those
//     of internal/disk and internal/network, list_log.go those of internal/raftlog; list_frames.go who is heard on the Raft port;
//     list_gossip.go, list_strangers.go and list_identity.go who is let in, and as whom.
//   - list_queues.go, list_shares.go, list_memory.go and list_limits.go are those of what
//     one client can take from others, or the system from a node; list_people.go and
//     list_words.go those of what people are shown; list_simulation.go those that the
//     simulation has to find.
package main

// Command mutants shows that the tests can fail.
//
// It has a list of deliberate bugs, each with the promise that it breaks and the
// test that must catch it. For each bug it builds that test with an edited copy
// of the source (go test -overlay; the source itself is not changed) and runs it:
// the test must fail, by itself and within a minute of running time. The same
// test without the bug must pass.
//
//	go run ./test/mutants                   # all of them; some minutes
//	go run ./test/mutants -run 'release|dedup' -v
//	go run ./test/mutants -slice 4          # four of them, different ones each day
//	go run ./test/mutants -simulate tight   # what does the simulation find in a minute?
//	go run ./test/mutants -list
//	go run ./test/mutants -markdown         # the table of docs/testing.md
//	go run ./test/mutants -list -markdown   # the same without running anything, so without times
//
// Its exit code is 1 if a bug survives, and 2 if something else is wrong: an edit
// whose place is not found exactly once, a bug that does not compile, a test that
// does not exist or does not pass without the bug.
//
// Files:
//   - main.go has the flags; mutant.go: what is a bug? run.go: does a test catch it?
//     report.go: how are the outcomes printed?
//   - list_fsm.go, list_client.go, list_node.go and list_program.go have the bugs of those
//     packages; list_tables.go those of the tables of kinds and codes; list_levels.go those of
//     feature levels; list_guard.go those of internal/disk and internal/network, list_log.go
//     those of internal/raftlog; list_frames.go those of the Raft port; list_gossip.go,
//     list_strangers.go and list_identity.go those of admission and identity; list_certs.go those
//     of certificates, list_secure.go those of TLS, list_gossipkeys.go those of the keys of gossip;
//     list_rights_table.go those of rights in fsm, list_rights_node.go at the node,
//     list_rights_client.go in the client and the commands.
//   - list_queues.go, list_shares.go, list_memory.go and list_limits.go have the bugs by which
//     one client can starve others, or the system a node; list_people.go and list_words.go
//     those of what people are shown; list_audit.go those of the audit and of quotas;
//     list_simulation.go those that the simulation must find.
//     A bug goes into the list that says what goes wrong, and into that of its package if
//     there is none; all() in main.go joins the lists.
package main

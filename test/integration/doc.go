// Package integration holds the tests of whole clusters: real `locknode serve`
// processes on loopback, with real disks and sockets, that are killed, stopped,
// paused and cut off while real clients use them.
//
// There is nothing in it to import. TestMain builds the program once, with the
// race detector if the tests have it, and every node, command and lock holder of
// a test is a process of its own. What every test checks besides its own promise,
// when its cluster is taken down: no node has printed a data race or a panic.
//
// Who is who:
//
//   - harness_test.go: clusters, clients and waiting for conditions
//   - program_test.go: the command line; web_test.go: HTTP
//   - holder_test.go: a lock holder in a process of its own, to be killed or paused
//   - proxy_test.go: a TCP proxy that loses answers and stalls;
//     partition_linux_test.go: such proxies between all nodes
//   - disk_test.go, disk_lie_test.go: nodes on disks that are broken, by a program
//     of the module test/fuse that is built for them
//   - upgrade_test.go: a cluster that is rolled to the next version, and back
//   - thousand_test.go: a thousand clients, and what they leave and lose
//   - ledger_test.go: who believed to hold what, from when to when, and whether
//     that contradicts itself; load_test.go: clients that fill it
//
// Tests that break nothing share one cluster, each with locks of its own; all
// others start their own. Waiting is always for a condition, with a deadline that
// is far off; only what a promise puts a figure on is measured against a figure.
package integration

// Package integration holds the tests of whole clusters: real `locknode serve`
// processes on loopback, with real disks and sockets, that are killed, stopped,
// paused and cut off while real clients use them.
//
// It has only tests. TestMain builds the program once, with the race detector if the
// tests have it, and every node, command and lock holder of a test is a process of its
// own. When a test closes its cluster, it also checks that no node has printed a data
// race or a panic.
//
// Helpers:
//
//   - harness_test.go: clusters, clients and waiting for conditions
//   - program_test.go: the command line; web_test.go: HTTP
//   - holder_test.go: a lock holder in a process of its own, which tests kill or pause
//   - proxy_test.go: a TCP proxy that loses answers and stalls;
//     partition_linux_test.go: such proxies between all nodes
//   - disk_test.go, disk_lie_test.go: nodes on disks that are broken, by a program
//     of the module test/fuse that is built for them
//   - upgrade_test.go: a cluster that is upgraded to the next version, and downgraded
//   - thousand_test.go: a thousand clients, which leave no node and lose no lock
//   - ledger_test.go: from when to when each client took a lock to be held, and whether
//     these times contradict each other; load_test.go: clients that fill it
//
// Tests without faults share one cluster, each with locks of its own; all others start
// their own. Tests wait for conditions, with a long deadline; a time is compared with a
// figure only if a promise has that figure.
package integration

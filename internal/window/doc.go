// Package window gives the requests of a session their sequences, and tells the
// cluster which of them have been answered.
//
// The cluster remembers the answer to every request of a session until it is
// told that the answer has arrived. A [Window] says so in two ways, both in the
// request ID of whatever is sent next: up to which sequence everything has been
// answered, and, where an early request waits in line for long, which sequences
// behind it have been. The second is said once for each sequence: what the
// cluster misses of it costs memory there, and nothing else.
//
// Clients keep one for each of their sessions, nodes for the sessions in which
// they send the requests of callers that have none.
//
// How an acquire that was sent under one of these sequences is given up stands here as well:
// clients and nodes do it alike.
//
// Files:
//   - window.go: the sequences, and what is said of them
//   - giveup.go: how an acquire is given up
package window

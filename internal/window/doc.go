// Package window gives the requests of a session their sequences, and reports to the
// cluster which of them have been answered.
//
// The cluster remembers the answer to every request of a session until the client
// reports that it has arrived. A [Window] reports it in two ways, both in the
// request ID of the next request: up to which sequence all have been
// answered, and, while an early request waits in the queue for long, which sequences
// after it have been. The second is sent once for each sequence: if it is lost, the
// cluster keeps these answers longer, and nothing else happens.
//
// A client has one for each of its sessions, a node for the sessions in which
// it sends the requests of callers that have none.
//
// The package also has how an acquire that was sent under such a sequence is given up, because
// clients and nodes do it alike.
//
// Files:
//   - window.go: which sequences are answered, and which of them are reported next?
//   - giveup.go: how is an acquire given up?
package window

// Package mux carries many operations over one Session stream.
//
// A [Call] is one operation under way; a [Conn] is the client side of one
// stream to one node. Clients use it to reach a node, nodes use it to forward to
// the leader.
//
// Every call that is started on a Conn ends in exactly one of three ways: its Done
// gets the answer; it is passed to OnBreak, when the stream ends or the node
// is silent for too long; or, if it cannot be encoded or is too long, its Done gets an
// error and nothing is sent. On the stream a Conn uses ids of its own, so that
// those of callers need not be unique.
//
// A node forwards for many clients, so the owners of queued calls take turns.
//
// Pings and keep-alives are sent before other operations, and only pings decide whether the
// node is there: an operation may take any time. How long a node may be silent is its
// [Patience], which outlives a Conn.
//
// A Conn owns two goroutines. The sender takes all that is queued, packs it into
// messages and blocks when the node does not read; the receiver gives answers to
// their calls and, at the end, waits for the sender and hands over the rest. A
// timer that runs only while something is pending watches for silence. Callbacks
// are made by the receiver (refusals by the sender, calls that are started after
// the end by a goroutine that ends with the hand-over) and without a lock held.
//
// Files:
//   - call.go: one operation. class.go: which bound does it count against?
//   - conn.go: how does a stream begin and end? send.go: what is sent next? receive.go: which
//     call is an answer for?
//   - silence.go: is the node still there? patience.go: how long may it be silent?
package mux

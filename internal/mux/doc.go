// Package mux carries many operations over one Session stream.
//
// A [Call] is one operation under way; a [Conn] is the client side of one
// stream to one node. Clients use it to reach a node, nodes use it to forward to
// the leader.
//
// Every call that a Conn was given ends in exactly one of three ways: its Done
// gets the answer; it is handed to OnBreak, when the stream ends or the node
// falls silent; or, if it cannot be encoded or is too long, its Done gets an
// error and nothing is sent. On the stream a Conn uses ids of its own, so that
// callers need not agree on theirs.
//
// Pings and keep-alives go ahead of other operations, and a ping is all that decides
// whether the node is there: an operation may take as long as it takes. How long a node
// may be silent is its [Patience], which outlives a Conn.
//
// A Conn owns two goroutines. The sender takes all that is queued, packs it into
// messages and blocks when the node does not read; the receiver gives answers to
// their calls and, at the end, waits for the sender and hands over the rest. A
// timer that runs only while something is pending watches for silence. Callbacks
// are made by the receiver (refusals by the sender, calls that are started after
// the end by a goroutine that ends with the hand-over) and without a lock held.
package mux

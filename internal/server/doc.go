// Package server is how the outside reaches a node: gRPC (unary calls, batches,
// Session streams, what nodes ask each other, health, reflection) on one port
// and HTTP with JSON on another.
//
// Every request for the lock table becomes an [apiv1.Operation] and takes one
// road, [Backend.Start]; the server neither knows who leads nor what a lock is.
// When nobody gets the answer of an operation, because its caller has gone away, the
// server is stopping or the answer could not be sent, it abandons the call: the node
// then gives up an acquire without a session, so that nobody stands in line, or holds a
// lock, for a ghost. The end of a Session stream abandons its calls, too; to those in a
// session that means nothing: their client sends the same request IDs again on another
// stream.
//
// Nothing that a client does, or does not do, grows without bound: connections
// per address and in all, streams per connection, operations in flight and
// unsent answers per stream, message and body sizes. What frees a lock, or keeps
// something alive, is not refused because of acquires that wait: those are counted
// apart everywhere. docs/operations.md has the table. A stream that does not read
// its answers is cut with its connection; an answer that nobody fetches costs
// memory only until then.
//
// A Session stream has two goroutines: grpc's, which sends, and a receiver,
// which ends with the stream and is joined in [Server.Close]. Operations have
// none: answers are appended to the stream's queue by whoever brings them. A
// unary or HTTP request has the goroutine that grpc or net/http gave it.
package server

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
// its answers is cut with its connection; one that asks for more than it is answered, or
// is refused, is not read for a moment (brake.go); an answer that nobody fetches costs
// memory only until then.
//
// In bytes there are budgets for all connections of a port together (budget.go): for
// requests that have not arrived whole, which frames.go follows on a gRPC connection, for
// long operations under way, and for answers until the system has taken them, which
// codec.go follows into grpc. Where a budget is used up reads are refused, and who does
// not read, or does not finish what it began, is cut. Where places for connections are
// used up those on which nothing is asked make room (useof.go).
//
// A Session stream has two goroutines: grpc's, which sends, and a receiver,
// which ends with the stream and is joined in [Server.Close]. Operations have
// none: answers are appended to the stream's queue by whoever brings them. A
// unary or HTTP request has the goroutine that grpc or net/http gave it.
//
// Files:
//   - server.go makes the servers, config.go says what they need; listen.go limits
//     connections, useof.go says which one makes room; wrongport.go answers HTTP/1 on the gRPC
//     port.
//   - stream.go is a Session stream and what it receives, send.go what it sends; unary.go are
//     the unary calls; operation.go tells operations apart; operator.go are the calls of an
//     operator.
//   - http.go routes HTTP, http_operator.go does what an operator asks; body.go reads JSON,
//     view.go has the JSON documents, jsonwriter.go writes long ones; hosts.go refuses
//     browsers that were led here.
//   - brake.go, budget.go, hold.go, frames.go, codec.go and waits.go bound what clients take:
//     as above, hold.go for one connection, waits.go for acquires that wait.
//   - health.go says whether the node is ready; directory.go tells streams where the members
//     are; meant.go refuses calls for another node; observer.go counts.
package server

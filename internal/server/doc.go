// Package server serves a node to clients and to other nodes: gRPC (unary calls, batches,
// Session streams, what nodes ask each other, health, reflection) on one port, and HTTP
// with JSON on another.
//
// Every request for the lock table becomes an [apiv1.Operation] and takes one path,
// [Backend.Start]; the server knows neither who leads nor what a lock is. When nobody gets
// the answer of an operation, because its caller has gone away, the server is stopping or
// the answer could not be sent, the server abandons the call. The node then gives up an
// acquire without a session: a caller that has gone away neither waits nor holds a lock.
// The end of a Session stream abandons its calls as well. For calls in a session that
// changes nothing: their client sends the same request IDs again on another stream.
//
// What clients take is bounded: connections per address and in all, streams per
// connection, operations in flight and unsent answers per stream, message and body sizes.
// docs/operations.md has the table. What frees a lock, or keeps something alive, is not
// refused because of acquires that wait: those are counted apart everywhere. A stream that
// does not read its answers is cut with its connection, which frees their memory. A stream
// that has too many operations unanswered, or whose operations are refused, is not read
// for a moment (brake.go).
//
// Bytes have budgets, which all connections of a port share (budget.go): for requests that
// have not arrived whole, which frames.go follows on a gRPC connection; for long operations
// under way; and for answers until the system has taken them, which codec.go follows into
// grpc. Where a budget is used up, reads are refused, and a client that does not read, or
// does not finish what it began, is cut. Where the places for connections are used up,
// connections on which nothing is requested make room (useof.go).
//
// A Session stream has two goroutines: grpc's, which sends, and a receiver, which ends with
// the stream and is joined in [Server.Close]. Operations have none: the goroutine that
// brings an answer appends it to the stream's queue. A unary or HTTP request has the
// goroutine that grpc or net/http gave it.
//
// Who calls, and may he? auth.go takes what a caller shows, and permit.go checks each operation
// and call where it enters, by the policies that the node gives it; event.go is where everything
// passes that was refused, or done with the right force or admin. Operations of other nodes are
// checked already, and name their owners.
//
// Files:
//   - server.go: how are the servers made and closed? config.go: what do they need?
//     listen.go: which connections are accepted? useof.go: which one makes room?
//     wrongport.go: what does an HTTP/1 client get on the gRPC port? identity.go: who has
//     sent a request, and may a node make it? auth.go: who calls? permit.go: may he do that?
//     failures.go: what does guessing cost? event.go: what was refused, or done with a right?
//   - stream.go: what does a Session stream receive? send.go: what does it send? unary.go:
//     the unary calls. operation.go: how is one operation run? operator.go and
//     operator_nodes.go: the calls of an operator. operator_rights.go: those about access
//     tokens and policies.
//   - http.go: which paths does HTTP have? http_operator.go: those of an operator.
//     http_rights.go: those about access tokens and policies. body.go:
//     how is JSON read? view.go: how are the JSON documents filled? jsonwriter.go: how are
//     long ones written? hosts.go: which browsers are refused?
//   - brake.go, budget.go, hold.go, frames.go, codec.go and waits.go: how much may clients
//     take? As above; hold.go counts the operations and answers of one connection, also of
//     HTTP, waits.go the acquires that wait.
//   - health.go: is the node ready? directory.go: how do streams learn where the members
//     are? meant.go: which calls are for another node? observer.go: what is counted?
//     audited.go: what is recorded in the audit, and who has done it? quota.go: what may one
//     caller have?
package server

// Package proxy puts a network that can be broken between processes of one
// machine, without privileges.
//
// Objects:
//   - [Links] are the rules: what happens to what one sends to another;
//   - a [Proxy] stands before one TCP address and obeys them;
//   - a [Mesh] puts proxies before all addresses of several processes and tells
//     which of them has dialled.
//
// A way that is cut stands still, as in a network: nothing is reset, and what was
// sent arrives when the way is open again. What is lost was never there, so a
// connection that has lost something is reset before anything else goes through.
//
// This is our own because existing proxies, toxiproxy among them, break what goes
// through a listener, whoever dialled: they can neither cut one direction between
// two of several processes nor tell which process has dialled. Here every node is
// reached at one address by all others, as in a real cluster, and the proxy finds
// the dialling process in /proc. That is the part that needs Linux.
//
// Goroutines: a Proxy has one that accepts and four for each connection, a Mesh one
// more for each UDP address. Close joins them.
package proxy

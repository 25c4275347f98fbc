// Package proxy puts a network that can be broken between processes of one
// machine, without privileges.
//
// Objects:
//   - [Links] has the rules: what happens to the bytes from one process to another;
//   - a [Proxy] is in front of one TCP address and applies the rules;
//   - a [Mesh] puts proxies in front of all addresses of several processes, and finds which
//     of them has dialled.
//
// A direction that is cut stalls, as in a network: nothing is reset, and what was sent
// arrives after the cut. Lost bytes do not arrive later, so a connection that has lost some is
// reset before anything else goes through.
//
// Existing proxies, toxiproxy among them, affect all diallers of a listener: they can neither
// cut one direction between two of several processes nor find out which process has dialled.
// Here every node has one address for all others, as in a real cluster, and the proxy finds
// the dialling process in /proc, which needs Linux.
//
// Goroutines: a Proxy has one that accepts and four for each connection, a Mesh one
// more for each UDP address. Close joins them.
//
// Files: links.go has the rules; proxy.go is a proxy, mesh.go all of them; dialler_linux.go
// finds out who has dialled, dialler_other.go cannot.
package proxy

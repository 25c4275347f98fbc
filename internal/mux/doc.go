// Package mux carries many operations over one Session stream.
//
// A [Call] is one operation under way; a [Conn] is the client side of one
// stream to one node. Clients use it to reach a node, nodes use it to forward to
// the leader. A Conn owns two goroutines, one that sends and one that receives;
// both end when the stream does.
package mux

package node

import (
	"context"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/server"
)

// wire is a node as its server, other nodes and its own clients call it, in the messages of
// the protocol. Its methods are in the files of what they do. Programs use those of [Node]
// and of [client.Client].
type wire struct{ *Node }

var (
	_ server.Backend = wire{}
	_ embedded.Node  = wire{}
)

// unended is a node whose Done is never closed, so that a client of it also calls a node
// that has ended.
type unended struct{ wire }

// Done is part of embedded.Node.
func (unended) Done() <-chan struct{} { return nil }

// Status describes this node as it sees itself, and its table as of the last entry applied.
// It asks no other node and never waits, not even for the entry that is being applied. It
// may be called at any time: after Close the status is not ready.
func (n *Node) Status() client.Status {
	s, err := n.self.Status(context.Background())
	if err != nil {
		panic("a node's own status: " + err.Error()) // it is made from memory
	}
	return s
}

// Members returns the members of Raft's configuration as this node knows it, and the other
// peers that gossip sees, sorted by ID. It asks no other node and never waits. While the node
// belongs to no cluster yet, it returns an error that is [client.ErrUnavailable] and says
// what the node is waiting for.
func (n *Node) Members() ([]client.Member, error) {
	return n.self.Members(context.Background())
}

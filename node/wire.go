package node

import (
	"context"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/server"
)

// wire is a node as its server, the other nodes and its own clients ask it, in the messages
// of the protocol. These methods are in the files of what they do; programs have those of
// [Node] and of [client.Client].
type wire struct{ *Node }

var (
	_ server.Backend = wire{}
	_ embedded.Node  = wire{}
)

// unended is a node that never ends, so that a client of it asks even a node that has.
type unended struct{ wire }

// Done is part of embedded.Node.
func (unended) Done() <-chan struct{} { return nil }

// Status describes this node as it sees itself, its table as of the last entry applied.
// It asks nobody and never waits, not for the entry that is being applied either. It may
// be called at any time, also after Close, which shows as not ready.
func (n *Node) Status() client.Status {
	s, err := n.self.Status(context.Background())
	if err != nil {
		panic("a node's own status: " + err.Error()) // it is made from memory
	}
	return s
}

// Members lists Raft's configuration as this node knows it, and whom else gossip sees, by
// node ID. It asks nobody and never waits. It returns [client.ErrUnavailable], which says
// what the node waits for, while the node belongs to no cluster yet.
func (n *Node) Members() ([]client.Member, error) {
	return n.self.Members(context.Background())
}

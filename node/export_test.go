package node

import "github.com/locknode/locknode/internal/embedded"

// Wire is a node as its own clients ask it.
func Wire(n *Node) embedded.Node { return wire{n} }

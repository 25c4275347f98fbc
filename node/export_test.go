package node

import "github.com/locknode/locknode/internal/embedded"

// Wire returns a node as its own clients call it.
func Wire(n *Node) embedded.Node { return wire{n} }

package node

import (
	"cmp"

	"github.com/locknode/locknode/internal/rights"
	"github.com/locknode/locknode/internal/server"
)

// What may one caller have of this node? The policies that are for an identity say so, as far as
// they do, and else the node's own quotas.

// quotas returns what the server asks for each caller; nil: nobody has quotas.
func (n *Node) quotas() func(owner string) server.Quota {
	q := n.cfg.Quota
	if q == (Quota{}) && n.cfg.Auth.mode() == "off" {
		return nil
	}
	all := server.Quota{Connections: q.Connections, Streams: q.Streams, OpsPerSecond: q.OpsPerSecond, UnsentBytes: q.UnsentBytes}
	return func(owner string) server.Quota {
		id := rights.Identity(owner)
		if !id.Owns() { // an address
			id = rights.Anonymous
		}
		book := n.rights.current()
		if n.cfg.Auth.mode() == "off" || book == nil {
			return all
		}
		own := book.Subject(id).Quota()
		return server.Quota{
			Connections: cmp.Or(own.Connections, all.Connections), Streams: cmp.Or(own.Streams, all.Streams),
			OpsPerSecond: cmp.Or(own.OpsPerSecond, all.OpsPerSecond), UnsentBytes: cmp.Or(own.UnsentBytes, all.UnsentBytes),
		}
	}
}

package node

import (
	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/membership"
)

// directory returns where the members of the configuration are reached, as far as this node
// knows; nil while it belongs to no cluster.
func (n *Node) directory() *apiv1.Directory {
	r := n.raft.Load()
	cluster := n.clusterID()
	if r == nil || cluster == "" {
		return nil
	}
	// The index first: what is read after it is no older.
	d := &apiv1.Directory{ClusterId: cluster, Index: n.state.Load().DigestIndex}
	for _, s := range membership.Servers(r) {
		d.Members = append(d.Members, &apiv1.Place{Id: string(s.ID), ApiAddress: n.apiOf(string(s.ID))})
	}
	return d
}

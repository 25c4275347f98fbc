package node

import (
	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/peerapi"
)

// unavailable returns the error of a call that needs a leader while none is known.
func (n *Node) unavailable() *apiv1.Error {
	reason := "no leader is known; are most of the nodes up?"
	if n.raft.Load() == nil {
		reason = n.formation()
	}
	return apiv1.NewError(apiv1.CodeUnavailable, "node %q: %s", n.id, reason)
}

// leaderAPI returns the API address of the leader, empty if it is not known.
func (n *Node) leaderAPI() string { return n.leaderPlace().api }

// leaderPlace returns the leader and its address; both are empty if there is no leader, and
// the address is empty if it is not known.
func (n *Node) leaderPlace() place {
	r := n.raft.Load()
	if r == nil {
		return place{}
	}
	_, id := r.LeaderWithID()
	if id == "" {
		return place{}
	}
	return place{string(id), n.apiOf(string(id))}
}

// apiOf returns the API address to dial for a node, empty if none is known.
func (n *Node) apiOf(id string) string {
	if id == n.id {
		return n.apiAddr
	}
	return n.peers.find(id).api
}

func (n *Node) leaderPeer() (peerapi.PeersClient, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, n.unavailable()
	}
	_, id := r.LeaderWithID()
	if id == "" || string(id) == n.id {
		return nil, n.unavailable()
	}
	return n.peers.peer(string(id))
}

func (n *Node) leaderLocks() (apiv1.LocksClient, error) {
	at := n.leaderPlace()
	if at.api == "" || at.id == n.id {
		return nil, n.unavailable()
	}
	cc, err := n.peers.conn(at.id, at.api)
	if err != nil {
		return nil, n.unavailable()
	}
	return apiv1.NewLocksClient(cc), nil
}

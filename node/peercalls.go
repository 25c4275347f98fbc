package node

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
)

// Term answers a peer's read round.
func (n wire) Term(context.Context) (*peerapi.TermResponse, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, n.unavailable()
	}
	return &peerapi.TermResponse{Term: r.CurrentTerm(), NodeId: n.id}, nil
}

// ReadIndex runs a read round for a follower.
func (n wire) ReadIndex(ctx context.Context) (*peerapi.ReadIndexResponse, error) {
	if n.epoch.Load() == nil {
		return nil, n.notLeader()
	}
	type end struct {
		index uint64
		err   error
	}
	ends := make(chan end, 1)
	n.rounds.join(func(index uint64, err error) { ends <- end{index, err} })
	select {
	case e := <-ends:
		if e.err != nil {
			return nil, apiv1.NewError(apiv1.CodeUnavailable, "read index: %v", e.err)
		}
		votes := n.membership.Electorate()
		return &peerapi.ReadIndexResponse{Index: e.index, Voters: votes.Voters, Silent: votes.Silent}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Self describes this node for other nodes. It asks no other node and never waits.
func (n wire) Self(context.Context) (*peerapi.SelfResponse, error) {
	res := n.membership.Self()
	if r := n.raft.Load(); r != nil {
		_, leader := r.LeaderWithID()
		res.Term, res.LeaderId = r.CurrentTerm(), string(leader)
		res.LastIndex = max(network.Committed(r, n.stores), n.state.Load().DigestIndex)
		res.VotesFrom = n.stores.Identity().VotesFrom
	}
	return res, nil
}

// Join adds a fresh node to the configuration, or forwards its request to the leader.
func (n wire) Join(ctx context.Context, req *peerapi.JoinRequest) (*peerapi.JoinResponse, error) {
	if n.raft.Load() == nil {
		return nil, n.unavailable()
	}
	if n.epoch.Load() == nil {
		peer, err := n.leaderPeer()
		if err != nil {
			return nil, n.unavailable()
		}
		return peer.Join(ctx, req)
	}
	return n.membership.Join(ctx, req)
}

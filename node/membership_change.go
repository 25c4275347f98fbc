package node

import (
	"context"
	"net"
	"strconv"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// membershipRemoveHint is the command that frees a name or an address.
const membershipRemoveHint = "locknode members remove"

// join admits a fresh node as a nonvoter. It may be asked again after any
// failure: a nonvoter may join as often as it likes, also with an empty disk,
// for nobody counts on what it remembers. A voter may not: one that comes back
// with an empty disk would vote again in terms in which it has voted.
//
// Codes: invalid and denied are final until someone changes something; all
// others may be tried again.
func (m *membership) join(ctx context.Context, req *apiv1.JoinRequest) (*apiv1.JoinResponse, error) {
	if err := membershipCheckJoin(req); err != nil {
		return nil, err
	}
	own := m.cfg.clusterID()
	switch {
	case own == "":
		return nil, apiv1.NewError(apiv1.CodeNotReady, "join of node %q: the cluster has no ID yet", req.GetNodeId())
	case req.GetClusterId() != "" && req.GetClusterId() != own:
		return nil, apiv1.NewError(apiv1.CodeDenied, "join of node %q: it asks for cluster %q, this is %q", req.GetNodeId(), req.GetClusterId(), own)
	}
	id, addr := raft.ServerID(req.GetNodeId()), raft.ServerAddress(req.GetRaftAddress())
	err := m.alterFor(ctx, "join of node "+req.GetNodeId(), func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		if err := m.mayJoin(req, servers); err != nil {
			return nil, err
		}
		if s, ok := membershipFind(servers, req.GetNodeId()); ok && s.Address == addr {
			return nil, nil // a repeated request
		}
		m.cfg.log.Info("node joins the cluster", "peer", id, "raft", addr, "version", req.GetVersion())
		return r.AddNonvoter(id, addr, 0, m.times.change), nil
	})
	if err != nil {
		return nil, err
	}
	res := &apiv1.JoinResponse{ClusterId: own}
	if r := m.cfg.raft(); r != nil {
		res.Index = r.CommitIndex() // it is in the configuration by then
	}
	return res, nil
}

// membershipCheckJoin looks at the request alone.
func membershipCheckJoin(req *apiv1.JoinRequest) error {
	if n := len(req.GetNodeId()); n == 0 || n > 128 {
		return apiv1.NewError(apiv1.CodeInvalid, "node_id has %d bytes: 1 to 128 are allowed", n)
	}
	host, port, err := net.SplitHostPort(req.GetRaftAddress())
	if err == nil {
		var n int
		if n, err = strconv.Atoi(port); n < 1 || n > 65535 || host == "" || len(host) > 253 {
			return apiv1.NewError(apiv1.CodeInvalid, "raft_address %q: host:port is needed", req.GetRaftAddress())
		}
	}
	if err != nil {
		return apiv1.NewError(apiv1.CodeInvalid, "raft_address %q: host:port is needed", req.GetRaftAddress())
	}
	return nil
}

// mayJoin looks at the request beside the configuration.
func (m *membership) mayJoin(req *apiv1.JoinRequest, servers []raft.Server) error {
	id, addr := req.GetNodeId(), req.GetRaftAddress()
	if s, ok := membershipFind(servers, id); ok && s.Suffrage != raft.Nonvoter {
		return apiv1.NewError(apiv1.CodeDenied, "join of node %q: a voter of this ID exists, and one that lost its data must not vote again; "+
			"if that is what happened, run \"%s %s\" and start the node again", id, membershipRemoveHint, id)
	}
	if owner, ok := membershipOwner(servers, addr, id); ok {
		return apiv1.NewError(apiv1.CodeDenied, "join of node %q: its Raft address %s belongs to member %q; "+
			"if that member is gone for good, run \"%s %s\" and start the node again", id, addr, owner, membershipRemoveHint, owner)
	}
	for _, p := range m.cfg.gossip.Peers() {
		if p.State == cluster.Alive && p.Raft == addr && p.NodeID != id {
			return apiv1.NewError(apiv1.CodeNotReady, "join of node %q: node %q says that its Raft address is %s, too", id, p.NodeID, addr)
		}
	}
	return nil
}

// removeMember takes a member out of the configuration for good. It is refused
// where the voters that remain and are alive would be no majority.
func (m *membership) removeMember(ctx context.Context, id string) error {
	return m.alterFor(ctx, "remove member "+id, func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		if _, ok := membershipFind(servers, id); !ok {
			return nil, apiv1.NewError(apiv1.CodeNoMember, "remove member %q: no such member", id)
		}
		if alive, voters := m.without(servers, id); !membershipMajority(alive, voters) {
			return nil, apiv1.NewError(apiv1.CodeDenied, "remove member %q: of the %d voters that would remain only %d are alive, which is no majority", id, voters, alive)
		}
		m.cfg.log.Info("member removed", "peer", id)
		return r.RemoveServer(raft.ServerID(id), 0, m.times.change), nil
	})
}

// without counts the voters that remain without id, and those of them that are
// alive as gossip sees it.
func (m *membership) without(servers []raft.Server, id string) (alive, voters int) {
	up := map[string]bool{m.cfg.id: true}
	for _, p := range m.cfg.gossip.Peers() {
		up[p.NodeID] = p.State == cluster.Alive
	}
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == id {
			continue
		}
		voters++
		if up[string(s.ID)] {
			alive++
		}
	}
	return alive, voters
}

// canDoWithout reports whether a majority of the voters that would remain without a
// member is alive.
func (m *membership) canDoWithout(id string) bool {
	r := m.cfg.raft()
	return r != nil && membershipMajority(m.without(membershipServers(r), id))
}

func membershipMajority(alive, voters int) bool { return voters > 0 && alive > voters/2 }

// followAddresses writes changed addresses into the configuration, one change
// after the other.
func (m *membership) followAddresses(ctx context.Context) {
	now := map[string]string{m.cfg.id: m.cfg.gossip.Meta().Raft}
	own := m.cfg.clusterID()
	for _, p := range m.cfg.gossip.Peers() {
		if p.State == cluster.Alive && p.Formed && own != "" && p.ClusterID == own {
			now[p.NodeID] = p.Raft
		}
	}
	r := m.cfg.raft()
	if r == nil {
		return
	}
	for _, s := range membershipServers(r) {
		id := string(s.ID)
		if addr := now[id]; addr != "" && addr != string(s.Address) && ctx.Err() == nil {
			if err := m.move(ctx, id, addr); err != nil && ctx.Err() == nil {
				m.warnOnce("move "+id, "address change of a member not followed", "peer", id, "raft", addr, "err", err)
			} else {
				m.warnAgain("move " + id)
			}
		}
	}
}

// move changes the address of a member and nothing else of it.
func (m *membership) move(ctx context.Context, id, addr string) error {
	return m.alter(ctx, func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := membershipFind(servers, id)
		if !ok || string(s.Address) == addr {
			return nil, nil
		}
		if owner, taken := membershipOwner(servers, addr, id); taken {
			return nil, apiv1.NewError(apiv1.CodeDenied, "the address belongs to member %q: addresses are not swapped between members; "+
				"give the nodes their own addresses back, or remove one of them with \"%s\"", owner, membershipRemoveHint)
		}
		m.cfg.log.Info("member has a new address", "peer", id, "raft", addr, "before", s.Address)
		// For a member this changes the address only, and never gives a vote.
		return r.AddNonvoter(s.ID, raft.ServerAddress(addr), 0, m.times.change), nil
	})
}

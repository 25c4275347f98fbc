package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// membershipStart says how a node without state begins.
type membershipStart struct {
	// bootstrap is Raft's first configuration, the same on all founders. Empty:
	// the node was admitted by a leader and starts with no configuration.
	bootstrap []raft.Server
	// clusterID is that of the cluster that was joined, empty after formation.
	clusterID string
}

// formOrJoin gets a node without Raft state into a cluster: it forms one with
// others (see package cluster for the rule) or asks one to be taken in. It waits
// as long as that takes, and tells cfg.waiting what for.
//
// It returns an error if ctx ends, if the promise cannot be written, or if the
// cluster refuses the node for good; nothing but the promise has happened then.
// It is called once, before Raft runs. The caller records that the node has
// state and calls announce before it starts Raft.
func (m *membership) formOrJoin(ctx context.Context) (membershipStart, error) {
	promised := m.cfg.promised
	backoff := m.times.retryMin
	for {
		changes := m.cfg.gossip.Changes()
		d := m.decide(promised)
		if err := m.advertise(d.Intent, cluster.Hash(promised)); err != nil {
			return membershipStart{}, fmt.Errorf("form a cluster: %w", err)
		}
		m.tellWaiting(d)
		switch d.Action {
		case cluster.Promise:
			if err := m.cfg.keepPromise(d.Founders); err != nil {
				return membershipStart{}, fmt.Errorf("form a cluster: keep the promise: %w", err)
			}
			promised = d.Founders
			continue
		case cluster.Bootstrap:
			return membershipStart{bootstrap: membershipVoters(d.Founders)}, nil
		case cluster.Join:
			id, err := m.askToJoin(ctx, d.Through)
			if err == nil {
				return membershipStart{clusterID: id}, nil
			}
			if membershipFinal(err) {
				return membershipStart{}, fmt.Errorf("join the cluster: %w", err)
			}
			m.cfg.waiting("the cluster has not taken this node in yet: " + err.Error())
			m.warnOnce("join", "not taken in by the cluster yet; asking again", "err", err)
		}
		wait := time.Duration(0) // for a change of gossip
		if d.Action == cluster.Join {
			wait = backoff/2 + rand.N(backoff)
			backoff = min(2*backoff, m.times.retryMax)
		}
		if err := membershipPause(ctx, wait, changes); err != nil {
			return membershipStart{}, fmt.Errorf("form or join a cluster: %w", err)
		}
	}
}

// membershipPause waits for d, or for a change if d is zero.
func membershipPause(ctx context.Context, d time.Duration, changes <-chan struct{}) error {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer, changes = t.C, nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer:
	case <-changes:
	}
	return nil
}

func (m *membership) decide(promised []cluster.Founder) cluster.Decision {
	self := cluster.Candidate{Meta: m.cfg.gossip.Meta(), Promised: promised, Settled: m.cfg.gossip.Settled()}
	if other := m.cfg.gossip.Conflict(); other != "" {
		return cluster.Decision{Action: cluster.Wait, Intent: self.Intent,
			Reason: fmt.Sprintf("node ID %q is in use at %s", m.cfg.id, other)}
	}
	return cluster.Agree(self, m.cfg.gossip.Peers())
}

func (m *membership) advertise(intent, promise string) error {
	meta := m.cfg.gossip.Meta()
	meta.Intent, meta.Promise = intent, promise
	return m.cfg.gossip.SetMeta(meta)
}

func (m *membership) tellWaiting(d cluster.Decision) {
	m.cfg.waiting(d.Reason)
	m.mu.Lock()
	same := m.said["form"] == d.Reason
	m.said["form"] = d.Reason
	m.mu.Unlock()
	if !same {
		m.cfg.log.Info("not in a cluster yet", "next", d.Action.String(), "reason", d.Reason)
	}
}

// askToJoin asks the peers in random order; each passes the request on to its
// leader. The first refusal that is final counts, otherwise the last error.
func (m *membership) askToJoin(ctx context.Context, through []cluster.Peer) (clusterID string, err error) {
	meta := m.cfg.gossip.Meta()
	for _, i := range rand.Perm(len(through)) {
		p := through[i]
		req := &apiv1.JoinRequest{
			NodeId: meta.NodeID, RaftAddress: meta.Raft, ClusterId: p.ClusterID,
			Nonvoter: meta.Nonvoter, Version: meta.Version,
		}
		var res *apiv1.JoinResponse
		if res, err = m.callJoin(ctx, p.API, req); err == nil {
			m.cfg.log.Info("taken in by the cluster", "cluster", res.GetClusterId(), "through", p.NodeID)
			return res.GetClusterId(), nil
		}
		if membershipFinal(err) || ctx.Err() != nil {
			return "", err
		}
	}
	return "", err
}

func (m *membership) callJoin(ctx context.Context, api string, req *apiv1.JoinRequest) (*apiv1.JoinResponse, error) {
	cc, err := m.cfg.conn(api)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	return apiv1.NewPeersClient(cc).Join(ctx, req)
}

// membershipFinal tells refusals that stay until someone acts from weather.
func membershipFinal(err error) bool {
	switch apiv1.CodeOf(err) {
	case apiv1.CodeDenied, apiv1.CodeInvalid, apiv1.CodeMalformed, apiv1.CodeUnknownCommand:
		return true
	}
	return false
}

func membershipVoters(founders []cluster.Founder) []raft.Server {
	servers := make([]raft.Server, 0, len(founders))
	for _, f := range founders {
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(f.NodeID), Address: raft.ServerAddress(f.Raft)})
	}
	return servers
}

package node

import (
	"context"
	"fmt"
	"log/slog"
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
	// votesFrom is where the log must be before the node votes.
	votesFrom uint64
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
	var said membershipSaid
	for {
		changes := m.cfg.gossip.Changes()
		d := m.decide(promised)
		if err := m.advertise(d.Intent, cluster.Hash(promised)); err != nil {
			return membershipStart{}, fmt.Errorf("form a cluster: %w", err)
		}
		m.cfg.waiting(d.Reason)
		said.tell(m.cfg.log, d)
		switch d.Action {
		case cluster.Promise:
			if err := m.cfg.keepPromise(d.Founders); err != nil {
				return membershipStart{}, fmt.Errorf("form a cluster: keep the promise: %w", err)
			}
			promised = d.Founders
			m.cfg.log.Info("promised to form a cluster", "founders", promised)
			continue
		case cluster.Bootstrap:
			return membershipStart{bootstrap: membershipVoters(d.Founders)}, nil
		case cluster.Join:
			res, err := m.askToJoin(ctx, d.Through)
			if err == nil {
				return membershipStart{clusterID: res.GetClusterId(), votesFrom: res.GetIndex()}, nil
			}
			if membershipFinal(err) {
				return membershipStart{}, fmt.Errorf("join the cluster: %w", err)
			}
			m.cfg.waiting("not taken in by the cluster yet: " + err.Error())
			m.warnOnce("join", "not taken in by the cluster yet; asking again", "err", err)
		}
		wait := membershipSayAfter // or until gossip changes
		if d.Action == cluster.Join {
			wait, changes = backoff/2+rand.N(backoff), nil
			backoff = min(2*backoff, m.times.retryMax)
		}
		if err := membershipPause(ctx, wait, changes); err != nil {
			return membershipStart{}, fmt.Errorf("form or join a cluster: %w", err)
		}
	}
}

// membershipPause waits for d or for a change.
func membershipPause(ctx context.Context, d time.Duration, changes <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
	case <-changes:
	}
	return nil
}

// membershipSayAfter is for how long a node waits for one thing before it logs
// what that is: while nodes find each other, what is missing changes every few
// milliseconds.
const membershipSayAfter = 2 * time.Second

// membershipSaid remembers what a node waits for, since when, and whether that
// has been logged.
type membershipSaid struct {
	reason string
	since  time.Time
	logged bool
}

func (s *membershipSaid) tell(log *slog.Logger, d cluster.Decision) {
	if s.reason != d.Reason {
		*s = membershipSaid{reason: d.Reason, since: time.Now()}
		log.Debug("not in a cluster yet", "next", d.Action.String(), "reason", d.Reason)
	}
	if d.Action == cluster.Wait && !s.logged && time.Since(s.since) >= membershipSayAfter {
		s.logged = true
		log.Info("waiting to form or join a cluster", "reason", d.Reason)
	}
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

// askToJoin asks the peers in random order; each passes the request on to its
// leader. The first refusal that is final counts, otherwise the last error.
func (m *membership) askToJoin(ctx context.Context, through []cluster.Peer) (res *apiv1.JoinResponse, err error) {
	meta := m.cfg.gossip.Meta()
	for _, i := range rand.Perm(len(through)) {
		p := through[i]
		req := &apiv1.JoinRequest{
			NodeId: meta.NodeID, RaftAddress: meta.Raft, ClusterId: p.ClusterID,
			Nonvoter: meta.Nonvoter, Version: meta.Version,
		}
		if res, err = m.callJoin(ctx, p.API, req); err == nil {
			m.cfg.log.Info("taken in by the cluster", "cluster", res.GetClusterId(), "through", p.NodeID)
			return res, nil
		}
		if membershipFinal(err) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

func (m *membership) callJoin(ctx context.Context, api string, req *apiv1.JoinRequest) (*apiv1.JoinResponse, error) {
	cc, err := m.cfg.conn(api)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	res, err := apiv1.NewPeersClient(cc).Join(ctx, req)
	if err != nil {
		return nil, apiv1.AsError(err) // without the words that gRPC adds
	}
	return res, nil
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

package membership

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
)

// Start says how a node without state begins.
type Start struct {
	// Bootstrap is Raft's first configuration, the same on all founders. Empty:
	// the node was admitted by a leader and starts with no configuration.
	Bootstrap []raft.Server
	// ClusterID is that of the cluster that was joined, empty after formation.
	ClusterID string
	// VotesFrom is where the log must be before the node votes.
	VotesFrom uint64
}

// FormOrJoin has a node without Raft state form a cluster with others (see package cluster
// for the rule) or join one. It waits as long as that takes, and calls cfg.Waiting with what
// it waits for.
//
// It returns an error if ctx ends, if the promise cannot be written, or if the
// cluster refuses the node for good; nothing but the promise has happened then.
// It is called once, before Raft runs. The caller records that the node has
// state and calls Announce before it starts Raft.
func (m *Manager) FormOrJoin(ctx context.Context) (Start, error) {
	promised := m.cfg.Promised
	backoff := m.times.retryMin
	var waits waitLog
	for {
		changes := m.cfg.Gossip.Changes()
		d := m.decide(promised)
		if err := m.advertise(d.Intent, promised.Hash()); err != nil {
			return Start{}, fmt.Errorf("form a cluster: %w", err)
		}
		d, ok := m.confirmed(ctx, d)
		if ctx.Err() != nil {
			return Start{}, fmt.Errorf("form or join a cluster: %w", context.Cause(ctx))
		}
		m.cfg.Waiting(d.Reason)
		waits.log(m.cfg.Logger, d)
		switch d.Action {
		case cluster.Promise:
			if err := m.cfg.KeepPromise(d.Founders); err != nil {
				return Start{}, fmt.Errorf("form a cluster: keep the promise: %w", err)
			}
			promised = d.Founders
			m.cfg.Logger.Info("promised to form a cluster", "founders", promised)
			continue
		case cluster.Bootstrap:
			return Start{Bootstrap: firstConfiguration(d.Founders)}, nil
		case cluster.Join:
			res, err := m.askToJoin(ctx, d.Through)
			if err == nil {
				return Start{ClusterID: res.GetClusterId(), VotesFrom: res.GetIndex()}, nil
			}
			if final(err) {
				return Start{}, fmt.Errorf("join the cluster: %w", err)
			}
			m.cfg.Waiting("not admitted to the cluster yet: " + err.Error())
			m.warnOnce("join", "not admitted to the cluster yet; asking again", "err", err)
		}
		wait := logAfter // or until gossip changes
		if !ok {
			wait, changes = m.times.retryMin, nil
		}
		if d.Action == cluster.Join {
			wait, changes = backoff/2+rand.N(backoff), nil
			backoff = min(2*backoff, m.times.retryMax)
		}
		if err := pause(ctx, wait, changes); err != nil {
			return Start{}, fmt.Errorf("form or join a cluster: %w", err)
		}
	}
}

// pause waits for d or for a change.
func pause(ctx context.Context, d time.Duration, changes <-chan struct{}) error {
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

// logAfter is for how long a node waits for one thing before it logs
// what that is: while nodes find each other, what is missing changes every few
// milliseconds.
const logAfter = 2 * time.Second

// waitLog remembers what a node waits for, since when, and whether that
// has been logged.
type waitLog struct {
	reason string
	since  time.Time
	logged bool
}

// log logs a decision to wait once it has not changed for logAfter.
func (s *waitLog) log(logger *slog.Logger, d cluster.Decision) {
	if s.reason != d.Reason {
		*s = waitLog{reason: d.Reason, since: time.Now()}
		logger.Debug("not in a cluster yet", "next", d.Action.String(), "reason", d.Reason)
	}
	if d.Action == cluster.Wait && !s.logged && time.Since(s.since) >= logAfter {
		s.logged = true
		logger.Info("waiting to form or join a cluster", "reason", d.Reason)
	}
}

func (m *Manager) decide(promised cluster.Founders) cluster.Decision {
	self := cluster.Candidate{Meta: m.cfg.Gossip.Meta(), Promised: promised, Settled: m.cfg.Gossip.Settled()}
	if other := m.cfg.Gossip.Conflict(); other != "" {
		return cluster.Decision{Action: cluster.Wait, Intent: self.Intent,
			Reason: fmt.Sprintf("node ID %q is in use at %s", m.cfg.ID, other)}
	}
	d := cluster.Agree(self, m.cfg.Gossip.Peers())
	if hint := m.cfg.Gossip.Hint(); d.Action == cluster.Wait && hint != "" {
		d.Reason += "; " + hint
	}
	return d
}

// confirmed looks whether those with whom a cluster is to be formed are there and have
// done what gossip says of them: a promise is kept for good, and so is Raft's first
// configuration.
// If not, there is nothing to do yet but to ask again.
func (m *Manager) confirmed(ctx context.Context, d cluster.Decision) (_ cluster.Decision, ok bool) {
	if d.Action != cluster.Promise && d.Action != cluster.Bootstrap {
		return d, true
	}
	hash := d.Founders.Hash()
	missing, begun := m.askFounders(ctx, d.Founders, func(id string, res *peerapi.SelfResponse) error {
		switch meta := m.cfg.Gossip.Meta(); {
		case res.GetRaftAddress() != d.Founders[id]:
			return fmt.Errorf("%s says that its Raft address is %s, and not %s", id, res.GetRaftAddress(), d.Founders[id])
		case res.GetPromise() == hash:
			return nil
		case d.Action == cluster.Bootstrap:
			return fmt.Errorf("%s says that it has not promised to form this cluster", id)
		case res.GetFormed() || res.GetNonvoter() || int(res.GetExpect()) != meta.Expect || res.GetIntent() != hash:
			return fmt.Errorf("%s does not see the same %d nodes", id, len(d.Founders))
		}
		return nil
	})
	if missing == nil || d.Action == cluster.Bootstrap && begun {
		return d, true
	}
	return cluster.Decision{Action: cluster.Wait, Intent: d.Intent, Reason: "gossip says that all founders agree, but: " + missing.Error()}, false
}

// askFounders asks all founders what they are, and returns why check or the call fails for
// one of them. begun is true if one says that it has formed the cluster that was promised.
func (m *Manager) askFounders(ctx context.Context, founders cluster.Founders, check func(id string, res *peerapi.SelfResponse) error) (missing error, begun bool) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for id := range founders {
		if id == m.cfg.ID {
			continue
		}
		wg.Go(func() {
			p, _ := m.cfg.Gossip.Peer(id)
			res, err := m.askSelf(ctx, id, p.API)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = check(id, res)
				begun = begun || err == nil && res.GetFormed()
			}
			if err != nil {
				missing = err
			}
		})
	}
	wg.Wait()
	return missing, begun
}

func (m *Manager) advertise(intent, promise string) error {
	meta := m.cfg.Gossip.Meta()
	meta.Intent, meta.Promise = intent, promise
	return m.cfg.Gossip.SetMeta(meta)
}

// askToJoin asks the peers in random order; each passes the request on to its
// leader. The first refusal that is final counts, otherwise the last error.
func (m *Manager) askToJoin(ctx context.Context, through []cluster.Peer) (res *peerapi.JoinResponse, err error) {
	meta := m.cfg.Gossip.Meta()
	for _, i := range rand.Perm(len(through)) {
		p := through[i]
		req := &peerapi.JoinRequest{
			NodeId: meta.NodeID, RaftAddress: meta.Raft, ApiAddress: meta.API, ClusterId: p.ClusterID,
			Nonvoter: meta.Nonvoter, Version: meta.Version, ClusterName: m.cfg.ClusterName,
			FeatureLevel: m.cfg.Levels.Known,
		}
		if res, err = m.callJoin(ctx, p.NodeID, p.API, req); err == nil {
			m.cfg.Logger.Info("joined the cluster", "cluster", res.GetClusterId(), "through", p.NodeID)
			return res, nil
		}
		if final(err) || ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, err
}

func (m *Manager) callJoin(ctx context.Context, id, api string, req *peerapi.JoinRequest) (*peerapi.JoinResponse, error) {
	cc, err := m.cfg.Conn(id, api)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	res, err := peerapi.NewPeersClient(cc).Join(ctx, req)
	if err != nil {
		return nil, apiv1.AsError(err) // without the words that gRPC adds
	}
	return res, nil
}

// final reports whether a refusal stays until an operator changes something.
func final(err error) bool {
	return apiv1.CodeOf(err).Retry() == apiv1.RetryChanged
}

// firstConfiguration is the same on all founders, also in its order.
func firstConfiguration(founders cluster.Founders) []raft.Server {
	servers := make([]raft.Server, 0, len(founders))
	for _, id := range founders.IDs() {
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: network.MemberAddress(id, founders[id])})
	}
	return servers
}

// FoundersCluster is the ID of the cluster that was formed by those who have promised
// the same founders, "" if none of them says that it has one. Without it a founder that was
// late could not learn it from a leader that is no founder: they share no name. It is
// written to disk for good. So founders are asked at their addresses in the promise; gossip
// only shows that there is something to ask for.
func (m *Manager) FoundersCluster(ctx context.Context, promised cluster.Founders) string {
	hash := promised.Hash()
	for _, id := range promised.IDs() {
		p, _ := m.cfg.Gossip.Peer(id)
		if id == m.cfg.ID || p.Promise != hash || !p.Formed || p.ClusterID == "" {
			continue
		}
		api, err := m.cfg.Ask(ctx, id, promised[id])
		if err != nil && p.Raft != promised[id] {
			api, err = m.cfg.Ask(ctx, id, p.Raft)
		}
		if err != nil {
			continue
		}
		if res, err := m.askSelf(ctx, id, api); err == nil && res.GetPromise() == hash && res.GetFormed() && res.GetClusterId() != "" {
			return res.GetClusterId()
		}
	}
	return ""
}

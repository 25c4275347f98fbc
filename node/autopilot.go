package node

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// membershipTerm is one time of leadership: an autopilot of its own, so that
// nothing that was observed under an earlier one is acted upon.
//
// What raft-autopilot does: it collects every member's health, keeps since when
// it is healthy, promotes, and decides how many dead members may go at once.
// What it does not fit for, and is done here by hand:
//   - adding nodes: its AddServer removes members that have the same address,
//     which is how addresses get swapped; see join and move;
//   - when to remove: it removes whoever gossip calls failed, and members that
//     gossip does not know, at once. So KnownServers reports every member of the
//     configuration, and FilterFailedServerRemovals lets through only those that
//     left, or have been gone long enough;
//   - changes based on what it saw a while ago: it would promote a member that
//     was removed a moment ago, which adds it again. All changes pass
//     membershipChanges, which looks at the present configuration.
type membershipTerm struct {
	m      *membership
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	gone map[string]time.Time // guarded by mu: member that gossip does not know → since when
}

var (
	_ autopilot.ApplicationIntegration = (*membershipTerm)(nil)
	_ autopilot.Promoter               = (*membershipTerm)(nil)
	_ autopilot.Raft                   = membershipChanges{}
)

// The node type of members that do not want to vote.
const membershipTypeNonvoter autopilot.NodeType = "nonvoter"

// membershipMaxLag is how many entries a member may be behind and still count
// as caught up. Entries are batches; a busy leader writes a few hundred a second.
const membershipMaxLag = 512

// run looks after the configuration until the term is over.
func (t *membershipTerm) run() {
	m := t.m
	ap := autopilot.New(membershipChanges{t}, t,
		autopilot.WithPromoter(t),
		autopilot.WithLogger(hclog.NewNullLogger()), // what it does is logged by membershipChanges
		autopilot.WithUpdateInterval(m.times.update),
		autopilot.WithReconcileInterval(m.times.reconcile))
	ap.Start(t.ctx)
	defer func() { <-ap.Stop() }()

	tick := time.NewTicker(m.times.reconcile)
	defer tick.Stop()
	for {
		changes := m.cfg.gossip.Changes()
		m.followAddresses(t.ctx)
		if t.anyDue() {
			ap.RemoveDeadServers()
		}
		select {
		case <-t.ctx.Done():
			return
		case <-changes:
		case <-tick.C:
		}
	}
}

// AutopilotConfig implements [autopilot.ApplicationIntegration].
func (t *membershipTerm) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers:      true,
		LastContactThreshold:    10 * t.m.cfg.timing,
		MaxTrailingLogs:         membershipMaxLag,
		ServerStabilizationTime: t.m.times.stable,
	}
}

// NotifyState implements [autopilot.ApplicationIntegration]. Health is read from
// gossip and Raft where it is asked for.
func (t *membershipTerm) NotifyState(*autopilot.State) {}

// KnownServers implements [autopilot.ApplicationIntegration]: the members of the
// configuration, all of them, with what gossip says of each.
func (t *membershipTerm) KnownServers() map[raft.ServerID]*autopilot.Server {
	known := make(map[raft.ServerID]*autopilot.Server)
	r := t.m.cfg.raft()
	if r == nil {
		return known
	}
	peers := make(map[string]cluster.Peer)
	for _, p := range t.m.cfg.gossip.Peers() {
		peers[p.NodeID] = p
	}
	for _, s := range membershipServers(r) {
		id := string(s.ID)
		srv := &autopilot.Server{
			ID: s.ID, Name: id, Address: s.Address, RaftVersion: 3,
			NodeStatus: autopilot.NodeFailed, NodeType: autopilot.NodeVoter, IsLeader: id == t.m.cfg.id,
		}
		p, seen := peers[id]
		switch {
		case srv.IsLeader:
			srv.NodeStatus = autopilot.NodeAlive
			p.Meta = t.m.cfg.gossip.Meta()
		case seen && p.State == cluster.Alive:
			srv.NodeStatus = autopilot.NodeAlive
		case seen && p.State == cluster.Left:
			srv.NodeStatus = autopilot.NodeLeft
		}
		srv.Version = p.Version
		if p.Nonvoter || (!seen && !srv.IsLeader && s.Suffrage != raft.Voter) {
			srv.NodeType = membershipTypeNonvoter
		}
		known[s.ID] = srv
	}
	return known
}

// FetchServerStats implements [autopilot.ApplicationIntegration] with one Status
// call to each peer. A peer that answers, is in our term and names this node as
// its leader has had contact just now: that is what counts, not how long ago.
func (t *membershipTerm) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := make(map[raft.ServerID]*autopilot.ServerStats)
	for id, srv := range servers {
		if srv.NodeStatus != autopilot.NodeAlive {
			continue
		}
		wg.Add(1)
		go func() { // ends with ctx
			defer wg.Done()
			if s := t.stats(ctx, string(id), srv.Address); s != nil {
				mu.Lock()
				defer mu.Unlock()
				all[id] = s
			}
		}()
	}
	wg.Wait()
	for id := range servers {
		if all[id] == nil {
			// Otherwise autopilot goes on with the last stats it had.
			all[id] = &autopilot.ServerStats{LastContact: -1}
		}
	}
	return all
}

// stats returns nil for a member that cannot be asked, or is not what it should
// be.
func (t *membershipTerm) stats(ctx context.Context, id string, addr raft.ServerAddress) *autopilot.ServerStats {
	if id == t.m.cfg.id {
		return t.ownStats()
	}
	p, ok := t.m.cfg.gossip.Peer(id)
	if !ok || p.Raft != string(addr) {
		return nil // its new address comes first
	}
	cc, err := t.m.cfg.conn(p.API)
	if err != nil {
		return nil
	}
	res, err := apiv1.NewLocksClient(cc).Status(ctx, &apiv1.StatusRequest{})
	if err != nil || res.GetNodeId() != id || res.GetLeaderId() != t.m.cfg.id {
		return nil
	}
	last := max(res.GetCommitIndex(), res.GetAppliedIndex())
	if res.GetVotesFrom() != 0 {
		// It does not vote yet (guard.Identity.VotesFrom) and must not be counted upon:
		// a cluster of one that grew to two would never elect a leader again if the
		// first node was restarted then.
		return nil
	}
	return &autopilot.ServerStats{LastTerm: res.GetTerm(), LastIndex: last}
}

func (t *membershipTerm) ownStats() *autopilot.ServerStats {
	r := t.m.cfg.raft()
	if r == nil {
		return nil
	}
	term, err := membershipLastTerm(r)
	if err != nil {
		return nil
	}
	return &autopilot.ServerStats{LastTerm: term, LastIndex: r.LastIndex()}
}

// RemoveFailedServer implements [autopilot.ApplicationIntegration]. It does not
// wait for the removal.
func (t *membershipTerm) RemoveFailedServer(srv *autopilot.Server) {
	t.m.start(func() { // ends when the change is made or this node stops leading
		id := string(srv.ID)
		if err := t.remove(id); err != nil && t.ctx.Err() == nil {
			t.m.warnOnce("remove "+id, "member that is gone not removed", "peer", id, "err", err)
		}
	})
}

func (t *membershipTerm) remove(id string) error {
	m := t.m
	return m.alter(t.ctx, func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		why, due := t.due(id)
		if _, ok := membershipFind(servers, id); !ok || !due || t.ctx.Err() != nil {
			return nil, nil // it was removed or came back meanwhile
		}
		if alive, voters := m.without(servers, id); !membershipMajority(alive, voters) {
			return nil, apiv1.NewError(apiv1.CodeDenied, "of the %d voters that would remain only %d are alive", voters, alive)
		}
		m.cfg.log.Info("member removed", "peer", id, "reason", why)
		return r.RemoveServer(raft.ServerID(id), 0, m.times.change), nil
	})
}

// due says whether a member that is gone is to be removed now.
func (t *membershipTerm) due(id string) (why string, due bool) {
	p, seen := t.m.cfg.gossip.Peer(id)
	if id == t.m.cfg.id || seen && p.State == cluster.Alive {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.gone, id)
		return "", false
	}
	if seen && p.State == cluster.Left {
		return "left", true
	}
	after := t.m.cfg.removeFailedAfter
	since := p.Since
	if !seen {
		// Nobody here has seen it since this node started: its time runs from when
		// that was noticed.
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.gone[id].IsZero() {
			t.gone[id] = time.Now()
		}
		since = t.gone[id]
	}
	return "failed", after >= 0 && time.Since(since) >= after
}

func (t *membershipTerm) anyDue() bool {
	r := t.m.cfg.raft()
	if r == nil {
		return false
	}
	any := false
	for _, s := range membershipServers(r) { // all of them: due starts their clocks
		if _, due := t.due(string(s.ID)); due {
			any = true
		}
	}
	return any
}

// GetServerExt implements [autopilot.Promoter].
func (t *membershipTerm) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt implements [autopilot.Promoter].
func (t *membershipTerm) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes implements [autopilot.Promoter]: KnownServers has set them.
func (t *membershipTerm) GetNodeTypes(_ *autopilot.Config, s *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	types := make(map[raft.ServerID]autopilot.NodeType)
	for id, srv := range s.Servers {
		types[id] = srv.Server.NodeType
	}
	return types
}

// IsPotentialVoter implements [autopilot.Promoter].
func (t *membershipTerm) IsPotentialVoter(nt autopilot.NodeType) bool {
	return nt == autopilot.NodeVoter
}

// CalculatePromotionsAndDemotions implements [autopilot.Promoter]. Unlike the
// library's own promoter it insists on the stabilization time also right after a
// change of leaders, so that a node that comes and goes does not get a vote then.
// And it demotes: a voter that says that it wants none. The leader keeps its vote
// until another one leads.
func (t *membershipTerm) CalculatePromotionsAndDemotions(conf *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	var changes autopilot.RaftChanges
	for id, srv := range s.Servers {
		if srv.State == autopilot.RaftNonVoter && srv.Server.NodeType == autopilot.NodeVoter &&
			srv.Health.IsStable(time.Now(), conf.ServerStabilizationTime) {
			changes.Promotions = append(changes.Promotions, id)
		}
		if srv.State == autopilot.RaftVoter && srv.Server.NodeType == membershipTypeNonvoter && srv.Server.NodeStatus == autopilot.NodeAlive {
			changes.Demotions = append(changes.Demotions, id)
		}
	}
	return changes
}

// FilterFailedServerRemovals implements [autopilot.Promoter].
func (t *membershipTerm) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, failed *autopilot.FailedServers) *autopilot.FailedServers {
	keep := func(servers []*autopilot.Server) (due []*autopilot.Server) {
		for _, s := range servers {
			if _, ok := t.due(string(s.ID)); ok {
				due = append(due, s)
			}
		}
		return due
	}
	// Nobody is stale: KnownServers names every member. What looks so was removed
	// between two looks at the configuration.
	return &autopilot.FailedServers{
		FailedNonVoters: keep(failed.FailedNonVoters),
		FailedVoters:    keep(failed.FailedVoters),
	}
}

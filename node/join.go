package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/guard"
)

// ErrRemoved says that the node was taken out of the cluster. Its data directory
// is of no further use: to come back, it starts with a new one.
var ErrRemoved = errors.New("the node was removed from the cluster")

// openCluster starts gossip and what turns it into membership.
func (n *Node) openCluster(identity guard.Identity) (err error) {
	var keys [][]byte
	if len(n.cfg.GossipKey) > 0 {
		keys = [][]byte{n.cfg.GossipKey}
	}
	meta := cluster.Meta{
		NodeID: n.id, ClusterID: identity.ClusterID, API: n.apiAddr, HTTP: n.httpAddr, Raft: n.raftAddr,
		Version: n.cfg.Version, Zone: n.cfg.Zone, Nonvoter: n.cfg.Nonvoter,
		Formed: n.stores.HasState(), Expect: n.cfg.BootstrapExpect,
		Promise: cluster.Hash(founders(identity.Promise)),
	}
	seeds := n.cfg.Join
	if meta.ClusterID != "" && n.cfg.seams.Memory == nil { // it has been somewhere
		seeds = allSeeds(seeds, rememberedSeeds(n.cfg.DataDir))
	}
	var transport memberlist.Transport
	if n.cfg.seams.Network != nil {
		if transport, err = n.cfg.seams.Network.Gossip(n.cfg.GossipAddr); err != nil {
			return fmt.Errorf("listen for gossip on %s: %w", n.cfg.GossipAddr, err)
		}
	}
	n.cluster, err = cluster.Start(cluster.Config{
		Transport: transport, Meta: meta, Bind: n.cfg.GossipAddr, Advertise: n.cfg.AdvertiseHost, Seeds: seeds,
		Keys: keys, Fast: n.cfg.Fast, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.gossipAddr = n.cluster.Addr()
	n.membership = newMembership(membershipConfig{
		id: n.id, gossip: n.cluster,
		raft: func() membershipRaft {
			if r := n.raft.Load(); r != nil {
				return r
			}
			return nil
		},
		conn:      func(api string) (grpc.ClientConnInterface, error) { return n.peers.conn(api) },
		clusterID: n.knownCluster,
		promised:  founders(identity.Promise),
		keepPromise: func(list []cluster.Founder) error {
			return n.stores.UpdateIdentity(func(id *guard.Identity) { id.Promise = promise(list) })
		},
		waiting: n.setForming,
		timing:  n.cfg.Timing, removeFailedAfter: n.cfg.RemoveFailedAfter, fast: n.cfg.Fast, log: n.log,
	})
	return nil
}

func founders(promise []guard.PromisedMember) (list []cluster.Founder) {
	for _, m := range promise {
		list = append(list, cluster.Founder{NodeID: m.NodeID, Raft: m.Raft})
	}
	return list
}

func promise(list []cluster.Founder) (members []guard.PromisedMember) {
	for _, f := range list {
		members = append(members, guard.PromisedMember{NodeID: f.NodeID, Raft: f.Raft})
	}
	return members
}

// join gets the node into a cluster, starts Raft and then looks after the
// node's place in it. It is a goroutine of its own.
func (n *Node) join() {
	var begin membershipStart
	if !n.stores.HasState() {
		var err error
		if begin, err = n.membership.formOrJoin(n.ctx); err != nil {
			if n.ctx.Err() == nil {
				n.fail(err)
			}
			return
		}
	}
	if err := n.startRaft(begin); err != nil {
		n.fail(err)
		return
	}
	if n.ctx.Err() != nil {
		return
	}
	n.goRun(func() { n.watchLeader(n.ctx, n.raft.Load()) })
	n.goRun(func() { n.lead(n.ctx, n.raft.Load()) })
	n.goRun(func() {
		r := n.raft.Load()
		n.snapshots.run(n.ctx, func() error { return n.takeSnapshot(r) })
	})
	n.goRun(func() { n.earnVote(n.ctx, n.raft.Load()) })
	n.goRun(func() { n.compareStates(n.ctx) })
	n.watchPlace(n.ctx)
}

// startRaft starts Raft, with a first configuration if there is one to begin with.
func (n *Node) startRaft(begin membershipStart) error {
	if begin.clusterID != "" {
		if err := n.stores.UpdateIdentity(func(i *guard.Identity) {
			i.ClusterID, i.VotesFrom = begin.clusterID, begin.votesFrom
		}); err != nil {
			return err
		}
	}
	if err := n.membership.announce(); err != nil {
		return err
	}
	conf := n.raftConfig()
	if len(begin.bootstrap) > 0 {
		err := raft.BootstrapCluster(conf, n.stores.Log, n.stores.Stable, n.stores.Snapshots, n.transport,
			raft.Configuration{Servers: begin.bootstrap})
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return fmt.Errorf("bootstrap the cluster: %w", err)
		}
		n.log.Info("formed a cluster", "voters", len(begin.bootstrap))
	}
	r, err := guard.NewRaft(conf, replica{n.machine, n}, n.stores, n.transport)
	if err != nil {
		return err
	}
	n.raft.Store(r)
	if n.ctx.Err() != nil { // Close may have looked for it before, and waits for us
		return guard.Stop(r, n.transport, 0, 2*time.Second)
	}
	return nil
}

func (n *Node) raftConfig() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.id)
	conf.HeartbeatTimeout = n.cfg.Timing
	conf.ElectionTimeout = n.cfg.Timing
	conf.LeaderLeaseTimeout = n.cfg.Timing * 3 / 4
	conf.ShutdownOnRemove = false
	// The node asks for snapshots by the bytes of the log, and says before each how
	// much of it is left (snapshot.go). This is for when it does not.
	conf.TrailingLogs = 6144
	conf.SnapshotThreshold = 4096
	conf.SnapshotInterval = 30 * time.Second
	conf.Logger = guard.RaftLogger(n.log)
	if n.cfg.seams.Raft != nil {
		n.cfg.seams.Raft(conf)
	}
	n.logSlack = conf.TrailingLogs - conf.SnapshotThreshold
	return conf
}

// earnEvery is how often a node that joined looks whether it may vote.
const earnEvery = 50 * time.Millisecond

// earnVote writes down that a node that joined has its joining and votes from now
// on; see votes.go of package guard. The leader makes it a voter after that.
func (n *Node) earnVote(ctx context.Context, r *raft.Raft) {
	from := n.stores.Identity().VotesFrom
	if from == 0 {
		return
	}
	poll := time.NewTicker(earnEvery)
	defer poll.Stop()
	for guard.Committed(r) < from {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
	// A failed write ends the node; see Open.
	_ = n.stores.UpdateIdentity(func(i *guard.Identity) { i.VotesFrom = 0 })
}

// knownCluster is the ID of the cluster, from the table or from an earlier run.
func (n *Node) knownCluster() string {
	if id := n.clusterID(); id != "" {
		return id
	}
	return n.stores.Identity().ClusterID
}

// clusterIdentity is what the node tells those who talk Raft with it.
func (n *Node) clusterIdentity() guard.ClusterIdentity {
	return guard.ClusterIdentity{ID: n.knownCluster(), Founders: cluster.Hash(founders(n.stores.Identity().Promise))}
}

func (n *Node) rememberCluster(id string) error {
	return n.stores.UpdateIdentity(func(i *guard.Identity) { i.ClusterID = id })
}

// placeEvery is how often a node looks whether it still belongs to its cluster.
const placeEvery = 500 * time.Millisecond

// watchPlace writes the cluster's ID down when the table has it, and ends a node
// that was removed.
func (n *Node) watchPlace(ctx context.Context) {
	poll := time.NewTicker(placeEvery)
	defer poll.Stop()
	for {
		if err := n.checkPlace(ctx); err != nil {
			n.fail(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

func (n *Node) checkPlace(ctx context.Context) error {
	inTable, identity, peers := n.clusterID(), n.stores.Identity(), n.cluster.Peers()
	known := inTable
	if known == "" && identity.ClusterID == "" {
		known = foundersCluster(cluster.Hash(founders(identity.Promise)), peers)
	}
	if known != "" && known != identity.ClusterID {
		if identity.ClusterID != "" {
			return fmt.Errorf("the log is of cluster %s, the data directory belongs to %s", inTable, identity.ClusterID)
		}
		if err := n.rememberCluster(known); err != nil {
			return err
		}
		if err := n.membership.announce(); err != nil {
			return err
		}
	}
	keep := make(map[string]bool)
	for _, p := range peers {
		keep[p.API] = true
	}
	n.peers.prune(keep)
	if n.cfg.seams.Memory == nil {
		n.rememberSeeds(peers)
	}
	return n.checkRemoved(ctx)
}

// foundersCluster is the ID of the cluster that was formed by those who have promised
// the same founders, "" if none of them is seen with one. Without it a founder that was
// late could not be told by a leader that is no founder: they share no name.
func foundersCluster(promise string, peers []cluster.Peer) string {
	for _, p := range peers {
		if promise != "" && p.Promise == promise && p.Formed && p.ClusterID != "" {
			return p.ClusterID
		}
	}
	return ""
}

// checkRemoved asks the others when no leader has spoken to this node for a
// while: a removed member is not told, it only hears nothing any more.
func (n *Node) checkRemoved(ctx context.Context) error {
	r := n.raft.Load()
	silence := time.Since(r.LastContact())
	if n.epoch.Load() != nil || silence < max(time.Second, 5*n.cfg.Timing) || len(membershipServers(r)) == 0 {
		n.removedBy = ""
		return nil
	}
	before := n.removedBy
	n.removedBy = ""
	for _, p := range n.cluster.Peers() {
		if p.State != cluster.Alive || !p.Formed || !n.saysRemoved(ctx, p.API, p.NodeID) {
			continue
		}
		// Twice: the first time the change may not be committed yet, and be lost.
		if n.removedBy = p.NodeID; before == p.NodeID {
			return fmt.Errorf("%w: %s says so; delete its data directory before it starts again", ErrRemoved, p.NodeID)
		}
		return nil
	}
	return nil
}

// saysRemoved asks a node whether it leads and has this one in its configuration no
// more. What it says of that is from its memory; a read round after that shows that it
// led indeed.
func (n *Node) saysRemoved(ctx context.Context, api, id string) bool {
	cc, err := n.peers.conn(api)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	res, err := apiv1.NewLocksClient(cc).Members(ctx, &apiv1.MembersRequest{})
	if err != nil || !removedFrom(res, id, n.id) {
		return false
	}
	_, err = apiv1.NewPeersClient(cc).ReadIndex(ctx, &apiv1.ReadIndexRequest{})
	return err == nil
}

// removedFrom reports whether from leads, by what it says itself, and its
// configuration lacks id. A node that does not lead may be about to get a newer one.
func removedFrom(res *apiv1.MembersResponse, from, id string) bool {
	led := false
	for _, m := range res.GetMembers() {
		if m.GetId() == id && m.GetRole() != "none" {
			return false
		}
		led = led || m.GetRole() == "leader" && m.GetId() == from
	}
	return led
}

func (n *Node) setForming(reason string) { n.forming.Store(&reason) }

// formation is what a node without Raft waits for.
func (n *Node) formation() string { return *n.forming.Load() }

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/hclogs"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/secure"
)

// ErrRemoved says that the node was removed from the cluster. [Node.Err] returns it, and the
// node has ended. Its data directory is of no further use: to join again, the node needs a
// new one.
var ErrRemoved = errors.New("the node was removed from the cluster")

// openCluster starts gossip and what turns it into membership.
func (n *Node) openCluster(identity disk.Identity) (err error) {
	keys, exchange, err := n.openGossipKeys()
	if err != nil {
		return err
	}
	meta := cluster.Meta{
		NodeID: n.id, ClusterID: identity.ClusterID, API: n.apiAddr, HTTP: n.httpAddr, Raft: n.raftAddr,
		Version: n.cfg.Version, Zone: n.cfg.Zone, Nonvoter: n.cfg.Nonvoter,
		Formed: n.stores.HasState(), Expect: n.cfg.BootstrapExpect, Level: int(n.cfg.agreedLevel()),
		Promise: cluster.Founders(identity.Promise).Hash(),
		TLS:     n.security.mode.On(), TLSOnly: n.security.mode == secure.Required,
	}
	if (meta.ClusterID != "" || meta.Formed) && n.cfg.seams.Memory == nil { // it has been in a cluster
		n.seeds = readSeeds(n.cfg.DataDir)
	}
	listener := n.bound.gossip
	n.bound.gossip = nil // Start closes it, also when it fails
	n.cluster, err = cluster.Start(cluster.Config{
		Transport: n.bound.simulated, Listener: listener, Meta: meta, Advertise: n.cfg.AdvertiseHost, Seeds: n.cfg.Join, Known: n.seeds.Members,
		Label: n.cfg.ClusterName, Keys: keys, KeyExchange: exchange, Fast: n.cfg.Fast, Logger: n.log, Admit: leaveToDisk,
	})
	if err == nil {
		err = n.useGossipKeys()
	}
	if err != nil {
		return err
	}
	n.membership = membership.New(membership.Config{
		ID: n.id, ClusterName: n.cfg.ClusterName, Gossip: n.cluster,
		Raft: func() membership.Raft {
			if r := n.raft.Load(); r != nil {
				return r
			}
			return nil
		},
		Contact: func() membership.Contact { return n.transport },
		SaidAPI: n.raftStream.API,
		Ask: func(_ context.Context, id, place string) (string, error) {
			return n.raftStream.Ask(network.MemberAddress(id, place), max(time.Second, 5*n.cfg.Timing))
		},
		Find:      func(id string) string { return n.peers.find(id).api },
		Conn:      func(id, api string) (grpc.ClientConnInterface, error) { return n.peers.conn(id, api) },
		ClusterID: n.knownCluster,
		Promised:  identity.Promise,
		KeepPromise: func(founders cluster.Founders) error {
			return n.stores.UpdateIdentity(func(id *disk.Identity) { id.Promise = founders })
		},
		Waiting: n.setForming, Levels: n.levels(), Changed: n.noteMember,
		Timing: n.cfg.Timing, RemoveFailedAfter: n.cfg.RemoveFailedAfter, RemoveReplacedAfter: n.cfg.RemoveReplacedAfter,
		MaxNonvoters: n.cfg.MaxNonvoters, Fast: n.cfg.Fast, Logger: n.log,
	})
	return nil
}

// join has the node form or join a cluster, starts Raft and then runs watchPlace. It is a
// goroutine of its own.
func (n *Node) join() {
	var begin membership.Start
	if !n.stores.HasState() {
		var err error
		if begin, err = n.membership.FormOrJoin(n.ctx); err != nil {
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

// startRaft starts Raft, with a first configuration if begin has one.
func (n *Node) startRaft(begin membership.Start) error {
	if begin.ClusterID != "" {
		if err := n.stores.UpdateIdentity(func(i *disk.Identity) {
			i.ClusterID, i.VotesFrom = begin.ClusterID, begin.VotesFrom
		}); err != nil {
			return err
		}
	}
	if formed := begin.ClusterID != "" || len(begin.Bootstrap) > 0; formed && n.gossipKeys != nil {
		if err := n.gossipKeys.Formed(); err != nil {
			return err
		}
	}
	if err := n.membership.Announce(); err != nil {
		return err
	}
	conf := n.raftConfig()
	if len(begin.Bootstrap) > 0 {
		err := raft.BootstrapCluster(conf, n.stores.Log, n.stores.Stable, n.stores.Snapshots, n.transport,
			raft.Configuration{Servers: begin.Bootstrap})
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return fmt.Errorf("bootstrap the cluster: %w", err)
		}
		n.log.Info("formed a cluster", "voters", len(begin.Bootstrap))
	}
	r, err := network.NewRaft(conf, watchedTable{n.machine, n}, n.stores, n.transport)
	if err != nil {
		return err
	}
	n.raft.Store(r)
	if n.ctx.Err() != nil { // Close may have found no Raft to stop, and waits for this goroutine
		return network.Stop(r, n.transport, 0, 2*time.Second)
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
	// The node requests snapshots by the bytes of the log, and sets before each how much
	// of the log is left (snapshot.go). These are for nodes whose entries are small.
	conf.TrailingLogs = 6144
	conf.SnapshotThreshold = 4096
	conf.SnapshotInterval = 30 * time.Second
	conf.Logger = hclogs.RaftLogger(n.raftLog)
	if n.cfg.seams.Raft != nil {
		n.cfg.seams.Raft(conf)
	}
	n.logSlack = conf.TrailingLogs - conf.SnapshotThreshold
	return conf
}

// earnEvery is how often a node that joined checks whether it may vote.
const earnEvery = 50 * time.Millisecond

// earnVote waits until the log is committed up to the joining of this node, and writes to
// disk that the node votes from now on; see votes.go of package network. The leader makes
// it a voter after that.
func (n *Node) earnVote(ctx context.Context, r *raft.Raft) {
	from := n.stores.Identity().VotesFrom
	if from == 0 {
		return
	}
	poll := time.NewTicker(earnEvery)
	defer poll.Stop()
	for network.Committed(r, n.stores) < from {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
	// A failed write ends the node; see Open.
	_ = n.stores.UpdateIdentity(func(i *disk.Identity) { i.VotesFrom = 0 })
}

// knownCluster is the ID of the cluster, from the table or from an earlier run.
func (n *Node) knownCluster() string {
	if id := n.clusterID(); id != "" {
		return id
	}
	return n.stores.Identity().ClusterID
}

// clusterIdentity is what the node says of its cluster in handshakes of Raft connections.
func (n *Node) clusterIdentity() network.ClusterIdentity {
	return network.ClusterIdentity{
		ID: n.knownCluster(), Founders: cluster.Founders(n.stores.Identity().Promise).Hash(), Name: n.cfg.ClusterName,
	}
}

func (n *Node) rememberCluster(id string) error {
	return n.stores.UpdateIdentity(func(i *disk.Identity) { i.ClusterID = id })
}

// placeEvery is how often a node checks whether it still belongs to its cluster.
const placeEvery = 500 * time.Millisecond

// watchPlace writes the cluster's ID to disk once the table has it, ends a node that was
// removed, and sends clients the directory of the members.
func (n *Node) watchPlace(ctx context.Context) {
	poll := time.NewTicker(placeEvery)
	defer poll.Stop()
	for {
		if err := n.checkPlace(ctx); err != nil {
			n.fail(err)
			return
		}
		n.server.SetDirectory(n.directory())
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
		known = n.membership.FoundersCluster(ctx, identity.Promise)
	}
	if known != "" && known != identity.ClusterID {
		if identity.ClusterID != "" {
			return fmt.Errorf("data directory: belongs to cluster %s, must belong to %s as its log does", identity.ClusterID, inTable)
		}
		if err := n.rememberCluster(known); err != nil {
			return err
		}
		if err := n.membership.Announce(); err != nil {
			return err
		}
	}
	ids := make(map[string]bool)
	for _, p := range peers {
		ids[p.NodeID] = true
	}
	for _, s := range membership.Servers(n.raft.Load()) {
		ids[string(s.ID)] = true
	}
	keep := make(map[place]bool)
	for id := range ids {
		for _, api := range n.membership.APIAddresses(id) {
			keep[place{id, api}] = true
		}
	}
	n.peers.prune(keep)
	n.rememberMembers(peers)
	return n.checkRemoved(ctx)
}

// rememberMembers has gossip and the disk remember the members of the latest configuration.
func (n *Node) rememberMembers(peers []cluster.Peer) {
	servers := membership.Servers(n.raft.Load())
	if len(servers) == 0 {
		return // the node has joined, and the log with the other members has not arrived yet
	}
	ids, others := make([]string, 0, len(servers)), make(map[string]bool)
	for _, s := range servers {
		ids = append(ids, string(s.ID))
		others[string(s.ID)] = string(s.ID) != n.id
	}
	n.cluster.SetMembers(ids)
	if n.cfg.seams.Memory == nil {
		n.rememberSeeds(n.knownCluster(), peers, others)
	}
}

// checkRemoved returns an error if the others have removed this node.
func (n *Node) checkRemoved(ctx context.Context) error {
	if by := n.membership.RemovedBy(ctx); by != "" {
		return fmt.Errorf("%w: %s has reported it; delete its data directory before it starts again", ErrRemoved, by)
	}
	return nil
}

func (n *Node) setForming(reason string) { n.forming.Store(&reason) }

// formation returns what a node without Raft is waiting for.
func (n *Node) formation() string { return *n.forming.Load() }

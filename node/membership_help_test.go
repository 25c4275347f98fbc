package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// memberWorld is a set of nodes with real Raft in memory. Gossip is a board that
// everybody reads, and calls between nodes are function calls; so all of it runs
// in virtual time.
type memberWorld struct {
	t  *testing.T
	mu sync.Mutex
	// clusterID is what every table says.
	clusterID string
	board     map[string]cluster.Peer // what gossip shows of each node
	changed   chan struct{}
	nodes     map[string]*memberNode
	trans     map[raft.ServerAddress]*raft.InmemTransport
}

type memberNode struct {
	w      *memberWorld
	id     string
	gossip *memberGossip
	m      *membership
	cancel context.CancelFunc
	ended  chan struct{} // closed when the leader loop has ended
	log    *memberLog

	mu        sync.Mutex
	raft      *raft.Raft
	promised  []cluster.Founder
	reasons   []string
	mute      bool   // answers no Status calls
	behind    bool   // it says that it has only the first entry of the log
	votesFrom uint64 // what it says of this
}

// inMemberWorld runs f in a bubble of virtual time and stops everything after it.
func inMemberWorld(t *testing.T, f func(t *testing.T, w *memberWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := &memberWorld{
			t: t, clusterID: "c1", board: make(map[string]cluster.Peer), changed: make(chan struct{}),
			nodes: make(map[string]*memberNode), trans: make(map[raft.ServerAddress]*raft.InmemTransport),
		}
		defer func() {
			for _, n := range w.nodes {
				n.stop()
			}
		}()
		f(t, w)
	})
}

// fresh adds a node that runs no Raft yet.
func (w *memberWorld) fresh(id string, change func(*cluster.Meta, *membershipConfig)) *memberNode {
	meta := cluster.Meta{NodeID: id, API: id + ":0", HTTP: id + ":1", Raft: id + ":2", Version: "v1", Zone: "z"}
	n := &memberNode{w: w, id: id, ended: make(chan struct{}), log: &memberLog{}}
	n.gossip = &memberGossip{w: w, id: id}
	cfg := membershipConfig{
		id: id, gossip: n.gossip, raft: n.running, conn: w.conn,
		clusterID: func() string { w.mu.Lock(); defer w.mu.Unlock(); return w.clusterID },
		keepPromise: func(l []cluster.Founder) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.promised != nil {
				return errors.New("promised twice")
			}
			n.promised = l
			return nil
		},
		waiting: func(r string) { n.mu.Lock(); defer n.mu.Unlock(); n.reasons = append(n.reasons, r) },
		timing:  time.Second, removeFailedAfter: 12 * time.Minute, log: n.log.logger(),
	}
	if change != nil {
		change(&meta, &cfg)
	}
	n.m = newMembership(cfg)
	w.mu.Lock()
	w.nodes[id] = n
	w.mu.Unlock()
	w.show(id, func(p *cluster.Peer) { p.Meta, p.State, p.Gossip, p.Since = meta, cluster.Alive, id+":3", time.Now() })
	return n
}

// voters starts a cluster whose members are all voters.
func (w *memberWorld) voters(ids ...string) {
	var servers []raft.Server
	for _, id := range ids {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":2"), Suffrage: raft.Voter})
	}
	for _, id := range ids {
		w.fresh(id, nil).start(servers)
	}
}

// start runs Raft and the loop that follows leadership.
func (n *memberNode) start(bootstrap []raft.Server) {
	w := n.w
	if err := n.m.announce(); err != nil {
		w.t.Fatal(err)
	}
	addr := raft.ServerAddress(n.gossip.Meta().Raft)
	_, trans := raft.NewInmemTransportWithTimeout(addr, 100*time.Millisecond)
	w.mu.Lock()
	for a, other := range w.trans {
		trans.Connect(a, other)
		other.Connect(addr, trans)
	}
	w.trans[addr] = trans
	w.mu.Unlock()
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(n.id)
	// Slow, because virtual hours pass: each wake-up costs real time.
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = time.Second, time.Second, 750*time.Millisecond
	cfg.CommitTimeout = 300 * time.Millisecond
	cfg.Logger = hclog.NewNullLogger()
	cfg.ShutdownOnRemove = false
	store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	if bootstrap != nil {
		if err := raft.BootstrapCluster(cfg, store, store, snaps, trans, raft.Configuration{Servers: bootstrap}); err != nil {
			w.t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(cfg, memberMachine{}, store, store, snaps, trans)
	if err != nil {
		w.t.Fatal(err)
	}
	n.mu.Lock()
	n.raft = r
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(w.t.Context())
	n.cancel = cancel
	go n.followLeadership(ctx, r)
}

func (n *memberNode) followLeadership(ctx context.Context, r *raft.Raft) {
	defer close(n.ended)
	leading := false
	for ctx.Err() == nil {
		if now := r.State() == raft.Leader; now != leading {
			leading = now
			if now {
				n.m.lead(ctx)
			} else {
				n.m.follow()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stop ends the node without telling anyone.
func (n *memberNode) stop() {
	n.mu.Lock()
	r := n.raft
	n.raft = nil
	n.mu.Unlock()
	if r == nil {
		return
	}
	n.cancel()
	<-n.ended
	if err := r.Shutdown().Error(); err != nil {
		n.w.t.Error(err)
	}
	if err := n.m.close(context.Background()); err != nil {
		n.w.t.Error(err)
	}
}

// crash stops the node and lets gossip notice.
func (n *memberNode) crash() {
	n.stop()
	n.w.show(n.id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
}

func (n *memberNode) running() membershipRaft {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raft == nil {
		return nil
	}
	return n.raft
}

// show changes what gossip shows of a node.
func (w *memberWorld) show(id string, change func(*cluster.Peer)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.board[id]
	change(&p)
	w.board[id] = p
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *memberWorld) hide(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.board, id)
}

// leader waits for one.
func (w *memberWorld) leader() *memberNode {
	for range 10_000 {
		w.mu.Lock()
		nodes := w.nodes
		w.mu.Unlock()
		for _, n := range nodes {
			n.m.mu.Lock()
			leads := n.m.term != nil
			n.m.mu.Unlock()
			if leads && n.running() != nil {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatal("no leader")
	return nil
}

// role is what the leader's configuration says of a node.
func (w *memberWorld) role(id string) string {
	for _, e := range w.leader().m.members().GetMembers() {
		if e.GetId() == id {
			if e.GetRole() == "leader" {
				return "voter"
			}
			return e.GetRole()
		}
	}
	return "none"
}

// await waits until a node has a role, and says how long that took.
func (w *memberWorld) await(id, role string, atMost time.Duration) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for w.role(id) != role {
		if time.Since(begin) > atMost {
			w.t.Fatalf("%s is %q after %v, want %q", id, w.role(id), atMost, role)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(begin)
}

// other returns a node that runs and does not lead.
func (w *memberWorld) other() *memberNode {
	leader := w.leader()
	var ids []string
	for id, n := range w.nodes {
		if n != leader && n.running() != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return w.nodes[ids[0]]
}

// memberGossip is one node's view of the board.
type memberGossip struct {
	w        *memberWorld
	id       string
	conflict string
}

func (g *memberGossip) Addr() string { return g.id + ":3" }

func (g *memberGossip) Peers() (peers []cluster.Peer) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	for id, p := range g.w.board {
		if id != g.id {
			peers = append(peers, p)
		}
	}
	slices.SortFunc(peers, func(a, b cluster.Peer) int {
		if a.NodeID < b.NodeID {
			return -1
		}
		return 1
	})
	return peers
}

func (g *memberGossip) Peer(id string) (cluster.Peer, bool) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	p, ok := g.w.board[id]
	return p, ok && id != g.id
}

func (g *memberGossip) Changes() <-chan struct{} {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.changed
}

func (g *memberGossip) Settled() bool { return true }

func (g *memberGossip) Conflict() string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.conflict
}

func (g *memberGossip) Meta() cluster.Meta {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.board[g.id].Meta
}

// SetMeta wakes nobody if nothing changes, as the real one does.
func (g *memberGossip) SetMeta(m cluster.Meta) error {
	if m.NodeID != g.id {
		return fmt.Errorf("set meta of %q on node %q", m.NodeID, g.id)
	}
	if m != g.Meta() {
		g.w.show(g.id, func(p *cluster.Peer) { p.Meta = m })
	}
	return nil
}

// conn is a connection to the node with an API address.
func (w *memberWorld) conn(api string) (grpc.ClientConnInterface, error) {
	return memberConn{w, api}, nil
}

type memberConn struct {
	w   *memberWorld
	api string
}

func (c memberConn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	c.w.mu.Lock()
	n := c.w.nodes[strings.TrimSuffix(c.api, ":0")] // whatever gossip says
	c.w.mu.Unlock()
	if n == nil || n.running() == nil {
		return apiv1.NewError(apiv1.CodeUnavailable, "nobody at %s", c.api)
	}
	switch method {
	case apiv1.Peers_Join_FullMethodName:
		if _, leader := n.running().LeaderWithID(); string(leader) != n.id {
			return memberConn{c.w, string(leader) + ":0"}.Invoke(ctx, method, args, reply)
		}
		res, err := n.m.join(ctx, args.(*apiv1.JoinRequest))
		if err == nil {
			reply.(*apiv1.JoinResponse).ClusterId, reply.(*apiv1.JoinResponse).Index = res.GetClusterId(), res.GetIndex()
		}
		return err
	case apiv1.Locks_Status_FullMethodName:
		return n.status(reply.(*apiv1.StatusResponse))
	}
	return fmt.Errorf("unexpected call %s", method)
}

func (c memberConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams here")
}

func (n *memberNode) status(res *apiv1.StatusResponse) error {
	n.mu.Lock()
	r, mute, behind, votesFrom := n.raft, n.mute, n.behind, n.votesFrom
	n.mu.Unlock()
	if r == nil || mute {
		return apiv1.NewError(apiv1.CodeUnavailable, "%s does not answer", n.id)
	}
	_, leader := r.LeaderWithID()
	res.NodeId, res.LeaderId = n.id, string(leader)
	res.Term, res.CommitIndex, res.AppliedIndex = r.CurrentTerm(), r.CommitIndex(), r.AppliedIndex()
	if behind {
		res.CommitIndex, res.AppliedIndex = 1, 1
	}
	if res.CommitIndex < votesFrom { // otherwise it has written down that it votes
		res.VotesFrom = votesFrom
	}
	return nil
}

// memberLog counts log lines by message.
type memberLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *memberLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *memberLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *memberLog) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

type memberMachine struct{}

func (memberMachine) Apply(*raft.Log) any                 { return nil }
func (memberMachine) Snapshot() (raft.FSMSnapshot, error) { return memberSnapshot{}, nil }
func (memberMachine) Restore(r io.ReadCloser) error       { return r.Close() }

type memberSnapshot struct{}

func (memberSnapshot) Persist(s raft.SnapshotSink) error { return s.Close() }
func (memberSnapshot) Release()                          {}

package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
)

// world is a set of nodes with real Raft in memory. Gossip is a board that
// everybody reads, and calls between nodes are function calls; so all of it runs
// in virtual time.
type world struct {
	t  *testing.T
	mu sync.Mutex
	// clusterID is what every table says.
	clusterID string
	board     map[string]cluster.Peer // what gossip shows of each node
	truth     map[string]cluster.Meta // what each says itself
	changed   chan struct{}
	nodes     map[string]*member
	trans     map[raft.ServerAddress]*raft.InmemTransport
	said      map[string]string // node ID → API address that it named to Raft
	slow      string            // node ID: it does not answer at its Raft port in time
	level     atomic.Uint32     // the feature level of the table
	raises    atomic.Int32      // how often a leader has raised it
}

type member struct {
	w      *world
	id     string
	gossip *worldGossip
	m      *Manager
	cancel context.CancelFunc
	ended  chan struct{} // closed when the leader loop has ended
	log    *worldLog

	contact *worldTransport // nil before start
	stopped atomic.Bool

	mu        sync.Mutex
	raft      *raft.Raft
	promised  cluster.Founders
	reasons   []string
	mute      bool   // answers no Status calls
	behind    bool   // it says that it has only the first entry of the log
	votesFrom uint64 // what it says of this
}

// inWorld runs f in a bubble of virtual time and stops everything after it.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, clusterID: "c1", board: make(map[string]cluster.Peer), truth: make(map[string]cluster.Meta), changed: make(chan struct{}), said: make(map[string]string),
			nodes: make(map[string]*member), trans: make(map[raft.ServerAddress]*raft.InmemTransport),
		}
		w.level.Store(1)
		defer func() {
			for _, n := range w.nodes {
				n.stop()
			}
		}()
		f(t, w)
	})
}

// fresh adds a node that runs no Raft yet.
func (w *world) fresh(id string, change func(*cluster.Meta, *Config)) *member {
	meta := cluster.Meta{NodeID: id, API: id + ":4", HTTP: id + ":1", Raft: id + ":2", Version: "v1", Zone: "z"}
	n := &member{w: w, id: id, ended: make(chan struct{}), log: &worldLog{}}
	n.gossip = &worldGossip{w: w, id: id}
	cfg := Config{
		ID: id, Gossip: n.gossip, Raft: n.running, Conn: w.conn, Ask: w.ask, MaxNonvoters: DefaultMaxNonvoters,
		Find:      func(id string) string { return firstOf(n.m.APIAddresses(id)) },
		Contact:   func() Contact { return n.contact },
		SaidAPI:   func(id string) string { w.mu.Lock(); defer w.mu.Unlock(); return w.said[id] },
		ClusterID: func() string { w.mu.Lock(); defer w.mu.Unlock(); return w.clusterID },
		KeepPromise: func(l cluster.Founders) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.promised != nil {
				return errors.New("promised twice")
			}
			n.promised = l
			return nil
		},
		Levels: Levels{
			Table: w.level.Load, Known: 1, Agreed: 1, Version: func() string { return "0.9.0" },
			Raise: func(_ context.Context, to uint32) error { w.level.Store(to); w.raises.Add(1); return nil },
		},
		Waiting: func(r string) { n.mu.Lock(); defer n.mu.Unlock(); n.reasons = append(n.reasons, r) },
		Timing:  time.Second, RemoveFailedAfter: 12 * time.Minute, RemoveReplacedAfter: -1, Logger: n.log.logger(),
	}
	if change != nil {
		change(&meta, &cfg)
	}
	n.m = New(cfg)
	w.mu.Lock()
	w.nodes[id] = n
	w.mu.Unlock()
	w.show(id, func(p *cluster.Peer) { p.Meta, p.State, p.Gossip, p.Since = meta, cluster.Alive, id+":3", time.Now() })
	return n
}

// voters starts a cluster whose members are all voters.
func (w *world) voters(ids ...string) { w.votersWith(nil, ids...) }

func (w *world) votersWith(change func(*cluster.Meta, *Config), ids ...string) {
	var servers []raft.Server
	for _, id := range ids {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: network.MemberAddress(id, id+":2"), Suffrage: raft.Voter})
	}
	for _, id := range ids {
		w.fresh(id, change).start(servers)
	}
}

// start runs Raft and the loop that follows leadership.
func (n *member) start(bootstrap []raft.Server) {
	w := n.w
	if err := n.m.Announce(); err != nil {
		w.t.Fatal(err)
	}
	addr := network.MemberAddress(n.id, n.gossip.Meta().Raft)
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
	n.contact = &worldTransport{InmemTransport: trans, sent: make(map[raft.ServerID]time.Time), failed: make(map[raft.ServerID]bool)}
	r, err := raft.NewRaft(cfg, nothing{}, store, store, snaps, n.contact)
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

func (n *member) followLeadership(ctx context.Context, r *raft.Raft) {
	defer close(n.ended)
	leading := false
	for ctx.Err() == nil {
		if now := r.State() == raft.Leader; now != leading {
			leading = now
			if now {
				n.m.Lead(ctx)
			} else {
				n.m.Follow()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stop ends the node without telling anyone.
func (n *member) stop() {
	n.mu.Lock()
	r := n.raft
	n.raft = nil
	n.mu.Unlock()
	if r == nil {
		return
	}
	n.stopped.Store(true)
	n.cancel()
	<-n.ended
	if err := r.Shutdown().Error(); err != nil {
		n.w.t.Error(err)
	}
	if err := n.m.Close(context.Background()); err != nil {
		n.w.t.Error(err)
	}
}

// crash stops the node and lets gossip notice.
func (n *member) crash() {
	n.stop()
	n.w.show(n.id, func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now() })
}

func (n *member) running() Raft {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raft == nil {
		return nil
	}
	return n.raft
}

// show changes a node, and what gossip shows of it.
func (w *world) show(id string, change func(*cluster.Peer)) {
	w.lie(id, change)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truth[id] = w.board[id].Meta
}

// lie changes what gossip shows of a node, and not the node.
func (w *world) lie(id string, change func(*cluster.Peer)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.board[id]
	change(&p)
	w.board[id] = p
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) hide(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.board, id)
}

// leader waits for one.
func (w *world) leader() *member {
	for range 10_000 {
		w.mu.Lock()
		nodes := w.nodes
		w.mu.Unlock()
		for _, n := range nodes {
			if n.m.leading() && n.running() != nil {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatal("no leader")
	return nil
}

// epoch is the time of leadership that has begun.
func (n *member) epoch() *epoch {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	return n.m.epoch
}

// role is what the leader's configuration says of a node.
func (w *world) role(id string) string {
	for _, e := range w.leader().m.Members().GetMembers() {
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
func (w *world) await(id, role string, atMost time.Duration) time.Duration {
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
func (w *world) other() *member {
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

// worldGossip is one node's view of the board.
type worldGossip struct {
	w        *world
	id       string
	conflict string
}

func (g *worldGossip) Addr() string { return g.id + ":3" }

func (g *worldGossip) Peers() (peers []cluster.Peer) {
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

func (g *worldGossip) Peer(id string) (cluster.Peer, bool) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	p, ok := g.w.board[id]
	return p, ok && id != g.id
}

func (g *worldGossip) Changes() <-chan struct{} {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.changed
}

func (g *worldGossip) Settled() bool { return true }

func (g *worldGossip) Hint() string { return "" }

func (g *worldGossip) Conflict() string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.conflict
}

func (g *worldGossip) Meta() cluster.Meta {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.truth[g.id]
}

// SetMeta wakes nobody if nothing changes, as the real one does.
func (g *worldGossip) SetMeta(m cluster.Meta) error {
	if m.NodeID != g.id {
		return fmt.Errorf("set meta of %q on node %q", m.NodeID, g.id)
	}
	if m != g.Meta() {
		g.w.show(g.id, func(p *cluster.Peer) { p.Meta = m })
	}
	return nil
}

func firstOf(addrs []string) string {
	if len(addrs) == 0 {
		return ""
	}
	return addrs[0]
}

// ask shakes hands with the Raft of a node.
func (w *world) ask(_ context.Context, id, place string) (string, error) {
	w.mu.Lock()
	n, truth, slow := w.nodes[id], w.truth[id], w.slow == id
	w.mu.Unlock()
	if slow {
		time.Sleep(time.Second)
		return "", fmt.Errorf("%s is busy: %w", id, os.ErrDeadlineExceeded)
	}
	time.Sleep(time.Millisecond)
	if n == nil || n.running() == nil || truth.Raft != place {
		return "", fmt.Errorf("%s is not at %s", id, place)
	}
	return truth.API, nil
}

// conn is a connection to the node with an API address.
func (w *world) conn(id, api string) (grpc.ClientConnInterface, error) {
	return worldConn{w, id, api}, nil
}

type worldConn struct {
	w       *world
	id, api string
}

func (c worldConn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	c.w.mu.Lock()
	n := c.w.nodes[strings.TrimSuffix(c.api, ":4")] // whatever gossip says
	c.w.mu.Unlock()
	if n == nil || n.running() == nil && method != peerapi.Peers_Self_FullMethodName {
		return apiv1.NewError(apiv1.CodeUnavailable, "nobody at %s", c.api)
	}
	if n.id != c.id {
		return apiv1.NewError(apiv1.CodeUnavailable, "%s is at %s", n.id, c.api)
	}
	switch method {
	case peerapi.Peers_Join_FullMethodName:
		if _, leader := n.running().LeaderWithID(); string(leader) != n.id {
			return worldConn{c.w, string(leader), string(leader) + ":4"}.Invoke(ctx, method, args, reply)
		}
		res, err := n.m.Join(ctx, args.(*peerapi.JoinRequest))
		if err == nil {
			reply.(*peerapi.JoinResponse).ClusterId, reply.(*peerapi.JoinResponse).Index = res.GetClusterId(), res.GetIndex()
		}
		return err
	case peerapi.Peers_Self_FullMethodName:
		return n.self(reply.(*peerapi.SelfResponse))
	}
	return fmt.Errorf("unexpected call %s", method)
}

func (c worldConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams here")
}

func (n *member) self(res *peerapi.SelfResponse) error {
	n.mu.Lock()
	r, mute, behind, votesFrom := n.raft, n.mute, n.behind, n.votesFrom
	n.mu.Unlock()
	if mute || n.stopped.Load() {
		return apiv1.NewError(apiv1.CodeUnavailable, "%s does not answer", n.id)
	}
	proto.Merge(res, n.m.Self())
	if r == nil {
		return nil
	}
	_, leader := r.LeaderWithID()
	res.LeaderId, res.Term, res.LastIndex = string(leader), r.CurrentTerm(), max(r.CommitIndex(), r.AppliedIndex())
	if behind {
		res.LastIndex = 1
	}
	if res.LastIndex < votesFrom { // otherwise it has written down that it votes
		res.VotesFrom = votesFrom
	}
	return nil
}

// worldTransport remembers who has answered, as the real one does.
type worldTransport struct {
	*raft.InmemTransport
	mu     sync.Mutex // guards what follows
	sent   map[raft.ServerID]time.Time
	failed map[raft.ServerID]bool
	check  func() // if set: called, and everybody has answered
}

func (t *worldTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	err := t.InmemTransport.AppendEntries(id, addr, req, resp)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed[id] = err != nil; err == nil {
		t.sent[id] = sent
	}
	return err
}

func (t *worldTransport) Answered(id raft.ServerID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.check != nil {
		t.check()
		return time.Now()
	}
	return t.sent[id]
}

func (t *worldTransport) Answers(id raft.ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.failed[id]
}

// worldLog counts log lines by message.
type worldLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *worldLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *worldLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *worldLog) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// nothing is a state machine that keeps nothing.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return noSnapshot{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }

type noSnapshot struct{}

func (noSnapshot) Persist(s raft.SnapshotSink) error { return s.Close() }
func (noSnapshot) Release()                          {}

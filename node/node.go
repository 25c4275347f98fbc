package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/guard"
	"github.com/locknode/locknode/internal/host"
	"github.com/locknode/locknode/internal/seam"
	"github.com/locknode/locknode/internal/server"
)

// Node is one running member. Its methods are safe for concurrent use.
type Node struct {
	cfg Config
	id  string
	log *slog.Logger

	apiAddr, httpAddr, raftAddr, gossipAddr string // as others dial them

	apiListener, httpListener net.Listener
	raftStream                *guard.Stream

	stores     *guard.Stores
	transport  *guard.Transport
	machine    *fsm.Machine
	cluster    *cluster.Cluster
	membership *membership
	server     *server.Server
	peers      *peers
	router     *router
	host       *host.Host
	rounds     *rounds
	reads      *reads
	snapshots  *snapshots
	waits      *waits
	notices    *notices
	metrics    *metrics

	turn        chan struct{}              // holds a token while an entry is on its way; see holdEntries
	raft        atomic.Pointer[raft.Raft]  // nil until the node has formed or joined a cluster
	epoch       atomic.Pointer[epoch]      // not nil while this node serves as leader
	state       atomic.Pointer[tableState] // of the table after the last entry applied; never nil
	logSlack    uint64                     // entries that the log keeps beyond what snapshots need; see keepLog
	checkpoints checkpoints                // of the table's latest states
	drift       drift                      // between this node's states and the others'
	forming     atomic.Pointer[string]     // what a node without Raft is waiting for
	removedBy   string                     // who has said that this node was removed; owned by watchPlace
	seeds       []string                   // as last written to seedsFile; owned by watchPlace

	ctx         context.Context // of all goroutines
	cancel      context.CancelCauseFunc
	running     sync.WaitGroup
	clients     clients
	closing     atomic.Bool
	closeCalled atomic.Bool
	closeErr    error
	done        chan struct{} // closed when the node has ended, by Close or by itself

	mu      sync.Mutex
	failure error // why it ended by itself
}

// Open starts a node and returns once it listens on its addresses. Forming or
// joining a cluster goes on in the background: WaitReady waits for it. A data
// directory with state continues where it stood, whatever the configuration says
// about bootstrapping. ctx bounds Open, not the node's life.
//
// An error names every fault of the configuration, or says what is wrong with
// the data directory and what to do about it; nothing is left running.
func Open(ctx context.Context, cfg Config) (*Node, error) { return OpenIn(ctx, cfg, cfg.seams) }

// OpenIn is Open in a world that is not the real one, for the simulations of
// this module; package locktest is the way for others.
func OpenIn(ctx context.Context, cfg Config, world seam.Node) (*Node, error) {
	cfg.seams = world
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open node: %w", err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger,
		waits: newWaits(), notices: newNotices(),
		turn: make(chan struct{}, 1), done: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.setForming("starting")
	n.state.Store(&tableState{})
	n.machine = fsm.NewMachine(n.observe)
	n.machine.OnRestore(n.restored)
	n.machine.OnBroken(n.fail)
	if cfg.seams.Machine != nil {
		cfg.seams.Machine(n.machine)
	}
	n.waits.holders = n.holdersOf
	n.peers = newPeers(n.apiOf, cfg.seams.Network)
	n.snapshots = newSnapshots(cfg.seams.SnapshotBytes, cfg.seams.Mono)
	n.reads = newReads(n.appliedIndex, cfg.seams.Mono)
	n.rounds = newRounds(n.confirm, n.whenApplied, cfg.seams.Mono)
	n.router = newRouter(n)
	n.metrics = newMetrics(n)
	if err := n.open(ctx); err != nil {
		n.cancel(err)
		return nil, errors.Join(fmt.Errorf("open node in %s: %w", cfg.DataDir, err), n.release(context.Background()))
	}
	n.start()
	return n, nil
}

// open takes hold of the directory and the addresses; nothing is served yet.
func (n *Node) open(ctx context.Context) (err error) {
	n.stores, err = guard.OpenStores(guard.StoreOptions{
		Dir: n.cfg.DataDir, NodeID: n.cfg.ID, LogStore: n.cfg.LogStore, Logger: n.log,
		StallAfter: max(time.Second, 5*n.cfg.Timing), OnFailure: n.fail, Memory: n.cfg.seams.Memory,
	})
	if err != nil {
		return err
	}
	identity := n.stores.Identity()
	n.id, n.cfg.LogStore = identity.NodeID, identity.LogStore
	n.log = n.log.With("node", n.id)
	n.host = n.newHost()
	if err := n.listen(ctx); err != nil {
		return err
	}
	if n.server, err = server.New(server.Config{
		Backend: n, Logger: n.log, Metrics: n.metrics.handler(), Observer: n.metrics, Unfit: n.stores.Gate,
	}); err != nil {
		return err
	}
	if err := n.openCluster(identity); err != nil {
		return err
	}
	n.transport = guard.NewTransport(n.raftStream, guard.TransportOptions{
		Logger: n.log, Gate: n.stores.Gate, Addresses: n.membership,
		Timeout: max(time.Second, 5*n.cfg.Timing),
	})
	return nil
}

// hostTTL is the TTL of the sessions in which the node sends requests without one: a
// wait outlives its node by as much.
const hostTTL = 5 * time.Second

func (n *Node) newHost() *host.Host {
	return host.New(host.Config{
		Start: n.startInSession, Mono: n.cfg.seams.Mono, TTL: max(hostTTL, 4*n.cfg.Timing), Holder: "node " + n.id, Logger: n.log,
		Limits: func() (limits fsm.Limits) {
			limits = limits.WithDefaults() // of a table that is broken nobody asks anything
			n.machine.View(func(t *fsm.Table) { limits = t.Limits() })
			return limits
		},
	})
}

// listen binds the API, HTTP and Raft addresses.
func (n *Node) listen(ctx context.Context) (err error) {
	if n.apiListener, err = n.bind(ctx, n.cfg.APIAddr); err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	n.apiAddr = n.cfg.advertised(n.apiListener.Addr().String())
	if n.cfg.HTTPAddr != "off" {
		if n.httpListener, err = n.bind(ctx, n.cfg.HTTPAddr); err != nil {
			return fmt.Errorf("listen for HTTP: %w", err)
		}
		n.httpAddr = n.cfg.advertised(n.httpListener.Addr().String())
	}
	options := guard.StreamOptions{Logger: n.log, Cluster: n.clusterIdentity}
	if n.cfg.AdvertiseHost != "" {
		options.Advertise = n.cfg.advertised(n.cfg.RaftAddr)
	}
	if network := n.cfg.seams.Network; network != nil {
		options.Dial = network.Dial
		l, err := network.Listen(n.cfg.RaftAddr)
		if err != nil {
			return fmt.Errorf("listen for raft on %s: %w", n.cfg.RaftAddr, err)
		}
		n.raftStream = guard.NewStream(l, options)
	} else if n.raftStream, err = guard.ListenTCP(n.cfg.RaftAddr, options); err != nil {
		return err
	}
	n.raftAddr = n.raftStream.Addr().String()
	return nil
}

func (n *Node) bind(ctx context.Context, addr string) (net.Listener, error) {
	if n.cfg.seams.Network != nil {
		return n.cfg.seams.Network.Listen(addr)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// start begins to serve. From here on Close ends the node.
func (n *Node) start() {
	n.goRun(func() { n.serveOn(n.server.ServeGRPC, n.apiListener) })
	if n.httpListener != nil {
		n.goRun(func() { n.serveOn(n.server.ServeHTTP, n.httpListener) })
	}
	n.goRun(func() { n.reads.run(n.ctx) })
	n.goRun(func() { n.rounds.run(n.ctx) })
	n.goRun(func() { n.router.run(n.ctx) })
	n.goRun(func() { n.host.Run(n.ctx) })
	n.goRun(n.join)
	n.log.Info("node started", "api", n.apiAddr, "http", n.httpAddr, "raft", n.raftAddr, "gossip", n.gossipAddr, "data", n.cfg.DataDir)
}

func (n *Node) serveOn(serve func(net.Listener) error, l net.Listener) {
	if err := serve(l); err != nil && !n.closing.Load() {
		n.fail(err)
	}
}

func (n *Node) goRun(f func()) {
	n.running.Add(1)
	go func() {
		defer n.running.Done()
		f()
	}()
}

// fail ends a node that cannot go on. It returns at once; Done tells when the
// node has ended and Err why.
func (n *Node) fail(err error) {
	n.mu.Lock()
	first := n.failure == nil && !n.closing.Load()
	if first {
		n.failure = err
	}
	n.mu.Unlock()
	if first {
		n.log.Error("the node stops: it cannot go on", "err", err)
		go func() { _ = n.Close() }()
	}
}

// Done is closed when the node has ended, by Close or because it could not go
// on; Err tells which.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is why the node ended by itself: a failed write to its disk, a defect, or
// its removal from the cluster ([ErrRemoved]). It is nil while the node runs and
// after Close.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

// Watch calls f, which must not block, for what happens to a session until stop
// is called.
func (n *Node) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	return n.notices.watch(fsm.SessionID(session), f)
}

// ID is the node's name in the cluster.
func (n *Node) ID() string { return n.id }

// APIAddr is where gRPC clients dial the node.
func (n *Node) APIAddr() string { return n.apiAddr }

// HTTPAddr is where HTTP clients dial the node; empty if it serves no HTTP.
func (n *Node) HTTPAddr() string { return n.httpAddr }

// RaftAddr is where the other members' Raft dials the node.
func (n *Node) RaftAddr() string { return n.raftAddr }

// GossipAddr is where gossip reaches the node; others may use it as a seed.
func (n *Node) GossipAddr() string { return n.gossipAddr }

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
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/gossipkeys"
	"github.com/locknode/locknode/internal/host"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/replica"
	"github.com/locknode/locknode/internal/seam"
	"github.com/locknode/locknode/internal/secure"
	"github.com/locknode/locknode/internal/server"
)

// Node is one running member of a cluster. [Open] makes it; the zero value is of no use.
// Its methods are safe for concurrent use.
type Node struct {
	cfg Config
	id  string
	log *slog.Logger // one line for each cause and minute; see logs.go
	// raftLog is the same for Raft, whose lines count tries.
	raftLog *slog.Logger
	repeats *repeats

	apiAddr, httpAddr, raftAddr string // as others dial them

	bound                     addresses
	apiListener, httpListener net.Listener
	raftStream                *network.Stream

	security   security
	gossipKeys *gossipkeys.Store // nil: gossip is in plain text
	keyPort    *secure.Port      // for exchanges of gossip keys; nil without TLS
	stores     *disk.Stores
	transport  *network.Transport
	machine    *replica.Table
	cluster    *cluster.Cluster
	membership *membership.Manager
	server     *server.Server
	peers      *peers
	router     *router
	self       *client.Client // of this very node, for Status and Members; it opens no session
	host       *host.Host
	rounds     *rounds
	reads      *reads
	missing    *missingSessions
	snapshots  *snapshots
	waits      *waits
	notices    *notices
	audit      *audit.Log // nil: nothing is recorded
	grants     *grantLog  // nil: grants are not recorded
	metrics    *metrics
	rights     *rightsHere
	registered atomic.Bool // cfg.Metrics has the metrics

	turn        chan struct{}                      // holds a token while an entry is on its way; see holdEntries
	raft        atomic.Pointer[raft.Raft]          // nil until the node has formed or joined a cluster
	owners      atomic.Pointer[ownersShown]        // as a status showed them last
	changesKeys sync.Mutex                         // held while an operator's change of gossip keys is under way
	limiting    sync.Mutex                         // held while an operator's change of limits is under way
	epoch       atomic.Pointer[epoch]              // not nil while this node serves as leader
	level       atomic.Pointer[tableLevel]         // nil: nothing was applied yet
	state       atomic.Pointer[tableState]         // of the table after the last entry applied; never nil
	logSlack    uint64                             // entries that the log keeps beyond what snapshots need; see keepLog
	checkpoints checkpoints                        // of the table's latest states
	divergence  divergence                         // between this node and its peers
	reported    atomic.Pointer[reportedElectorate] // by a leader, who votes; nil if none has
	waitsToStop atomic.Bool                        // Close waits until the others can do without this node
	forming     atomic.Pointer[string]             // what a node without Raft is waiting for
	seeds       seedList                           // as last written to seedsFile; owned by watchPlace

	ctx         context.Context // of all goroutines
	cancel      context.CancelCauseFunc
	running     sync.WaitGroup
	clients     clients
	closing     atomic.Bool
	closeCalled atomic.Bool
	closeErr    error
	done        chan struct{} // closed when the node has ended, by Close or by itself

	mu      sync.Mutex // guards failure
	failure error      // why it ended by itself
}

// Open starts a node and returns once it listens on its addresses. Forming or
// joining a cluster goes on in the background: [Node.WaitReady] waits for it. A data
// directory with state continues where it was, whatever the configuration says
// about bootstrapping. ctx bounds Open only: the node runs until Close.
//
// An error names every fault of the configuration, or says what is wrong with the
// addresses or the data directory and what to do about it. It is an [fsm.LevelError] if a
// later version of Locknode is needed for the data directory. After an error nothing is
// left running, and the listeners in cfg are closed. Open may be called again: a new data
// directory is as new as before if an address could not be bound.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if world, ok := seam.From(ctx); ok {
		cfg.seams = world
	}
	listeners := addresses{api: cfg.APIListener, http: cfg.HTTPListener, raft: cfg.RaftListener}
	cfg, err := cfg.withDefaults()
	if err != nil {
		listeners.close()
		return nil, fmt.Errorf("open node: %w", err)
	}
	n := &Node{
		cfg: cfg, bound: listeners,
		waits: newWaits(), notices: newNotices(),
		turn: make(chan struct{}, 1), done: make(chan struct{}),
	}
	logs := newSparing(cfg.Logger.Handler())
	n.repeats, n.log, n.raftLog = logs.all, slog.New(logs), slog.New(logs.forRaft())
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.setForming("starting")
	n.state.Store(&tableState{})
	n.machine = replica.New(n.observe)
	n.machine.OnRestore(n.restored)
	n.machine.OnBroken(n.fail)
	n.machine.OnLevel(n.levelChanged)
	if cfg.seams.Machine != nil {
		cfg.seams.Machine(n.machine)
	}
	n.waits.holders = n.holdersOf
	n.snapshots = newSnapshots(cfg.seams.SnapshotBytes, cfg.seams.Mono)
	n.reads = newReads(n.appliedIndex, cfg.seams.Mono)
	n.rounds = newRounds(n.confirm, n.reads.reach, cfg.seams.Mono)
	n.rounds.busy, n.reads.freed = n.reads.busy, n.rounds.wake
	n.missing = &missingSessions{round: n.rounds.join, reach: n.reads.reach, table: n.machine, epoch: n.epoch.Load}
	n.rights = newRightsHere(n)
	n.metrics = newMetrics(n)
	n.self = clientOf(unended{wire{n}}, nil)
	if err := n.open(ctx); err != nil {
		n.cancel(err)
		return nil, errors.Join(fmt.Errorf("open node in %s: %w", cfg.DataDir, err), n.release(context.Background()))
	}
	n.start()
	return n, nil
}

// open opens the directory and binds the addresses. Nothing is served yet.
func (n *Node) open(ctx context.Context) (err error) {
	if err := n.openTLS(); err != nil { // before the directory: a new one is to stay new
		return err
	}
	n.stores, err = disk.OpenStores(disk.StoreOptions{
		Dir: n.cfg.DataDir, NodeID: n.cfg.ID, LogStore: n.cfg.LogStore, Logger: n.log,
		StallAfter: max(time.Second, 5*n.cfg.Timing), OnFailure: n.fail, Memory: n.cfg.seams.Memory,
		BeforeNew: func() error { return n.bind(ctx) },
	})
	if err != nil {
		return err
	}
	identity := n.stores.Identity()
	if err := knowsLevel(identity); err != nil {
		return err
	}
	n.id, n.cfg.LogStore = identity.NodeID, identity.LogStore
	n.log, n.raftLog = n.log.With("node", n.id), n.raftLog.With("node", n.id)
	n.openAudit()
	n.host = n.newHost()
	if err := n.bind(ctx); err != nil {
		return err
	}
	if err := n.ownCertificate(); err != nil {
		return err
	}
	n.listen()
	n.peers = newPeers(peersConfig{
		dialer: n.security.dialer,
		self:   place{n.id, n.apiAddr}, addresses: func(id string) []string { return n.membership.APIAddresses(id) },
		cluster: n.knownCluster, key: n.peerKey, network: n.cfg.seams.Network,
	})
	n.router = newRouter(routerConfig{id: n.id, mono: n.cfg.seams.Mono, log: n.log, node: n, dial: n.peers.conn})
	if n.server, err = server.New(server.Config{
		Backend: wire{n}, Logger: n.log, Metrics: n.metrics.handler(), Observer: n.metrics, Unfit: n.stores.Gate,
		Limits: server.Limits{Connections: n.cfg.MaxConnections, ConnectionsPerIP: n.cfg.MaxConnectionsPerAddress, Memory: serverBytes()},
		Files:  n.clientFiles(), Admit: leaveToPeers, Hosts: n.cfg.hosts(),
		Self: func() (node, cluster string) { return n.id, n.knownCluster() },
		Peer: n.isPeerKey, Member: n.memberOnly,
		Auth: n.serverAuth(), Audit: n.noted, Begin: n.begins, QuotaOf: n.quotas(), Debug: n.cfg.Debug,
		SecureGRPC: n.security.api, SecureHTTP: n.security.http, NeedCertificate: n.cfg.TLS.clientsNeedCertificates(),
	}); err != nil {
		return err
	}
	if err := n.rights.writeProof(n.cfg.DataDir); err != nil { // the disk may be full, and have room for the log
		n.log.Warn("no proof for the first access token: locknode token bootstrap works through other nodes only", "err", err)
	}
	if err := n.openCluster(identity); err != nil {
		return err
	}
	n.transport = network.NewTransport(n.raftStream, network.TransportOptions{
		Logger: n.raftLog, Gate: n.stores.Gate, Addresses: n.membership,
		Timeout: max(time.Second, 5*n.cfg.Timing),
	})
	return n.register()
}

// hostTTL is the least TTL of the sessions in which the node sends requests without one: a
// wait goes on for as long after its node has stopped.
const hostTTL = 5 * time.Second

func (n *Node) newHost() *host.Host {
	return host.New(host.Config{
		Start: n.startInSession, Mono: n.cfg.seams.Mono, TTL: max(hostTTL, 4*n.cfg.Timing), Holder: "node " + n.id, Logger: n.log,
		Limits: func() (limits fsm.Limits) {
			limits = limits.WithDefaults() // for a broken table, which serves nothing
			n.machine.View(func(t *fsm.Table) { limits = t.Limits() })
			return limits
		},
	})
}

// start begins to serve. From here on only Close ends the node.
func (n *Node) start() {
	n.goRun(func() { n.serveOn(n.server.ServeGRPC, n.apiListener) })
	if n.httpListener != nil {
		n.goRun(func() { n.serveOn(n.server.ServeHTTP, n.httpListener) })
	}
	n.goRun(func() { n.reads.run(n.ctx) })
	n.goRun(func() { n.rights.run(n.ctx) })
	n.goRun(func() { n.rounds.run(n.ctx) })
	n.goRun(func() { n.router.run(n.ctx) })
	n.goRun(func() { n.host.Run(n.ctx) })
	if n.security.source != nil {
		n.goRun(func() { n.security.source.Watch(n.ctx) })
	}
	n.goRun(n.join)
	n.logTLS()
	n.noteStart()
	n.log.Info("node started", "api", n.apiAddr, "http", n.httpAddr, "raft", n.raftAddr, "gossip", n.GossipAddr(), "data", n.cfg.DataDir)
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

// fail ends a node that cannot go on, and returns at once. Done is closed when the node
// has ended, and Err says why.
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

// Done returns a channel that is closed when the node has ended, by Close or because it
// could not go on; Err says which.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why the node ended by itself: a failed write to its disk, a bug, its removal
// from the cluster ([ErrRemoved]) or a state that differs from the others' ([ErrDiverged]).
// It is nil while the node runs and after Close. It may be set some time before Done is
// closed. It waits for nothing.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

// Watch calls f, which must not block, for each notice of a session until stop is called.
func (n wire) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	return n.notices.watch(fsm.SessionID(session), f)
}

// ID returns the node's name in the cluster, which never changes.
func (n *Node) ID() string { return n.id }

// APIAddr returns the host:port that gRPC clients dial. It does not change while the node
// runs.
func (n *Node) APIAddr() string { return n.apiAddr }

// HTTPAddr returns the host:port that HTTP clients dial, empty if the node serves no HTTP.
// It does not change while the node runs.
func (n *Node) HTTPAddr() string { return n.httpAddr }

// RaftAddr returns the host:port that the other members' Raft dials. It does not change
// while the node runs.
func (n *Node) RaftAddr() string { return n.raftAddr }

// GossipAddr returns the host:port at which gossip reaches the node; other nodes may have
// it in [Config.Join]. It does not change while the node runs.
func (n *Node) GossipAddr() string { return n.cluster.Addr() }

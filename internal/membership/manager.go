package membership

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// Raft is what a manager needs of a *raft.Raft.
type Raft interface {
	Configured
	State() raft.RaftState
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	LastContact() time.Time
	CurrentTerm() uint64
	LastIndex() uint64
	CommitIndex() uint64
	Barrier(timeout time.Duration) raft.Future
	AddVoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture
	AddNonvoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture
	DemoteVoter(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture
	RemoveServer(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture
}

// Gossip is what a manager needs of a *cluster.Cluster.
type Gossip interface {
	Addr() string
	Peers() []cluster.Peer
	Peer(id string) (cluster.Peer, bool)
	Changes() <-chan struct{}
	Settled() bool
	Conflict() string
	Hint() string
	Meta() cluster.Meta
	SetMeta(cluster.Meta) error
}

// Config is what a manager is made of. Every function and interface is needed.
type Config struct {
	ID          string // of this node
	ClusterName string // empty: the cluster has none
	Gossip      Gossip
	// Raft returns nil until Raft runs.
	Raft func() Raft
	// Contact is what Raft's transport knows of the others.
	Contact func() Contact
	// SaidAPI is the API address that a member has named on its last Raft connection.
	SaidAPI func(id string) string
	// Ask is what a member that answers at a place of its Raft, under its ID and as one of
	// this cluster, says of where calls reach it.
	Ask func(ctx context.Context, id, place string) (api string, err error)
	// Find is the API address at which a node is looked for now, empty if none is known.
	Find func(id string) string
	// Conn returns a connection to a node at an API address; it does not wait for it.
	Conn func(id, api string) (grpc.ClientConnInterface, error)
	// ClusterID is the ID in the table, empty until there is one.
	ClusterID func() string
	// Promised is what is on disk, and KeepPromise puts it there: when it returns nil, the
	// promise survives a power loss.
	Promised    cluster.Founders
	KeepPromise func(cluster.Founders) error
	// Changed is called for each change of Raft's configuration that this node has made:
	// what was done to which member, the log index of it, and the error if it is not known
	// whether it was committed. It must not block. nil: nobody is told.
	Changed func(what, id string, index uint64, err error)
	// Waiting is called with what a node without Raft waits for. It must not block.
	Waiting func(reason string)

	Levels Levels

	Timing              time.Duration // election timeout
	RemoveFailedAfter   time.Duration // negative: never
	RemoveReplacedAfter time.Duration // negative: never
	MaxNonvoters        int
	Fast                bool // shorter intervals, for tests and demonstrations
	Logger              *slog.Logger
}

// Manager decides who is in Raft's configuration, see the package's documentation. All
// methods are safe for concurrent use, except that Lead and Follow are called by one
// goroutine, and RemovedBy by one.
type Manager struct {
	cfg   Config
	times times

	// changing is a lock that can be waited for with a context. It is held
	// through every change of Raft's configuration, from reading it to the commit,
	// so that each is decided on the result of the one before it.
	changing chan struct{}

	mu     sync.Mutex
	epoch  *epoch               // guarded by mu; nil while another node leads
	closed bool                 // guarded by mu: nothing may be started any more
	warned map[string]string    // guarded by mu: cause → its last warning
	joined map[string]time.Time // guarded by mu: node that was admitted by this one and not reached by Raft yet → since when

	homes     homes
	removedBy string       // the leader that has reported that this node was removed; owned by RemovedBy
	pace      pace         // of nodes that join
	meeting   atomic.Int32 // nodes that want to join and are being asked

	unsettled atomic.Bool    // the latest configuration may be one that is not committed
	asked     atomic.Int32   // changes that callers wait for
	running   sync.WaitGroup // everything that start has started
}

// times is what Fast changes.
type times struct {
	update    time.Duration // between looks at every member's health
	reconcile time.Duration // between promotions and removals
	stable    time.Duration // healthy for this long before a nonvoter votes
	change    time.Duration // for Raft to accept one change
	call      time.Duration // for one call of a peer
	reach     time.Duration // for Raft to reach a node that has joined
	home      time.Duration // between two checks whether a member is at home
	retryMin  time.Duration // between tries to join
	retryMax  time.Duration
}

// New returns a manager that does nothing yet.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, changing: make(chan struct{}, 1), warned: make(map[string]string), joined: make(map[string]time.Time)}
	m.times = times{
		update: 2 * time.Second, reconcile: 5 * time.Second, stable: 10 * time.Second,
		change: 5 * time.Second, call: 5 * time.Second, reach: 5 * time.Minute, home: time.Second,
		retryMin: 200 * time.Millisecond, retryMax: 5 * time.Second,
	}
	if cfg.Fast {
		m.times = times{
			update: 200 * time.Millisecond, reconcile: 200 * time.Millisecond, stable: 300 * time.Millisecond,
			change: 2 * time.Second, call: 2 * time.Second, reach: 20 * time.Second, home: 200 * time.Millisecond,
			retryMin: 20 * time.Millisecond, retryMax: 500 * time.Millisecond,
		}
	}
	m.homes.ask, m.homes.start, m.homes.every = cfg.Ask, m.start, m.times.home
	return m
}

// Announce announces in gossip that this node has Raft state and which cluster it belongs
// to, as far as that is known. It has to be called before Raft starts, so that no other
// node counts this one among the fresh ones, and again when the table's cluster ID becomes
// known or changes.
func (m *Manager) Announce() error {
	meta := m.cfg.Gossip.Meta()
	meta.Formed, meta.ClusterID, meta.Intent = true, m.cfg.ClusterID(), ""
	if err := m.cfg.Gossip.SetMeta(meta); err != nil {
		return fmt.Errorf("announce membership: %w", err)
	}
	return nil
}

// Lead starts to look after the configuration. It returns at once; the work
// ends with ctx or Follow, whichever comes first.
func (m *Manager) Lead(ctx context.Context) {
	m.Follow()
	e := m.newEpoch(ctx)
	m.unsettled.Store(false) // the barrier that leadership began with came after all changes before it
	m.mu.Lock()
	m.epoch = e
	m.mu.Unlock()
	if !m.start(e.run) {
		e.cancel()
	}
}

// start runs f on a goroutine that Close waits for; it refuses after Close.
func (m *Manager) start(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		f()
	}()
	return true
}

// Follow ends what Lead began. It does not wait: a change that is under way
// fails by itself, because this node does not lead any more.
func (m *Manager) Follow() {
	m.mu.Lock()
	e := m.epoch
	m.epoch = nil
	m.mu.Unlock()
	if e != nil {
		e.cancel()
	}
}

// leading reports whether this node leads.
func (m *Manager) leading() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch != nil
}

// Close ends what Lead began and waits until nothing of it runs any more, at
// most until ctx ends. Changes under way end when Raft is shut down, so that
// comes first.
func (m *Manager) Close(ctx context.Context) error {
	m.Follow()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() { m.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close membership: %w", context.Cause(ctx))
	}
}

// Members lists Raft's configuration and the other peers that gossip sees, sorted by ID.
func (m *Manager) Members() *apiv1.MembersResponse {
	byID := make(map[string]*apiv1.Member)
	add := func(id string) *apiv1.Member {
		if byID[id] == nil {
			byID[id] = &apiv1.Member{Id: id, Role: "none", Health: "unknown"}
		}
		return byID[id]
	}
	describe := func(meta cluster.Meta, gossip, health string) {
		e := add(meta.NodeID)
		e.ApiAddress, e.HttpAddress, e.RaftAddress, e.GossipAddress = meta.API, meta.HTTP, meta.Raft, gossip
		e.Version, e.Zone, e.Health = meta.Version, meta.Zone, health
		e.FeatureLevel = uint32(meta.Level) //nolint:gosec // bounded by package cluster
		e.Tls = saidTLS(meta)
	}
	describe(m.cfg.Gossip.Meta(), m.cfg.Gossip.Addr(), cluster.Alive.String())
	for _, p := range m.cfg.Gossip.Peers() {
		describe(p.Meta, p.Gossip, p.State.String())
	}
	if r := m.cfg.Raft(); r != nil {
		_, leader := r.LeaderWithID()
		for _, s := range Servers(r) {
			e := add(string(s.ID))
			e.RaftAddress = Place(s)
			switch {
			case s.ID == leader:
				e.Role = "leader"
			case s.Suffrage == raft.Voter:
				e.Role = "voter"
			default:
				e.Role = "nonvoter"
			}
		}
	}
	res := &apiv1.MembersResponse{}
	for _, e := range byID {
		res.Members = append(res.Members, e)
	}
	sort.Slice(res.Members, func(i, j int) bool { return res.Members[i].Id < res.Members[j].Id })
	return res
}

// saidTLS is the mode of TLS that a node itself has named. A version without TLS names none,
// which is the same.
func saidTLS(meta cluster.Meta) string {
	switch {
	case meta.TLSOnly:
		return "required"
	case meta.TLS:
		return "permissive"
	}
	return "off"
}

// warnOnce logs a warning unless it is the same that was last logged for cause.
func (m *Manager) warnOnce(cause, msg string, args ...any) {
	text := fmt.Sprint(append([]any{msg}, args...)...)
	m.mu.Lock()
	same := m.warned[cause] == text
	if len(m.warned) >= 1024 { // causes name nodes, and nodes come and go
		clear(m.warned)
	}
	m.warned[cause] = text
	m.mu.Unlock()
	if !same {
		m.cfg.Logger.Warn(msg, args...)
	}
}

// warnAgain has the next warnOnce for cause log, whatever its text.
func (m *Manager) warnAgain(cause string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.warned, cause)
}

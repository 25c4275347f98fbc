package guard

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	defaultRPCTimeout = 2 * time.Second
	defaultMaxFrame   = 32 << 20
	defaultMaxPool    = 3
)

// TransportOptions shape a Transport; the zero value works.
type TransportOptions struct {
	// Logger gets what happens; nil is silent.
	Logger *slog.Logger
	// Gate is asked at each read and write; while it returns an error, nothing
	// enters or leaves. Nil is always open. See Stores.Gate.
	Gate func() error
	// Addresses resolves node IDs; nil uses the addresses in raft's configuration.
	Addresses raft.ServerAddressProvider
	// Timeout is how long an RPC may make no progress; zero is 2 s. A large
	// entry on a slow link may take longer as long as its bytes move.
	Timeout time.Duration
	// MaxFrame bounds one request or answer, snapshots excepted; zero is 32 MiB.
	MaxFrame int64
	// MaxPool is how many idle connections to keep per peer; zero is 3.
	MaxPool int
}

// Transport is a raft.NetworkTransport with these differences:
//   - Heartbeats change raft on its main goroutine only. Raft's own fast path
//     handles them on the connection's goroutine, where they change the term while
//     the leader loop sleeps; an Apply that wakes it is then stored under a term
//     this node does not lead (hashicorp/raft #695).
//   - It never pipelines (hashicorp/raft #612).
//   - A request that raft would panic on does not reach it; see unsound.
//   - It carries nothing while the gate is closed, so that a node with a hung or
//     failed disk falls silent and the others elect another leader (#503, #614).
//   - A node that joined votes only when it has its joining; see votes.go.
//   - No request tells raft that entries are committed that it says nothing of; see
//     commit.go.
//   - A leader that has been silent for an election timeout is not defended against
//     who wants to succeed it; see silence.go.
//   - It replicates again as soon as a peer is back; see reach.
//   - Close ends every connection; raft.NetworkTransport leaves them open.
type Transport struct {
	*raft.NetworkTransport
	streams   *gatedStream
	reach     *reach
	progress  progress
	member    atomic.Pointer[raft.Raft] // whom it works for; set by NewRaft
	votesFrom atomic.Uint64             // see votes.go; set by NewRaft
	patience  atomic.Int64              // an election timeout; set by NewRaft
	began     time.Time
	lastHeard atomic.Int64 // when a leader sent something, since began
	toRaft    chan raft.RPC
	beats     chan raft.RPC // at most one heartbeat that was answered already
	warned    time.Time     // of a request that was refused; owned by pump

	asked  chan struct{} // closed by the first Consumer: pump looks at no request before
	asking sync.Once
	once   sync.Once
	done   chan struct{} // closed by Close
	pumped sync.WaitGroup
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// NewTransport starts a transport on stream, which it owns from then on.
func NewTransport(stream raft.StreamLayer, o TransportOptions) *Transport {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultRPCTimeout
	}
	if o.MaxFrame == 0 {
		o.MaxFrame = defaultMaxFrame
	}
	if o.MaxPool == 0 {
		o.MaxPool = defaultMaxPool
	}
	t := &Transport{
		began:   time.Now(),
		streams: newGatedStream(stream, o),
		toRaft:  make(chan raft.RPC),
		beats:   make(chan raft.RPC, 1),
		asked:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	t.reach = newReach(t)
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                t.streams,
		ServerAddressProvider: o.Addresses,
		Logger:                RaftLogger(o.Logger),
		MaxPool:               o.MaxPool,
		MaxRPCsInFlight:       1,
		Timeout:               o.Timeout,
	})
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
	t.pumped.Go(t.pump)
	return t
}

// Close stops the transport and ends all its connections. RPCs under way fail.
func (t *Transport) Close() error {
	t.once.Do(func() { close(t.done) })
	err := t.NetworkTransport.Close()
	t.streams.closeConns()
	t.pumped.Wait()
	return err
}

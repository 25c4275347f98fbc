package network

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/hclogs"
)

const (
	defaultRPCTimeout = 2 * time.Second
	defaultMaxFrame   = MaxEntries * (MaxEntryBytes + 1<<10)
	defaultMaxPool    = 3
)

// TransportOptions shape a Transport; the zero value works.
type TransportOptions struct {
	// Logger gets what happens; nil is silent. Peers can cause lines as often as they
	// like: the logger has to limit those of one message.
	Logger *slog.Logger
	// Gate is asked at each read and write; while it returns an error, nothing
	// enters or leaves. Nil is always open. See Stores.Gate.
	Gate func() error
	// Addresses knows where members may be; nil uses the addresses in raft's configuration.
	Addresses Addresses
	// Timeout is how long an RPC may make no progress; zero is 2 s. A large
	// entry on a slow link may take longer as long as its bytes move.
	Timeout time.Duration
	// MaxFrame bounds a request with entries; zero is 20 MiB, enough for the largest number
	// of the longest entries. Other requests and answers are bounded by 64 KiB. A snapshot
	// has no bound.
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
//   - A request that raft would panic on does not reach it, and no number that is
//     implausibly far ahead of this node's own; see refuse.go and plausible.go.
//   - It carries nothing while the gate is closed, so that a node with a hung or
//     failed disk falls silent and the others elect another leader (#503, #614).
//   - A node that joined votes only once it has the entry of its joining; see votes.go.
//   - The commit index of a request covers no entry that the request does not reach; see
//     commit.go.
//   - A leader may still be writing what it sends; see durable.go.
//   - Votes are not refused on behalf of a leader that has been silent for an election
//     timeout; see silentleader.go.
//   - It replicates again as soon as a peer is back; see unreachable.go.
//   - Members are told apart by their IDs and not by their addresses, which change
//     hands; see member.go.
//   - Close ends every connection; raft.NetworkTransport leaves them open.
type Transport struct {
	*raft.NetworkTransport
	streams   *gatedStream
	reach     *reach
	contacts  contacts
	progress  progress
	addresses Addresses
	places    *Places
	member    atomic.Pointer[raft.Raft]   // the Raft that it serves; set by NewRaft
	stores    atomic.Pointer[disk.Stores] // see durable.go; set by NewRaft
	votesFrom atomic.Uint64               // see votes.go; set by NewRaft
	patience  atomic.Int64                // an election timeout; set by NewRaft
	began     time.Time
	lastHeard atomic.Int64           // when a leader sent something, since began
	ledBy     atomic.Pointer[string] // the node ID of that leader; nil: none did
	terms     horizon
	indexes   horizon
	toRaft    chan raft.RPC
	beats     chan raft.RPC // at most one heartbeat that was answered already

	// running is closed when raft runs and member is set; set by NewRaft, nil without.
	running atomic.Pointer[chan struct{}]

	asked  chan struct{} // closed by the first Consumer: no request is read before
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
		began:     time.Now(),
		streams:   newGatedStream(stream, o),
		addresses: o.Addresses,
		toRaft:    make(chan raft.RPC),
		beats:     make(chan raft.RPC, 1),
		asked:     make(chan struct{}),
		done:      make(chan struct{}),
		terms:     horizon{what: "term", near: nearTerms},
		indexes:   horizon{what: "entry", near: nearEntries},
	}
	t.places = &t.streams.places
	t.reach = newReach(t)
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          t.streams,
		Logger:          hclogs.RaftLogger(o.Logger),
		MaxPool:         o.MaxPool,
		MaxRPCsInFlight: 1,
		Timeout:         o.Timeout,
	})
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
	if s, ok := stream.(*Stream); ok {
		s.bind(t.whereIs, t.unwelcome)
	}
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

package mux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
)

// Why a Conn broke, where it was not the stream itself.
var (
	ErrStalled = errors.New("the node does not answer")
	ErrClosed  = errors.New("connection closed")
)

// NoNoticesHeader is the gRPC header of a stream without notices: a node that forwards
// gets them from its own copy of the log.
const NoNoticesHeader = "locknode-no-notices"

// ClusterHeader is the gRPC header of calls and streams that are meant for one
// cluster, with its ID: addresses change hands, and a node of another cluster refuses
// them.
const ClusterHeader = "locknode-cluster"

// MemberHeader is the gRPC header of calls and streams that are meant for one node,
// with its ID: another node that has its address now refuses them with
// [apiv1.CodeUnavailable], because nothing was done, and WrongNodeTrailer.
const MemberHeader = "locknode-member-bin"

// PeerHeader is the gRPC header of streams of other nodes of the cluster, with the key that
// only they have: operations on such a stream carry their owner. On any other stream the
// owner is the address of the connection.
const PeerHeader = "locknode-peer-bin"

// WrongNodeTrailer is the gRPC trailer of a call or stream that was refused because it
// was meant for another node or cluster.
const WrongNodeTrailer = "locknode-wrong-node"

// Config configures a Conn. The zero value is valid.
type Config struct {
	Logger *slog.Logger // nil: silent

	// Patience is how long the node may be silent. nil: one of its own, which begins
	// at a second and is forgotten with the conn.
	Patience *Patience
	// PingEvery is the time between pings while an operation takes long. 0: 1 s.
	PingEvery time.Duration

	// OnSilent is called when the node has been silent for the limit of its patience, once
	// for each silence. The caller may then look for another node. The conn breaks only
	// after three times as long, because a node that is merely slow would get everything
	// again. nil: it breaks after the limit.
	OnSilent func()
	// OnNotice gets the notices that the node pushes. nil: the stream is one without.
	OnNotice func(*apiv1.Notice)
	// OnDirectory gets the addresses of the members, which the node pushes on streams with
	// notices. nil: they are ignored.
	OnDirectory func(*apiv1.Directory)
	// OnBreak gets the calls that were not answered, in the order in which they
	// were started: once when the conn breaks, even if there are none, and again
	// for calls that are started later; never from within Start, never two at a
	// time. They may have taken effect, and are [Call.Doubtful] then: only the same
	// request IDs may be sent again. nil: they are answered with unknown_outcome.
	OnBreak func(calls []*Call, err error)
}

// Conn carries calls over one Session stream to one node. All methods are safe
// for concurrent use and may be called from its callbacks. Callbacks run on the
// Conn's goroutines and must not block.
type Conn struct {
	cfg    Config
	stream grpc.BidiStreamingClient[apiv1.SessionRequest, apiv1.SessionResponse]
	ctx    context.Context // the stream's
	cancel context.CancelCauseFunc
	woken  chan struct{} // the queue is no longer empty
	sent   chan struct{} // closed when the sender has ended
	done   chan struct{} // closed when both goroutines have ended
	odd    bool          // unexpected answers have been logged; used by the receiver only

	mu      sync.Mutex         // guards what follows
	lastID  uint64             // of the stream, counts from 1
	pending map[uint64]*Call   // by id on the stream: sent or queued, and not answered; nil: a ping
	queue   fair.Queue[queued] // to be sent
	ahead   fair.Queue[queued] // to be sent before those: pings and keep-alives
	silence silence            // of the node
	timer   *time.Timer        // runs check while there is something pending
	due     time.Time          // when the timer should fire; zero: not set
	err     error              // why it broke
	late    []*Call            // started after the break
	handing bool               // handOver runs and will read late
}

type queued struct {
	id   uint64
	call *Call // nil: a ping
}

// Open starts a Session stream on cc. It waits until cc is connected or ctx
// ends; after that ctx no longer matters.
func Open(ctx context.Context, cc grpc.ClientConnInterface, cfg Config) (*Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Patience == nil {
		cfg.Patience = NewPatience(0)
	}
	if cfg.PingEvery == 0 {
		cfg.PingEvery = time.Second
	}
	if cfg.OnNotice == nil {
		cfg.OnNotice = func(*apiv1.Notice) {}
		ctx = metadata.AppendToOutgoingContext(ctx, NoNoticesHeader, "1")
	}
	if cfg.OnBreak == nil {
		cfg.OnBreak = answerUnknown
	}
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	stream, err := apiv1.NewLocksClient(cc).Session(streamCtx)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(err)
		return nil, fmt.Errorf("open session stream: %w", err)
	}
	// Calling Context keeps gRPC from opening the stream again by itself when a node went
	// away before it handled it. That has no time limit and blocks the sender, while
	// another node may be available.
	_ = stream.Context()
	c := &Conn{
		cfg: cfg, stream: stream, ctx: streamCtx, cancel: cancel,
		woken: make(chan struct{}, 1), sent: make(chan struct{}), done: make(chan struct{}),
		pending: map[uint64]*Call{}, handing: true,
	}
	c.timer = time.AfterFunc(time.Hour, c.check)
	c.timer.Stop()
	go c.send()
	go c.receive()
	return c, nil
}

// Start sends the call. It never blocks, and never calls Done or OnBreak itself.
func (c *Conn) Start(call *Call) {
	c.mu.Lock()
	if c.err != nil {
		c.late = append(c.late, call)
		if !c.handing {
			c.handing = true
			go c.handOver()
		}
		c.mu.Unlock()
		return
	}
	first := c.enqueueLocked(call)
	c.mu.Unlock()
	if first {
		c.wake()
	}
}

// enqueueLocked reports whether the sender may be asleep.
func (c *Conn) enqueueLocked(call *Call) (first bool) {
	c.lastID++
	c.pending[c.lastID] = call
	if call != nil {
		c.startedLocked(c.lastID, MayWait(call.Op))
	}
	first = c.queue.Len()+c.ahead.Len() == 0
	c.queueLocked(queued{c.lastID, call})
	return first
}

func (c *Conn) queueLocked(q queued) {
	switch {
	case q.call == nil:
		c.ahead.Put(fair.Owner{}, q, 0)
	case q.call.Op.GetKeepAlive() != nil:
		c.ahead.Put(q.call.Owner, q, 0)
	default:
		c.queue.Put(q.call.Owner, q, 0)
	}
}

func (c *Conn) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// Silent reports whether the node is silent: OnSilent was called, and nothing has
// arrived since.
func (c *Conn) Silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && c.silence.reported
}

// Done is closed when the conn has broken, its goroutines have ended and OnBreak
// has returned.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the conn broke, nil while it works.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close breaks the conn: what is unanswered goes to OnBreak with [ErrClosed]. It
// does not wait for that; Done does.
func (c *Conn) Close() { c.fail(ErrClosed) }

// fail breaks the conn; the first reason counts. The receiver does the rest.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.cancel(err)
}

// handOver passes unanswered calls to OnBreak, until there are none.
func (c *Conn) handOver() {
	for first := true; ; first = false {
		c.mu.Lock()
		ids := make([]uint64, 0, len(c.pending))
		for id, call := range c.pending {
			if call != nil {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		calls := make([]*Call, 0, len(ids)+len(c.late))
		for _, id := range ids {
			call := c.pending[id]
			call.Doubt()
			calls = append(calls, call)
		}
		calls = append(calls, c.late...)
		clear(c.pending)
		c.queue.Clear()
		c.ahead.Clear()
		c.late = nil
		if len(calls) == 0 && !first {
			c.handing = false
			c.mu.Unlock()
			return
		}
		err := c.err
		c.mu.Unlock()
		c.cfg.OnBreak(calls, err)
	}
}

func answerUnknown(calls []*Call, err error) {
	for _, call := range calls {
		call.Done(answerError(call.Op, apiv1.NewError(apiv1.CodeUnknownOutcome, "%v", err)))
	}
}

func answerError(op *apiv1.Operation, err *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: op.GetId(), Result: &apiv1.Answer_Error{Error: err}}
}

package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// remote is the backend behind Dial: it sends every call to the leader, over
// one stream. While it has no stream, calls are queued and one goroutine
// searches. The unanswered calls of a stream that breaks are started again, under the same
// request IDs.
//
// It begins with the endpoints. Nodes of the same cluster report the addresses of the
// others; see book. Names are looked up again when a node is lost; see lookUpLocked.
type remote struct {
	endpoints []string // those of Dial, without repetitions
	resolve   func(ctx context.Context, host string) ([]string, error)
	timeout   time.Duration     // see ConnectTimeout
	dial      []grpc.DialOption // see GRPC
	tls       *security         // nil: plain text
	// credential is the access token; nil: the client has none.
	credential *credential
	plainToken bool // it may be sent in plain text
	log        *slog.Logger
	linked     func() // called when another link is in use
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup // searches, the calls that they make, lookups
	woken      chan struct{}  // of capacity 1: wakes a reconnect, because a call was queued

	link atomic.Pointer[link] // nil: calls are queued. Written under mu

	mu           sync.Mutex // guards what follows
	closed       bool
	searching    bool
	reconnecting bool   // a reconnect is scheduled
	hint         string // the address of the leader as a node reported it
	left         string // the address of the node that was left last
	brief        int    // brief streams in a row; see briefLink
	cluster      string // the ID of the client's cluster; empty: it has none yet
	book         book
	places       map[string]*place // of the endpoints and of the members in book, by host:port
	addressNews  chan struct{}     // closed and replaced when a lookup has ended or book has changed
	lost         time.Time         // when the last node that was not brief was lost
	queue        []queuedCall      // waits for a link
	last         error             // the last error
	peers        map[string]*peer  // by address
	watchers     map[[16]byte]func(*apiv1.Notice)
}

type queuedCall struct {
	call  *mux.Call
	since time.Time
}

func newRemote(endpoints []string, cfg config, linked func()) *remote {
	unique := slices.Clone(endpoints)
	slices.Sort(unique)
	r := &remote{
		endpoints:   slices.Compact(unique),
		resolve:     cfg.resolve,
		cluster:     cfg.cluster,
		timeout:     cfg.connectTimeout,
		dial:        cfg.grpc,
		tls:         cfg.tls,
		credential:  newCredential(cfg),
		plainToken:  cfg.plainToken,
		log:         cfg.log,
		linked:      linked,
		peers:       make(map[string]*peer),
		watchers:    make(map[[16]byte]func(*apiv1.Notice)),
		woken:       make(chan struct{}, 1),
		addressNews: make(chan struct{}),
	}
	r.placesLocked() // no other goroutine has r yet
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Go(func() { r.tls.watch(r.ctx) })
	return r
}

// Start is part of backend.
func (r *remote) Start(call *mux.Call) {
	if l := r.link.Load(); l != nil {
		l.start(call)
		return
	}
	r.enqueue(call)
}

// start starts a call on the stream of the link.
func (l *link) start(call *mux.Call) {
	if call.Op.Redirect == l.forward {
		call.Op.Redirect = !l.forward
	}
	l.conn.Start(call)
}

// enqueue keeps calls until there is a link.
func (r *remote) enqueue(calls ...*mux.Call) {
	r.mu.Lock()
	l := r.link.Load()
	if l == nil && !r.closed {
		for _, call := range calls {
			r.queue = append(r.queue, queuedCall{call, time.Now()})
		}
		r.searchLocked()
		calls = nil
		select {
		case r.woken <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	for _, call := range calls {
		if l == nil {
			refuse(call, apiv1.NewError(codeGaveUp, "client is closed"))
			continue
		}
		l.start(call)
	}
}

// refuse answers a call with an error.
func refuse(call *mux.Call, e *apiv1.Error) {
	call.Done(&apiv1.Answer{Id: call.Op.GetId(), Result: &apiv1.Answer_Error{Error: e}})
}

// searchLocked starts a search unless one runs.
func (r *remote) searchLocked() {
	if !r.searching && !r.closed {
		r.searching = true
		r.wg.Go(r.search)
	}
}

// Watch is part of backend.
func (r *remote) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[session] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, session)
	}
}

// notice passes a notice to the session that it is for.
func (r *remote) notice(n *apiv1.Notice) {
	if len(n.GetSession()) != 16 {
		return
	}
	r.mu.Lock()
	f := r.watchers[[16]byte(n.GetSession())]
	r.mu.Unlock()
	if f != nil {
		f(n)
	}
}

// reroute is part of router. A node that does not lead is left at once; one that has
// another reason to send the call elsewhere only when it does so repeatedly.
func (r *remote) reroute(call *mux.Call, e *apiv1.Error, tries int) bool {
	code := apiv1.Code(e.GetCode())
	if code.Retry() != apiv1.RetryElsewhere || code != apiv1.CodeNotLeader && tries%4 != 0 {
		return false
	}
	if l := r.link.Load(); l != nil {
		r.drop(l, e.GetLeader(), e)
	}
	r.enqueue(call)
	return true
}

// refused is part of router.
func (r *remote) refused(e *apiv1.Error) {
	if apiv1.Code(e.GetCode()) == apiv1.CodeUnauthenticated {
		r.reauthenticate(e)
		return
	}
	if apiv1.Code(e.GetCode()).Retry() != apiv1.RetryElsewhere {
		return
	}
	if l := r.link.Load(); l != nil {
		r.drop(l, e.GetLeader(), e)
	}
}

// drop leaves a link. OnBreak of its stream gets its unanswered calls.
func (r *remote) drop(l *link, hint string, err error) {
	r.mu.Lock()
	current := r.link.CompareAndSwap(l, nil)
	if current {
		r.last = fmt.Errorf("%s: %w", l.addr, err)
		r.leaveLocked(l, hint)
		if len(r.queue) > 0 {
			r.searchLocked()
		} else {
			r.reconnectLaterLocked(leastReconnect)
		}
	}
	r.mu.Unlock()
	if current {
		r.log.Debug("node left", "peer", l.addr, "leader", hint, "err", err)
	}
	l.conn.Close()
}

// trouble is part of router.
func (r *remote) trouble() ([]string, error) {
	if r.link.Load() != nil {
		return r.endpoints, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoints, cmp.Or(r.last, errNotConnected)
}

var errNotConnected = errors.New("not connected yet")

// close is part of router.
func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	calls := r.queue
	r.queue = nil
	l := r.link.Swap(nil)
	r.mu.Unlock()
	r.cancel()
	for _, p := range calls {
		refuse(p.call, apiv1.NewError(codeGaveUp, "client is closed"))
	}
	if l != nil {
		l.conn.Close()
		<-l.conn.Done()
	}
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, p := range r.peers {
		if p.conn != nil {
			_ = p.conn.Close() // the error says nothing: no call uses it
		}
		delete(r.peers, addr)
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// A client whose node forwards searches for the leader again after secondLook, and then
	// at growing intervals up to lastLook.
	secondLook = 2 * time.Second
	lastLook   = 16 * time.Second
	// A stream that breaks within briefLink of its beginning is brief. After more than
	// freeRetries brief streams in a row, a search waits before it begins.
	briefLink   = time.Second
	freeRetries = 3
	// A client that has lost its node and has no call to send searches for another one
	// after leastReconnect, and then at growing intervals up to mostReconnect. Otherwise it
	// would not learn of members that join while it is idle, and could reach none once
	// all that it knew are gone.
	leastReconnect = 5 * time.Second
	mostReconnect  = time.Minute
)

// link is the stream in use.
type link struct {
	conn *mux.Conn
	addr string
	peer *peer
	via  *conn // the connection of its stream; nil: it has broken. Guarded by remote.mu
	// cluster is the ID of the node's cluster, by the node's status.
	cluster  string
	stranger atomic.Bool // the stream says that it is another one
	// forward: the node is not the leader, and is asked to forward.
	forward bool
	token   uint64 // the version of the access token that it was opened with, or of the one before
	since   time.Time
}

// open opens the stream to a node.
func (r *remote) open(ctx context.Context, at probe, forward bool) (*link, error) {
	addr := at.addr
	p, conn, err := r.hold(addr)
	if err != nil {
		return nil, err
	}
	l := &link{
		addr: addr, peer: p, via: conn, cluster: at.status.GetClusterId(), forward: forward,
		token: r.credential.current(), since: time.Now(),
	}
	ctx, cancel := context.WithTimeout(meantFor(ctx, l.cluster), p.probeLimit())
	defer cancel()
	before := p.contact()
	stream, err := mux.Open(ctx, conn, mux.Config{
		Logger:      r.log,
		Patience:    p.patience,
		OnNotice:    r.notice,
		OnDirectory: func(d *apiv1.Directory) { r.onDirectory(l, d) },
		OnSilent:    func() { r.background(func() { r.suspect(l) }) },
		OnBreak:     func(calls []*mux.Call, err error) { r.broken(l, calls, err) },
	})
	if err != nil {
		r.release(conn)
		return nil, p.explain(err, before)
	}
	l.conn = stream
	return l, nil
}

// meantFor makes a node of another cluster refuse the call: the address may belong to such a
// node since it was last asked.
func meantFor(ctx context.Context, cluster string) context.Context {
	if cluster == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, mux.ClusterHeader, cluster)
}

// onDirectory adopts the directory that the node of a link has pushed. It may run before open
// returns.
func (r *remote) onDirectory(l *link, d *apiv1.Directory) {
	if d.GetClusterId() != "" && d.GetClusterId() != l.cluster && l.cluster != "" {
		l.stranger.Store(true)
		r.leaveStranger(l)
		return
	}
	r.learn(d, true)
}

// leaveStranger leaves the link in use if its node belongs to another cluster.
func (r *remote) leaveStranger(l *link) {
	if l.stranger.Load() && r.link.Load() == l {
		r.drop(l, "", errStranger)
	}
}

var errStranger = errors.New("the node belongs to another cluster")

// broken gets the unanswered calls of a stream that broke. It may run before open returns.
func (r *remote) broken(l *link, calls []*mux.Call, err error) {
	err = l.peer.explain(err, l.peer.contact())
	calls = slices.DeleteFunc(calls, (*mux.Call).Abandoned)
	r.mu.Lock()
	if l.via != nil {
		l.via.releaseLocked()
		l.via = nil
	}
	if r.link.CompareAndSwap(l, nil) {
		r.last = fmt.Errorf("%s: %w", l.addr, err)
		r.leaveLocked(l, "")
		if len(calls) == 0 {
			r.reconnectLaterLocked(leastReconnect)
		}
	}
	r.mu.Unlock()
	if !errors.Is(err, mux.ErrClosed) {
		r.log.Debug("stream broke", "peer", l.addr, "err", err)
	}
	if refusal := r.refusedStream(l, err); refusal != nil {
		for _, call := range calls {
			refuse(call, refusal)
		}
		return
	}
	if len(calls) > 0 {
		r.log.Debug("calls sent again", "peer", l.addr, "count", len(calls), "err", err)
		r.enqueue(calls...)
	}
}

// leaveLocked notes that a link is not used any more.
func (r *remote) leaveLocked(l *link, hint string) {
	r.hint, r.left = hint, l.addr
	if time.Since(l.since) < briefLink {
		r.brief++
	} else {
		r.brief = 0
		r.lookUpSoonLocked()
	}
}

// use makes l the link, in place of before, and starts the queued calls.
func (r *remote) use(l, before *link) {
	r.mu.Lock()
	if before == nil {
		r.searching = false
	}
	belongs := r.belongsLocked(l.cluster)
	if r.closed || !belongs || !r.link.CompareAndSwap(before, l) {
		if before == nil && !belongs && len(r.queue) > 0 {
			r.searchLocked() // l is of another cluster than the one in use by now
		}
		r.mu.Unlock()
		l.conn.Close()
		<-l.conn.Done()
		return
	}
	r.hint = ""
	calls := r.queue
	r.queue = nil
	r.mu.Unlock()
	r.log.Debug("node found", "peer", l.addr, "forward", l.forward)
	if before != nil {
		before.conn.Close()
	}
	for _, p := range calls {
		if !p.call.Abandoned() {
			l.start(p.call)
		}
	}
	r.leaveStranger(l)
	if l.forward {
		r.lookLater(l, secondLook)
	}
	r.linked()
}

// lookAgain searches for the leader while another node forwards: it may be reachable by now,
// or there may be another one.
func (r *remote) lookAgain(l *link, after time.Duration) {
	if r.link.Load() != l {
		return
	}
	s := r.newSearch()
	better := s.round(2 * longestProbe) // all that are asked answer or fail before that
	err := s.tried()
	s.end()
	switch {
	case better == nil:
		r.drop(l, "", err)
	case better.forward && better.addr == l.addr:
		better.conn.Close()
		<-better.conn.Done()
		r.lookLater(l, min(2*after, lastLook))
	default:
		r.use(better, l)
	}
}

// lookLater schedules lookAgain.
func (r *remote) lookLater(l *link, after time.Duration) {
	time.AfterFunc(after/2+rand.N(after/2), func() { r.background(func() { r.lookAgain(l, after) }) })
}

// suspect searches for another node while the one in use is silent. If the others report
// it as the leader, it is slow: to leave it would only make it slower. If they report another
// leader, that one is used. The stream breaks by itself when this takes too long.
func (r *remote) suspect(l *link) {
	s := r.newSearch()
	defer s.end()
	s.silent = l.addr
	for r.link.Load() == l && l.conn.Silent() {
		better := s.round(roundLimit)
		if better == nil {
			better = s.linger(s.pause(time.Now()))
		}
		if better != nil {
			r.log.Debug("node left", "peer", l.addr, "leader", better.addr, "err", mux.ErrStalled)
			r.use(better, l)
			return
		}
	}
}

// reconnectLaterLocked schedules reconnect, unless it is scheduled.
func (r *remote) reconnectLaterLocked(after time.Duration) {
	if r.reconnecting {
		return
	}
	r.reconnecting = true
	time.AfterFunc(after/2+rand.N(after/2), func() { r.background(func() { r.reconnect(after) }) })
}

// reconnect searches for a node for a client that has none and no call to send.
func (r *remote) reconnect(after time.Duration) {
	r.mu.Lock()
	r.reconnecting = false
	if r.closed || r.searching || r.link.Load() != nil {
		r.mu.Unlock()
		return
	}
	r.searching = true
	select {
	case <-r.woken: // of a call that was queued before
	default:
	}
	r.mu.Unlock()
	s := r.newSearch()
	s.interrupt = r.woken
	var l *link
	for again := true; l == nil && again && !s.interrupted && s.ctx.Err() == nil; {
		l = s.round(2 * longestProbe) // all that are asked answer or fail before that
		if again = l == nil && r.looksUp(); again {
			before := s.addrs
			l = s.linger(leastReconnect)
			again = !slices.Equal(s.addrs, before)
		}
	}
	s.end()
	if l != nil {
		r.use(l, nil)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.searching = false
	if len(r.queue) > 0 {
		r.searchLocked()
		return
	}
	r.reconnectLaterLocked(min(2*after, mostReconnect))
}

// background runs f, which ends when r.ctx does, on a goroutine that close joins.
func (r *remote) background(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wg.Go(f)
	}
}

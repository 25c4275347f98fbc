package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/locknode/locknode/internal/mux"
)

const (
	// A client that is forwarded looks for the leader after secondLook, and then ever
	// more seldom until lastLook.
	secondLook = 2 * time.Second
	lastLook   = 16 * time.Second
	// A stream that breaks within briefLink of its beginning is one of those that
	// make the next search wait, from the one after freeRetries on.
	briefLink   = time.Second
	freeRetries = 3
)

// link is the stream in use.
type link struct {
	conn *mux.Conn
	addr string
	// forward: the node is not the leader, and is asked to forward.
	forward bool
	since   time.Time
}

// open opens the stream to a node.
func (r *remote) open(ctx context.Context, addr string, forward bool) (*link, error) {
	p, cc, err := r.peer(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.probeLimit())
	defer cancel()
	l := &link{addr: addr, forward: forward, since: time.Now()}
	conn, err := mux.Open(ctx, cc, mux.Config{
		Logger:   r.log,
		Patience: p.patience,
		OnNotice: r.notice,
		OnSilent: func() { r.background(func() { r.suspect(l) }) },
		OnBreak:  func(calls []*mux.Call, err error) { r.broken(l, calls, err) },
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	l.conn = conn
	return l, nil
}

// broken gets the unanswered calls of a stream. It may run before open returns.
func (r *remote) broken(l *link, calls []*mux.Call, err error) {
	r.mu.Lock()
	if r.link.CompareAndSwap(l, nil) {
		r.last = fmt.Errorf("%s: %w", l.addr, err)
		r.leaveLocked(l, "")
	}
	r.mu.Unlock()
	if !errors.Is(err, mux.ErrClosed) {
		r.log.Debug("stream broke", "peer", l.addr, "err", err)
	}
	calls = slices.DeleteFunc(calls, (*mux.Call).Abandoned)
	if len(calls) > 0 {
		r.log.Debug("calls sent again", "peer", l.addr, "count", len(calls), "err", err)
		r.park(calls...)
	}
}

// leaveLocked notes that a link is not used any more.
func (r *remote) leaveLocked(l *link, hint string) {
	r.hint, r.left = hint, l.addr
	if time.Since(l.since) < briefLink {
		r.brief++
	} else {
		r.brief = 0
	}
}

// use makes l the link, in place of before, and starts what was parked.
func (r *remote) use(l, before *link) {
	r.mu.Lock()
	if before == nil {
		r.searching = false
	}
	if r.closed || !r.link.CompareAndSwap(before, l) {
		r.mu.Unlock()
		l.conn.Close()
		<-l.conn.Done()
		return
	}
	r.hint = ""
	calls := r.parked
	r.parked = nil
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
	r.prune(l.addr)
	if l.forward {
		r.lookLater(l, secondLook)
	}
	r.linked()
}

// lookAgain looks whether the leader can be reached by now, or is gone, while
// another node forwards.
func (r *remote) lookAgain(l *link, after time.Duration) {
	if r.link.Load() != l {
		return
	}
	s := r.newSearch()
	better := s.round(2 * longestProbe) // everybody who is asked answers or fails before that
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

// lookLater has a client that is forwarded look for the leader again.
func (r *remote) lookLater(l *link, after time.Duration) {
	time.AfterFunc(after/2+rand.N(after/2), func() { r.background(func() { r.lookAgain(l, after) }) })
}

// suspect looks for another node while the one in use is silent. If the others say that
// it leads, it is slow: to leave it would only make it slower. If they know another
// leader, that is whom to go to. The stream breaks by itself when this takes too long.
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

// background runs f, which ends with r.ctx, on a goroutine that close joins.
func (r *remote) background(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wg.Go(f)
	}
}

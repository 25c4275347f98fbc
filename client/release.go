package client

import (
	"context"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// releasing is a release under way.
type releasing struct {
	op
	operation apiv1.Operation
	oneof     apiv1.Operation_Release
	request   apiv1.ReleaseRequest
	id        apiv1.RequestID
	grant     *Grant
	since     time.Duration
	delays    bool          // counted in session.delays: of a lost grant with a delay
	unblocked chan struct{} // closed when Unlock need not wait any more
	once      sync.Once
}

// unblock lets Unlock return.
func (r *releasing) unblock() { r.once.Do(func() { close(r.unblocked) }) }

// releaseLocked returns the release of g. The caller sends it once it holds no mutex.
func (g *Grant) releaseLocked(now time.Duration) *releasing {
	r := &releasing{grant: g, since: now, unblocked: make(chan struct{})}
	r.c, r.to, r.untilReached = g.s.c, r, true
	r.request.Id = &r.id
	r.request.Name = g.name
	r.request.Token = g.token
	r.oneof.Release = &r.request
	r.operation.Request = &r.oneof
	r.call.Op = &r.operation
	g.s.signLocked(&r.id, &r.op)
	return r
}

// take gets the answer.
func (r *releasing) take(a *apiv1.Answer) {
	g, s := r.grant, r.grant.s
	code := apiv1.Code(a.GetError().GetCode())
	repeat, pause := false, retryLast
	switch code {
	case apiv1.CodeLimit, apiv1.CodeInternal, apiv1.CodeStaleRequest:
		repeat = true
	case apiv1.CodeUnauthenticated, apiv1.CodeDenied:
		// With another access token the session may go on, and would hold the lock.
		repeat, pause = true, max(retryLast, s.c.config.ttl/6)
	}
	s.mu.Lock()
	s.window.Answered(r.id.GetSequence())
	gone := code == apiv1.CodeNotHeld || code == apiv1.CodeNoSession
	if now := s.c.now(); gone && g.state == grantReleased && now < g.boundLocked() && now < s.boundLocked() {
		// Its time is not over, so that an operator must have ended it before the Unlock.
		// Once the time is over nobody can know, and it was held when Unlock was called.
		g.err = &LostError{Lock: g.name, Token: g.token, Reason: LostForced}
	}
	var ending *op
	if r.delays && !repeat {
		if s.delays--; s.delays == 0 {
			ending, s.ending = s.ending, nil
		}
	}
	s.mu.Unlock()
	r.unblock()
	switch {
	case repeat:
		s.c.log.Warn("release refused, it is repeated", "lock", g.name, "token", g.token, "err", a.GetError())
		time.AfterFunc(pause, r.repeat)
	case code == apiv1.CodeOK, code == apiv1.CodeNotHeld:
	case code == apiv1.CodeNoSession:
		s.expired()
	default:
		s.c.log.Warn("release refused", "lock", g.name, "token", g.token, "err", a.GetError())
	}
	if ending != nil {
		s.c.send(ending)
	}
}

// repeat sends a release that was refused as another request.
func (r *releasing) repeat() {
	g, s := r.grant, r.grant.s
	s.mu.Lock()
	if s.cause != nil && (!r.delays || s.ending == nil) {
		s.mu.Unlock()
		return // the session has ended, or its end is sent
	}
	next := g.releaseLocked(s.c.now())
	next.request.Lost, next.delays = r.request.Lost, r.delays
	s.mu.Unlock()
	s.c.send(&next.op)
}

// giveBack releases a grant that was never valid, in the background. Nothing was done
// under it, so that it needs no delay after a loss.
func (g *Grant) giveBack() {
	g.s.mu.Lock()
	if g.s.cause != nil {
		g.s.mu.Unlock()
		return
	}
	r := g.releaseLocked(g.s.c.now())
	g.s.mu.Unlock()
	g.s.c.send(&r.op)
}

// Unlock releases the lock and ends the grant's context.
//
// It waits for the cluster's answer for up to a second, so that the lock normally is free
// when it returns. After that it returns nil, and the release
// is repeated in the background until it is answered or the session has ended,
// which also frees the lock. It takes no context, because a release must not be left
// undone: `defer g.Unlock()` is always right.
//
// If the lock was lost before, Unlock changes nothing and returns the
// [*LostError]: the work was not protected to the end. It may be called more than once, and
// returns the same each time.
func (g *Grant) Unlock() error {
	s := g.s
	now := s.c.now()
	s.mu.Lock()
	lost := g.lookLocked(now)
	if g.state == grantLost {
		err := g.err
		s.mu.Unlock()
		lost.notify()
		return err
	}
	r, first := g.release, g.release == nil
	var cancel context.CancelCauseFunc
	if first {
		s.dropLocked(g)
		g.state = grantReleased
		cancel = g.cancel
		r = g.releaseLocked(now)
		g.release = r
	}
	s.mu.Unlock()
	if cancel != nil {
		cancel(g.released())
	}
	if first {
		if ended := s.c.config.trace.Ended; ended != nil {
			ended(g, nil)
		}
		s.c.send(&r.op)
	}
	return g.awaitRelease(r)
}

// awaitRelease waits until the release need not be waited for any more.
func (g *Grant) awaitRelease(r *releasing) error {
	select {
	case <-r.unblocked:
	case <-g.s.over: // the end of the session releases it
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	return g.err
}

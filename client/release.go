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
	delays    bool          // of a lost grant with a delay: one of session.delays
	unblocked chan struct{} // closed when Unlock need not wait any more
	once      sync.Once
}

// unblock lets Unlock return.
func (r *releasing) unblock() { r.once.Do(func() { close(r.unblocked) }) }

// releaseLocked makes the release of g, to be sent by the caller without mutex.
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

func (r *releasing) take(a *apiv1.Answer) {
	g, s := r.grant, r.grant.s
	code := apiv1.Code(a.GetError().GetCode())
	repeat := false
	switch code {
	case apiv1.CodeLimit, apiv1.CodeInternal, apiv1.CodeStaleRequest:
		repeat = true
	}
	s.mu.Lock()
	s.window.Answered(r.id.GetSequence())
	gone := code == apiv1.CodeNotHeld || code == apiv1.CodeNoSession
	if now := s.c.now(); gone && g.state == grantReleased && now < g.boundLocked() && now < s.boundLocked() {
		// Not by time, for that is not over: it was taken away before. Once the
		// time is over nobody can tell, and it was held when Unlock was called.
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
		s.c.log.Warn("release refused, to be repeated", "lock", g.name, "token", g.token, "err", a.GetError())
		time.AfterFunc(retryLast, r.repeat)
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
		return // the session is over, or is about to be
	}
	next := g.releaseLocked(s.c.now())
	next.request.Lost, next.delays = r.request.Lost, r.delays
	s.mu.Unlock()
	s.c.send(&next.op)
}

// giveBack releases a grant that was never believed in, in the background. Nothing
// was done under it, so there is nothing that a delay after a loss is for.
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
// It takes no context, because a release must not be left undone: Unlock waits
// for the cluster's answer for up to a second, so that on a cluster that is well
// the lock is free when it returns. After that it returns nil and the release
// is repeated in the background until it is answered or the session is over,
// which frees the lock just as well. So `defer g.Unlock()` is always right.
//
// If the lock was lost before, Unlock changes nothing and returns the
// [*LostError]: it was not protected to the end. Calling it again is allowed
// and returns the same.
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

func (g *Grant) awaitRelease(r *releasing) error {
	select {
	case <-r.unblocked:
	case <-g.s.over: // which has released it, or is about to
	}
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	return g.err
}

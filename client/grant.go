package client

import (
	"container/heap"
	"context"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// unlockWait bounds how long Unlock waits for the cluster. The next tick of the session
// ends the wait, so that not every Unlock needs a timer.
const unlockWait = time.Second - tickEvery

type grantState uint8

const (
	grantHeld grantState = iota
	grantReleased
	grantLost
)

// Grant is a lock that is held. It is safe for concurrent use. Its zero value is of no use.
type Grant struct {
	s        *session
	name     string
	token    uint64
	waited   time.Duration
	granted  int64           // cluster time
	delay    time.Duration   // see DelayAfterLoss
	deadline int64           // cluster time, of its own TTL; 0: it has none
	latest   time.Duration   // its own TTL has ended by then, whatever the stamps are
	caller   context.Context // of Lock
	within   bool            // the grant's context ends with the caller's
	place    int             // in session.timed

	// Guarded by s.mu.
	state    grantState
	err      error         // grantLost: a *LostError
	lost     chan struct{} // made when asked for
	ctx      context.Context
	cancel   context.CancelCauseFunc
	release  *releasing
	settings chan struct{} // of capacity 1; full while a SetValue is not answered
}

// Name returns the name of the lock.
func (g *Grant) Name() string { return g.name }

// Token returns the fencing token: it is greater than the tokens of all earlier
// grants, of any lock. It stays below 2^53.
func (g *Grant) Token() uint64 { return g.token }

// Waited returns how long the acquire waited in the queue, in cluster time; zero if
// the lock was free.
func (g *Grant) Waited() time.Duration { return g.waited }

// Deadline returns until when the grant is certain to be valid: until its session expires
// if no keep-alive is answered any more, or its [TTL] ends. It moves on as keep-alives are
// answered. It returns the zero time if the lock is not held any more.
func (g *Grant) Deadline() time.Time {
	wall, now := time.Now(), g.s.c.now()
	if g.Err() != nil {
		return time.Time{}
	}
	g.s.mu.Lock()
	bound := min(g.boundLocked(), g.s.boundLocked())
	g.s.mu.Unlock()
	return wall.Add(bound - now)
}

// Err returns nil while the lock is held, a [*LostError] once it is lost, and
// ErrNotHeld after Unlock. It reads the clock, so that it is right even
// before the loss has been noticed otherwise. It does not wait.
func (g *Grant) Err() error {
	s := g.s
	now := s.c.now()
	s.mu.Lock()
	lost := g.lookLocked(now)
	state, err := g.state, g.err
	s.mu.Unlock()
	lost.notify()
	if state == grantReleased {
		return g.released()
	}
	return err
}

// lookLocked ends the grants whose time is over if that of g is.
func (g *Grant) lookLocked(now time.Duration) losses {
	if g.state != grantHeld {
		return nil
	}
	if now < g.boundLocked() && now < g.s.boundLocked() {
		return nil
	}
	return g.s.expireLocked(now)
}

// boundLocked returns until when the grant is valid by its own TTL.
func (g *Grant) boundLocked() time.Duration {
	if g.deadline == 0 {
		return forever
	}
	return min(g.s.ticket.bound(g.deadline), g.latest)
}

func (g *Grant) released() error {
	return &opError{op: what{"lock", g.name}.String(), kind: ErrNotHeld, text: "released"}
}

// Lost returns a channel that is closed when the lock is lost. Unlock does not
// close it; [Grant.Context] ends after either.
func (g *Grant) Lost() <-chan struct{} {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.lost == nil {
		g.lost = make(chan struct{})
		if g.state == grantLost {
			close(g.lost)
		}
	}
	return g.lost
}

// Context returns a context that ends when the lock is lost, with the
// [*LostError] as its cause, or unlocked. It has the values of the context that
// was passed to Lock but does not end with it, because that one bounds the wait only. In
// [Client.Do] it also ends with the caller's context.
func (g *Grant) Context() context.Context {
	s := g.s
	s.mu.Lock()
	ctx := g.ctx
	s.mu.Unlock()
	if ctx != nil {
		return ctx
	}
	parent := g.caller
	if !g.within {
		parent = context.WithoutCancel(parent)
	}
	return g.useContext(context.WithCancelCause(context.WithValue(parent, heldKey{}, g)))
}

// useContext makes made the grant's context if it has none yet.
func (g *Grant) useContext(made context.Context, cancel context.CancelCauseFunc) context.Context {
	s := g.s
	s.mu.Lock()
	if g.ctx == nil {
		g.ctx, g.cancel = made, cancel
	}
	ctx, state, err := g.ctx, g.state, g.err
	s.mu.Unlock()
	switch {
	case ctx != made:
		cancel(nil) // another goroutine has set one
	case state == grantReleased:
		cancel(g.released())
	case state == grantLost:
		cancel(err)
	}
	return ctx
}

// heldKey is the key of the grant in its context.
type heldKey struct{}

// heldBy returns the grant of c on the lock whose context, or a child of it, ctx is, if it
// is still held; otherwise nil.
func heldBy(ctx context.Context, c *Client, lock string) *Grant {
	for {
		g, _ := ctx.Value(heldKey{}).(*Grant)
		if g == nil {
			return nil
		}
		if g.s.c == c && g.name == lock && g.Err() == nil {
			return g
		}
		ctx = g.caller
	}
}

// keepLocked makes g a grant of the session.
func (s *session) keepLocked(g *Grant) {
	s.grants[g.token] = g
	if g.deadline == 0 {
		return
	}
	if len(s.timed) == 0 {
		s.firstOver = forever
	}
	s.firstOver = min(s.firstOver, g.latest)
	heap.Push(&s.timed, g)
	if g.boundLocked() < s.wakeAt {
		s.wake()
	}
}

// notify reports the loss of a grant: it ends the context, calls the trace and logs. It is
// called without a mutex.
func (g *Grant) notify() {
	g.s.mu.Lock()
	cancel, err := g.cancel, g.err
	g.s.mu.Unlock()
	if cancel != nil {
		cancel(err)
	}
	if ended := g.s.c.config.trace.Ended; ended != nil {
		ended(g, err)
	}
	g.s.c.log.Debug("lock lost", "lock", g.name, "token", g.token, "err", err)
}

// SetValue replaces the value that is stored with the grant for others to read: at most
// 4 KiB unless the cluster's limits differ. Values take effect in the order of the calls.
//
// It waits until the cluster has answered, the lock is lost, or ctx ends. It returns a
// [*LostError] if the lock is lost first, and ErrNotHeld after Unlock; the value may have
// been set then. If ctx ends first, it may still be set a little later. After ErrInvalid
// and ErrLimit the value is as it was.
func (g *Grant) SetValue(ctx context.Context, value []byte) error {
	w := what{"set value of", g.name}
	if len(value) > maxValue {
		return invalid(w, "value: is %d bytes long, must be at most %d", len(value), maxValue)
	}
	if err := g.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return g.s.c.ended(ctx, w, nil)
	}
	lost := g.Lost()
	settings := g.turns()
	select {
	case settings <- struct{}{}: // the answer takes it out
	case <-lost:
		return g.Err()
	case <-ctx.Done():
		return g.s.c.ended(ctx, w, nil)
	}
	o, err := g.setValue(value, settings)
	if err != nil {
		<-settings
		return err
	}
	select {
	case a := <-o.answers:
		return g.valueSet(w, a)
	case <-lost:
		return g.Err()
	case <-ctx.Done():
		return g.s.c.ended(ctx, w, &o.op)
	}
}

// turns returns g.settings, and makes it first if need be.
func (g *Grant) turns() chan struct{} {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.settings == nil {
		g.settings = make(chan struct{}, 1)
	}
	return g.settings
}

// setValue sends the value until it is answered, also if its caller no longer waits: an
// earlier value must not replace a later one.
func (g *Grant) setValue(value []byte, settings chan struct{}) (*waited, error) {
	s := g.s
	id := &apiv1.RequestID{}
	o := &waited{}
	o.prepare(s.c)
	o.untilReached = true
	o.call.Op = &apiv1.Operation{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{
		Id: id, Name: g.name, Token: g.token, Value: slices.Clone(value),
	}}}
	o.to = takerFunc(func(a *apiv1.Answer) {
		s.mu.Lock()
		s.window.Answered(id.GetSequence())
		s.mu.Unlock()
		o.take(a)
		<-settings
	})
	s.mu.Lock()
	if g.state != grantHeld {
		s.mu.Unlock()
		return nil, g.Err()
	}
	s.signLocked(id, &o.op)
	s.mu.Unlock()
	s.c.send(&o.op)
	return o, nil
}

// valueSet returns the error for the answer to a SetValue. An answer that the lock is not
// held is a loss.
func (g *Grant) valueSet(w what, a *apiv1.Answer) error {
	s := g.s
	switch e := a.GetError(); apiv1.Code(e.GetCode()) {
	case apiv1.CodeOK:
		return nil
	case apiv1.CodeNoSession:
		s.expired()
	case apiv1.CodeNotHeld:
		s.mu.Lock()
		var lost losses
		if g.state == grantHeld {
			reason := LostForced
			if g.deadline != 0 {
				reason = LostExpired
			}
			lost = append(lost, s.loseLocked(g, reason, "", ""))
		}
		s.mu.Unlock()
		lost.notify()
	default:
		return newError(w, e)
	}
	return g.Err()
}

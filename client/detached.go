package client

import (
	"context"
	"crypto/rand"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// maxLoose bounds the operations that are repeated for callers who have left.
const maxLoose = 10_000

// Detached takes locks without a session: a detached grant lives by its own TTL
// and belongs to whoever knows its token. That is for scripts, where one process
// acquires and another releases. Nobody tells its holder that it was lost.
type Detached struct{ c *Client }

// DetachedGrant is a lock that was acquired without a session.
type DetachedGrant struct {
	Name  string
	Token uint64
	// ExpiresIn is how long the grant is certain to last, counted from the
	// return of the call. It is a little less than what is left in the cluster.
	ExpiresIn time.Duration
	// Waited is how long the acquire stood in line, in cluster time.
	Waited time.Duration
}

// Detached returns the part of the client that works without a session.
func (c *Client) Detached() *Detached { return &Detached{c} }

// Acquire acquires the lock for ttl. It tries once unless [Wait] says how long
// to stand in line.
//
// Errors are as with [Client.TryLock], ErrTimeout after a wait in vain, and
// ErrLost if the answer took so long that nothing of the ttl is left. After an
// error nothing is held, as far as the cluster can be told: at worst until the
// ttl is over. With a [RequestID] of one's own the same call can be made again
// after an error, and gets the grant if there is one.
func (d *Detached) Acquire(ctx context.Context, name string, ttl time.Duration, opts ...AcquireOption) (DetachedGrant, error) {
	c, q := d.c, request{what: what{"acquire", name}}
	if err := q.apply(q.what, append(opts[:len(opts):len(opts)], TTL(ttl))); err != nil {
		return DetachedGrant{}, err
	}
	if err := c.config.check(); err != nil {
		return DetachedGrant{}, err
	}
	q.try = q.wait == 0
	if q.try && !q.limited {
		q.limited = true
	}
	if err := c.ready(q.what); err != nil {
		return DetachedGrant{}, err
	}
	if ctx.Err() != nil {
		return DetachedGrant{}, c.ended(ctx, q.what, nil)
	}
	if !q.try {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, sum(q.wait, waitGrace), errWaitOver)
		defer stop()
	}
	o := newAcquiring(c, &q)
	o.id.Once = q.once
	if o.id.Once == nil {
		o.id.Once = randomID()
	}
	o.request.Holder = c.config.holder
	o.request.Labels = c.config.labels
	c.send(&o.op)
	select {
	case a := <-o.answers:
		return d.acquired(ctx, &q, o, a)
	case <-ctx.Done():
		d.cancel(o)
		return DetachedGrant{}, c.waitEnded(ctx, &q, &o.op)
	case <-c.closing:
	case <-c.over:
	}
	d.cancel(o)
	return DetachedGrant{}, c.ready(q.what)
}

func (d *Detached) acquired(ctx context.Context, q *request, o *acquiring, a *apiv1.Answer) (DetachedGrant, error) {
	if e := a.GetError(); e != nil {
		switch apiv1.Code(e.GetCode()) {
		case codeGaveUp:
			d.cancel(o) // it may have been sent before
			return DetachedGrant{}, d.c.failure(q.what, e)
		}
		return DetachedGrant{}, newError(q.what, e)
	}
	got := a.GetAcquire()
	var k ticket
	k.learn(o.sent, appliedAt(got, a.GetStamp()))
	left := min(k.bound(got.GetDeadline())-d.c.now(), q.ttl) // whatever the stamps say
	if left < q.ttl*9/10 {
		// A long way or a long wait, of which the margin is one percent: a
		// renewal tells better.
		renewed, err := d.renew(ctx, q.what, got.GetToken(), q.ttl)
		if err == nil {
			left = min(renewed, q.ttl)
		}
	}
	if left <= 0 {
		d.cancel(o)
		return DetachedGrant{}, &LostError{Lock: q.object, Token: got.GetToken(), Reason: LostExpired, Why: "the answer took longer than the ttl"}
	}
	return DetachedGrant{
		Name:      q.object,
		Token:     got.GetToken(),
		ExpiresIn: left,
		Waited:    time.Duration(max(got.GetGranted()-got.GetQueued(), 0)),
	}, nil
}

// cancel gives up an acquire, in the background; Close waits for it.
func (d *Detached) cancel(o *acquiring) {
	o.call.Abandon()
	d.c.mu.Lock()
	full := len(d.c.loose) >= maxLoose
	d.c.mu.Unlock()
	if full {
		return // its wait and its ttl are limited
	}
	cancel := &op{c: d.c, stubborn: true}
	cancel.call.Op = &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{
		Id: onceID(), Target: &o.id,
	}}}
	d.c.sendLoose(cancel)
}

// Renew makes the grant last for ttl from now on, or longer if it would anyway,
// and returns how long it is certain to last. It returns [ErrNotHeld] if token
// is not a grant of the lock any more; nothing is changed then. When ctx ends
// first, the grant may have been renewed.
func (d *Detached) Renew(ctx context.Context, name string, token uint64, ttl time.Duration) (time.Duration, error) {
	w := what{"renew", name}
	if ttl <= 0 {
		return 0, invalid(w, "ttl is %v, must be positive", ttl)
	}
	if err := checkText(w, "name", name, true); err != nil {
		return 0, err
	}
	return d.renew(ctx, w, token, ttl)
}

func (d *Detached) renew(ctx context.Context, w what, token uint64, ttl time.Duration) (time.Duration, error) {
	sent := d.c.now()
	a, err := d.c.ask(ctx, w, &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{
		Id: onceID(), Name: w.object, Token: token, TtlNs: int64(ttl),
	}}})
	if err != nil {
		return 0, err
	}
	var k ticket
	k.learn(sent, a.GetStamp())
	left := k.bound(a.GetRenew().GetDeadline()) - d.c.now()
	if left <= 0 {
		return 0, &LostError{Lock: w.object, Token: token, Reason: LostExpired, Why: "the answer took longer than the ttl"}
	}
	return left, nil
}

// Release releases the grant. It returns [ErrNotHeld] if token is not a grant of
// the lock any more; nothing is changed then. When ctx ends first, it may have
// been released.
func (d *Detached) Release(ctx context.Context, name string, token uint64) error {
	w := what{"release", name}
	if err := checkText(w, "name", name, true); err != nil {
		return err
	}
	_, err := d.c.ask(ctx, w, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
		Id: onceID(), Name: name, Token: token,
	}}})
	return err
}

func randomID() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

func onceID() *apiv1.RequestID { return &apiv1.RequestID{Once: randomID()} }

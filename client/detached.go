package client

import (
	"context"
	"errors"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Detached takes locks that belong to no session: a detached grant ends with its own
// TTL, and any process that knows its token can renew and release it. That is for scripts,
// where one process acquires and another releases. Its holder is not notified of its loss.
//
// Requests are sent in the client's session nevertheless, so that they take
// effect once; an acquire that waits is queued as long as that session lasts.
// It is safe for concurrent use.
type Detached struct{ c *Client }

// DetachedGrant is a lock that belongs to no session.
type DetachedGrant struct {
	Name  string // of the lock
	Token uint64 // the fencing token, which [Detached.Renew] and Release take
	// ExpiresIn is how long the grant is certain to last, counted from the return of
	// the call, unless it is released. It is a little less than what is left in the
	// cluster, and less than the ttl if an earlier call with this [RequestID] got the grant.
	ExpiresIn time.Duration
	// Waited is how long this call waited in the queue, in cluster time; zero if the lock was free.
	Waited time.Duration
}

// Detached returns the part of the client that takes detached locks, which outlive it.
func (c *Client) Detached() *Detached { return &Detached{c} }

// Acquire acquires the lock for ttl, which must be positive. It tries once unless [Wait]
// says how long to wait in the queue.
//
// It waits until the lock is granted or refused, the [Wait] is over, or ctx ends. If the
// session ends in the cluster while Acquire waits, it is queued again, at the end, in
// another session.
//
// The errors are those of [Client.TryLock]; ErrTimeout after a wait; and ErrLost if
// the answer took so long that nothing of the ttl is left. With a [RequestID], ErrNotHeld
// means that its grant has ended, and ErrInvalid names the argument that differs from the
// first call.
//
// After an error the place in the queue is given up and a grant that came is released, also by
// [Client.Close]. If the cluster cannot be reached for that, because the client was cut off
// for longer than its session's TTL or Close returned an error, a lock that was granted is
// held until the ttl is over; the same call with the same RequestID then returns it.
func (d *Detached) Acquire(ctx context.Context, name string, ttl time.Duration, opts ...DetachedOption) (DetachedGrant, error) {
	q := request{what: what{"acquire", name}, detached: true}
	q.ttl, q.ttlSet = ttl, true
	for _, o := range opts {
		o.forDetached(&q.acquireOptions)
	}
	if err := q.check(q.what); err != nil {
		return DetachedGrant{}, err
	}
	q.limited = true // without Wait it tries once
	got, err := d.c.acquire(ctx, &q)
	return got.detached, err
}

// confirmWait bounds how long confirmGrant waits.
const confirmWait = 2 * time.Second

// deliver makes a detached grant of the answer to an acquire: from then on it outlasts the
// session. It returns errAgain if the grant has ended: Close has released it meanwhile, or
// the cluster has ended it.
func (s *session) deliver(caller context.Context, q *request, a *acquiring, answer *apiv1.Answer) (DetachedGrant, error) {
	got := answer.GetAcquire()
	deadline, sent, applied := got.GetDeadline(), a.sent, appliedAt(got, answer.GetStamp())
	if !q.try && got.GetGranted() >= got.GetQueued() {
		renewed, began, err := s.confirmGrant(caller, q, a, got.GetToken())
		if err != nil {
			return DetachedGrant{}, err
		}
		deadline, sent, applied = renewed.GetRenew().GetDeadline(), began, renewed.GetStamp()
	}
	s.mu.Lock()
	if _, ours := s.undelivered[a]; !ours {
		s.mu.Unlock()
		return DetachedGrant{}, errAgain
	}
	s.ticket.learn(sent, applied)
	left := min(s.ticket.bound(deadline)-s.c.now(), q.ttl) // whatever the stamps say
	if left <= 0 {
		s.mu.Unlock()
		err := &LostError{Lock: q.object, Token: got.GetToken(), Reason: LostExpired, Why: "the answer took longer than the ttl"}
		return DetachedGrant{}, s.giveUp(caller, q, a, err)
	}
	s.finishLocked(a)
	s.mu.Unlock()
	return DetachedGrant{Name: q.object, Token: got.GetToken(), ExpiresIn: left, Waited: waitedFor(got)}, nil
}

// confirmGrant confirms a grant that was waited for. Until a request of the session has
// shown its token, the cluster ends it with the session, because its caller may have
// gone while it waited. The renewal that shows the token also gives it the whole ttl.
func (s *session) confirmGrant(caller context.Context, q *request, a *acquiring, token uint64) (*apiv1.Answer, time.Duration, error) {
	ctx, stop := context.WithTimeoutCause(caller, confirmWait, errWaitOver)
	defer stop()
	began := s.c.now()
	renewed, _, err := s.exchange(ctx, q.what, func(id *apiv1.RequestID) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{
			Id: id, Name: q.object, Token: token, TtlNs: int64(q.ttl),
		}}}
	})
	switch {
	case err == nil || errors.Is(err, errAgain):
		return renewed, began, err
	case errors.Is(err, ErrNotHeld):
		s.finish(a)
		return nil, 0, errAgain
	}
	return nil, 0, s.giveUp(ctx, q, a, err)
}

// grantEnded returns the error for a detached grant that ended before the caller got it.
func grantEnded(q *request, e *apiv1.Error) error {
	if q.once == nil {
		return &LostError{Lock: q.object, Reason: LostExpired, Why: "it ended before its answer arrived"}
	}
	text := "the grant of this request ID has ended: to acquire again, take another ID"
	return &opError{op: q.String(), kind: ErrNotHeld, text: text, api: e}
}

// Renew makes the grant last for ttl from now on, or longer if it would anyway,
// and returns how long it is certain to last. The ttl must be positive.
//
// It waits until the cluster has answered or ctx ends. It returns [ErrNotHeld] if token
// is not that of a detached grant of the lock any more; nothing is changed then. It returns
// ErrLost if the answer took longer than the ttl. When ctx ends first, the grant may have
// been renewed. Other errors are those of [Client.Get], ErrSession and ErrOverloaded.
func (d *Detached) Renew(ctx context.Context, name string, token uint64, ttl time.Duration) (time.Duration, error) {
	w := what{"renew", name}
	if ttl <= 0 {
		return 0, invalid(w, "ttl: is %v, must be positive", ttl)
	}
	if err := checkText(w, "name", name, true); err != nil {
		return 0, err
	}
	var sent time.Duration
	a, err := d.c.command(ctx, w, true, func(id *apiv1.RequestID) *apiv1.Operation {
		sent = d.c.now() // each try has its own
		return &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{
			Id: id, Name: name, Token: token, TtlNs: int64(ttl),
		}}}
	})
	if err != nil {
		return 0, err
	}
	var k ticket
	k.learn(sent, a.GetStamp())
	left := k.bound(a.GetRenew().GetDeadline()) - d.c.now()
	if left <= 0 {
		return 0, &LostError{Lock: name, Token: token, Reason: LostExpired, Why: "the answer took longer than the ttl"}
	}
	return left, nil
}

// Release releases the grant.
//
// It waits until the cluster has answered or ctx ends. It returns [ErrNotHeld] if token is
// not that of a detached grant of the lock any more; nothing is changed then. That includes
// a grant that belongs to a session: its own client unlocks it, or [Client.ForceRelease].
// When ctx ends first, the grant may have been released. Other errors are as with
// [Detached.Renew].
func (d *Detached) Release(ctx context.Context, name string, token uint64) error {
	w := what{"release", name}
	if err := checkText(w, "name", name, true); err != nil {
		return err
	}
	_, err := d.c.command(ctx, w, true, func(id *apiv1.RequestID) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
			Id: id, Name: name, Token: token,
		}}}
	})
	return err
}

package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/window"
)

// waitGrace is how much longer than [Wait] a client waits for the answer that
// the wait is over, before it cancels the acquire.
const waitGrace = 100 * time.Millisecond

var (
	// errLate: a grant had no time left when its answer arrived.
	errLate = errors.New("grant came too late")
	// errTwice: a grant has the token of another one that is held.
	errTwice = errors.New("token was given twice")
	// errWaitOver is the cause of the context that bounds a wait.
	errWaitOver = errors.New("wait is over")
)

// Lock acquires the lock, and waits in the queue while others hold it: first come,
// first served.
//
// It waits until the lock is granted, the [Wait] is over, or ctx ends. ctx bounds the wait
// and nothing else: not the hold, not the Unlock. When it ends the place in the queue is given
// up; if no node can be reached, that is sent later. If the session ends in the cluster
// while Lock waits, it is queued again, at the end, in another session.
//
// It returns [ErrTimeout] if ctx's deadline or [Wait] passed, [ErrReentry] if
// ctx belongs to a grant of the same lock, [ErrUnavailable] if ctx ended while
// no node could be reached, [ErrOverloaded] if it ended while the cluster refused the
// request, the cause of ctx if that was cancelled, and otherwise ErrKind, ErrLimit,
// ErrInvalid, ErrDenied or ErrClosed. After an error nothing is held.
func (c *Client) Lock(ctx context.Context, name string, opts ...LockOption) (*Grant, error) {
	return c.lock(ctx, request{what: what{"lock", name}}, opts)
}

// TryLock acquires the lock if it is free, and otherwise returns a [*BusyError]
// that names the holders. It ignores [Wait].
//
// It waits until the cluster has answered or ctx ends. A cluster that elects a leader is
// waited for, and one that is overloaded is not: [ErrOverloaded]. It returns ErrLost if the
// answer took longer than the [TTL]. Other errors are as with [Client.Lock], but for
// ErrTimeout and ErrReentry. After an error nothing is held.
func (c *Client) TryLock(ctx context.Context, name string, opts ...LockOption) (*Grant, error) {
	return c.lock(ctx, request{what: what{"try to lock", name}, try: true}, opts)
}

// Do runs fn while it holds the lock.
//
// It waits for the lock as [Client.Lock] does, and for fn. fn's context is a child of ctx
// and also ends when the lock is lost, with the [*LostError] as its cause. [Wait] bounds the
// wait for the lock alone. The lock is unlocked when fn returns or panics; fn may unlock it
// earlier.
//
// Do returns the error of the acquire, and fn was not called then; or fn's error; or, if
// the lock was lost before fn returned, an error that wraps both a [*LostError] and fn's.
func (c *Client) Do(ctx context.Context, name string, fn func(ctx context.Context, g *Grant) error, opts ...LockOption) error {
	return c.do(ctx, request{what: what{"lock", name}, within: true}, fn, opts)
}

func (c *Client) do(ctx context.Context, q request, fn func(context.Context, *Grant) error, opts []LockOption) error {
	g, err := c.lock(ctx, q, opts)
	if err != nil {
		return err
	}
	defer func() { _ = g.Unlock() }() // if fn panics; there is no caller to return the error to
	err = fn(g.Context(), g)
	lost := g.Unlock()
	switch {
	case lost == nil:
		return err
	case err == nil || errors.Is(err, lost):
		return lost
	}
	return fmt.Errorf("%w; %w", lost, err)
}

// request is the request of a Lock, TryLock, Do or Detached.Acquire.
type request struct {
	what
	acquireOptions
	try      bool // do not wait in the queue
	within   bool // the grant's context also ends with the caller's
	detached bool // the grant belongs to no session
}

// acquired is a grant of one of two kinds.
type acquired struct {
	grant    *Grant
	detached DetachedGrant
}

func (c *Client) lock(ctx context.Context, q request, opts []LockOption) (*Grant, error) {
	for _, o := range opts {
		o.forLock(&q.acquireOptions)
	}
	if err := q.check(q.what); err != nil {
		return nil, err
	}
	got, err := c.acquire(ctx, &q)
	return got.grant, err
}

// acquire sends the request in one session after the other until it is answered.
func (c *Client) acquire(ctx context.Context, q *request) (acquired, error) {
	if q.limited && q.wait == 0 {
		q.try = true
	}
	if held := heldBy(ctx, c, q.object); held != nil && !q.try {
		return acquired{}, &opError{op: q.String(), kind: ErrReentry, text: fmt.Sprintf("already held by the caller (token %d)", held.token)}
	}
	caller, until := ctx, forever
	if !q.try && q.limited {
		until = sum(c.now(), q.wait)
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, sum(q.wait, waitGrace), errWaitOver)
		defer stop()
	}
	for again := 0; ; again++ {
		if ctx.Err() != nil {
			return acquired{}, c.waitEnded(ctx, q, nil)
		}
		s, err := c.session(ctx, q.what)
		if err != nil {
			return acquired{}, waitError(ctx, q, err)
		}
		if err := c.look(ctx, q); err != nil {
			return acquired{}, err
		}
		got, err := s.acquire(ctx, caller, q)
		if q.try && !q.detached && errors.Is(err, ErrBusy) {
			c.polled.note(q.object, c.now())
		}
		switch {
		case err == nil:
			return got, nil
		case errors.Is(err, errLate) && q.try:
			return acquired{}, &LostError{Lock: q.object, Reason: LostExpired, Why: "the answer took longer than the ttl"}
		case !errors.Is(err, errLate) && !errors.Is(err, errAgain):
			return acquired{}, err
		}
		if until != forever {
			if q.wait = until - c.now(); q.wait <= 0 {
				return acquired{}, &TimeoutError{Lock: q.object}
			}
		}
		pause(ctx, again)
	}
}

// pause waits before a further try, so that a client whose sessions end at once does not
// try all the time.
func pause(ctx context.Context, again int) {
	if again == 0 {
		return
	}
	t := time.NewTimer(jitter(again - 1))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// waitEnded returns the error for the end of ctx.
func (c *Client) waitEnded(ctx context.Context, q *request, o *op) error {
	return waitError(ctx, q, c.ended(ctx, q.what, o))
}

// waitError returns a TimeoutError if err says no more than that the deadline of ctx has
// passed, and err otherwise.
func waitError(ctx context.Context, q *request, err error) error {
	var plain *opError
	if q.try || !errors.Is(ctx.Err(), context.DeadlineExceeded) || !errors.As(err, &plain) || plain.kind != nil {
		return err
	}
	if errors.Is(context.Cause(ctx), errWaitOver) {
		return &TimeoutError{Lock: q.object}
	}
	return &TimeoutError{Lock: q.object, Cause: plain.cause}
}

// acquiring is an acquire under way. It holds its own message, so that both are one
// allocation.
type acquiring struct {
	waited
	operation apiv1.Operation
	oneof     apiv1.Operation_Acquire
	request   apiv1.AcquireRequest
	id        apiv1.RequestID
	want      apiv1.Want
	wants     [1]*apiv1.Want
	sent      time.Duration // before the first send; only if there is a TTL
}

func newAcquiring(c *Client, q *request) *acquiring {
	a := &acquiring{}
	a.prepare(c)
	a.failFast = q.try
	a.want.Name = q.object
	a.wants[0] = &a.want
	a.request.Id = &a.id
	a.request.Locks = a.wants[:]
	a.request.TtlNs = int64(q.ttl)
	a.request.Value = q.value
	a.request.DelayNs = int64(q.delay)
	if q.detached {
		a.request.Detached = true
		a.request.Holder = c.config.holder
		a.request.Labels = c.config.labels
		a.id.Once = q.once
	}
	switch {
	case q.try:
		a.request.WaitNs = 0
	case q.limited:
		a.request.WaitNs = int64(q.wait)
	default:
		a.request.WaitNs = -1
	}
	a.oneof.Acquire = &a.request
	a.operation.Request = &a.oneof
	a.call.Op = &a.operation
	if q.ttl > 0 {
		a.sent = c.now()
	}
	return a
}

// acquire sends the request once in this session. It returns errAgain if the session does
// not accept the request or ends, errLate if the grant had no time left.
func (s *session) acquire(ctx, caller context.Context, q *request) (acquired, error) {
	a := newAcquiring(s.c, q)
	if err := s.begin(a); err != nil {
		if !errors.Is(err, errAgain) {
			err = fmt.Errorf("%s: %w", q.String(), err)
		}
		return acquired{}, err
	}
	s.c.send(&a.op)
	select {
	case answer := <-a.answers:
		return s.answered(ctx, caller, q, a, answer)
	case <-ctx.Done():
		return acquired{}, s.giveUp(ctx, q, a, s.c.ended(ctx, q.what, &a.op))
	case <-s.over:
	}
	if q.detached {
		select {
		case answer := <-a.answers: // its grant outlasts the session
			return s.answered(ctx, caller, q, a, answer)
		default:
		}
	}
	return acquired{}, errAgain
}

// begin registers the acquire in the session and gives it its sequence.
func (s *session) begin(a *acquiring) error {
	s.mu.Lock()
	if err := s.takesLocked(); err != nil {
		s.mu.Unlock()
		s.c.retire(s)
		return err
	}
	s.signLocked(&a.id, &a.op)
	s.acquires++
	if a.request.GetDetached() {
		if s.undelivered == nil {
			s.undelivered = make(map[*acquiring]struct{})
		}
		s.undelivered[a] = struct{}{}
	}
	s.mu.Unlock()
	return nil
}

// takesLocked returns nil if the session accepts new operations, errAgain if another one
// may, and otherwise why it could not be opened.
func (s *session) takesLocked() error {
	switch {
	case s.cause != nil && s.failed.Load():
		return s.cause
	case s.cause != nil || s.retired || s.window.Len() >= maxOpen:
		s.retired = true
		return errAgain
	}
	return nil
}

// signLocked makes o the session's next operation.
func (s *session) signLocked(id *apiv1.RequestID, o *op) {
	s.idleSince = s.c.now()
	id.Session = s.id[:]
	s.window.Issue(o, id)
}

// answered returns the grant, or the error, for the answer to an acquire.
func (s *session) answered(ctx, caller context.Context, q *request, a *acquiring, answer *apiv1.Answer) (acquired, error) {
	if e := answer.GetError(); e != nil {
		return acquired{}, s.refused(ctx, q, a, e)
	}
	if q.detached {
		g, err := s.deliver(caller, q, a, answer)
		return acquired{detached: g}, err
	}
	g, err := s.granted(ctx, caller, q, a, answer)
	return acquired{grant: g}, err
}

// refused returns the error for the refusal of an acquire.
func (s *session) refused(ctx context.Context, q *request, a *acquiring, e *apiv1.Error) error {
	switch code := apiv1.Code(e.GetCode()); {
	case code == codeGaveUp: // an earlier try may have arrived
		return s.giveUp(ctx, q, a, s.c.failure(q.what, e))
	case (code == apiv1.CodeOverloaded || isTurnedAway(code)) && a.call.Doubtful(): // only the last try was refused
		return s.giveUp(ctx, q, a, newError(q.what, e))
	case code == apiv1.CodeNoSession:
		s.expired()
		return errAgain
	case code == apiv1.CodeStaleRequest: // its answer is forgotten, or its sequence was acknowledged
		return s.giveUp(ctx, q, a, errAgain)
	case code == apiv1.CodeNotHeld && q.detached:
		s.finish(a)
		return grantEnded(q, e)
	}
	s.finish(a)
	return newError(q.what, e)
}

func (s *session) granted(ctx, caller context.Context, q *request, a *acquiring, answer *apiv1.Answer) (*Grant, error) {
	got := answer.GetAcquire()
	g := &Grant{
		s:       s,
		name:    q.object,
		token:   got.GetToken(),
		waited:  waitedFor(got),
		granted: got.GetGranted(),
		delay:   q.delay,
		caller:  caller,
		within:  q.within,
	}
	if q.ttl > 0 {
		g.deadline = max(got.GetDeadline(), 1)
		g.latest = sum(s.c.now(), q.ttl)
	}
	err := s.adopt(ctx, a, g, appliedAt(got, answer.GetStamp()))
	switch {
	case err == nil:
		if s.c.config.trace.Granted != nil {
			s.c.config.trace.Granted(g)
		}
		return g, nil
	case errors.Is(err, errAgain), errors.Is(err, errLate):
		return nil, err
	case errors.Is(err, errTwice):
		s.finish(a)
		return nil, newError(q.what, apiv1.NewError(apiv1.CodeInternal, "token %d was given twice", g.token))
	}
	return nil, s.giveUp(ctx, q, a, s.c.ended(ctx, q.what, &a.op))
}

// waitedFor returns how long an acquire waited in the queue.
func waitedFor(got *apiv1.AcquireResponse) time.Duration {
	return time.Duration(max(got.GetGranted()-got.GetQueued(), 0))
}

// appliedAt returns when this acquire entered the table, which may be long before
// its grant. If the answer does not have that, it is the time of the grant's entry.
func appliedAt(got *apiv1.AcquireResponse, stamp int64) int64 {
	if got.GetQueued() > 0 {
		return got.GetQueued()
	}
	return stamp
}

// adopt makes g one of the session's grants, if it is valid.
func (s *session) adopt(ctx context.Context, a *acquiring, g *Grant, applied int64) error {
	s.mu.Lock()
	if g.deadline != 0 {
		s.ticket.learn(a.sent, applied)
	}
	for now := s.c.now(); ; now = s.c.now() {
		if s.cause != nil {
			s.mu.Unlock()
			return errAgain
		}
		if s.grants[g.token] != nil {
			s.mu.Unlock()
			return errTwice
		}
		late, unknown := g.boundLocked() <= now, s.missedUntil != 0 && g.granted <= s.missedUntil
		if late || unknown {
			s.finishLocked(a)
			s.mu.Unlock()
			g.giveBack()
			if late {
				return errLate
			}
			return errAgain
		}
		if now < s.boundLocked() {
			break
		}
		s.mu.Unlock()
		if err := s.confirm(ctx); err != nil {
			return err
		}
		s.mu.Lock()
	}
	r := s.revoked[g.token]
	s.finishLocked(a)
	if r == nil {
		s.keepLocked(g)
		s.mu.Unlock()
		return nil
	}
	g.state = grantLost
	g.err = &LostError{Lock: g.name, Token: g.token, Reason: LostForced, Who: r.GetWho(), Why: r.GetReason()}
	s.mu.Unlock()
	g.notify()
	return nil
}

// finish notes that a was answered.
func (s *session) finish(a *acquiring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked(a)
}

func (s *session) finishLocked(a *acquiring) {
	s.window.Answered(a.id.GetSequence())
	delete(s.undelivered, a)
	if s.acquires--; s.acquires == 0 {
		s.revoked = nil
	}
}

// giveUp gives up an acquire, its place in the queue or its grant, and returns the caller's
// error: err, or that the wait is over. Package window says how it is done, and why.
func (s *session) giveUp(ctx context.Context, q *request, a *acquiring, err error) error {
	s.cancel(a)
	return waitError(ctx, q, err)
}

// cancel gives up an acquire.
func (s *session) cancel(a *acquiring) {
	a.call.Abandon()
	select {
	case answer := <-a.answers:
		if e := answer.GetError(); e != nil && apiv1.Code(e.GetCode()) != codeGaveUp {
			s.finish(a) // it was refused: there is nothing to cancel
			return
		}
	default:
	}
	s.mu.Lock()
	if s.acquires--; s.acquires == 0 {
		s.revoked = nil
	}
	s.mu.Unlock()
	s.sendCancel(a)
}

// sendCancel sends the cancel of an acquire until it was carried out.
func (s *session) sendCancel(a *acquiring) {
	id := &apiv1.RequestID{}
	o := &op{c: s.c, untilReached: true}
	o.call.Op = window.Cancel(id, &a.id)
	o.to = takerFunc(func(answer *apiv1.Answer) {
		fate := window.FateOf(apiv1.Code(answer.GetError().GetCode()))
		s.mu.Lock()
		s.window.Answered(id.GetSequence())
		if fate == window.GivenUp {
			s.window.Answered(a.id.GetSequence())
			delete(s.undelivered, a)
		}
		s.mu.Unlock()
		switch fate {
		case window.SessionOver:
			s.expired()
		case window.Refused:
			if !isTurnedAway(apiv1.Code(answer.GetError().GetCode())) { // otherwise it waits for another access token
				s.c.log.Warn("cancel refused", "lock", a.want.GetName(), "err", answer.GetError())
			}
			time.AfterFunc(retryLast, func() { s.sendCancel(a) })
		}
	})
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.signLocked(id, o)
	s.mu.Unlock()
	s.c.send(o)
}

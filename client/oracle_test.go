package client

import (
	"cmp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

// oracle is a backend that answers at once, and correctly unless the test spoils the
// answer, to a client whose session has a TTL of 10 s.
type oracle struct {
	embedded.Operator // not used

	mu     sync.Mutex
	now    time.Duration // cluster time
	ttl    time.Duration // of sessions; 0: 10 s
	tokens []uint64      // of the next acquires
	silent bool
	spoil  func(*apiv1.Operation, *apiv1.Answer) *apiv1.Answer // nil: nothing
}

// Start is part of backend.
func (o *oracle) Start(call *mux.Call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent {
		return
	}
	a := o.answerLocked(call.Op)
	if o.spoil != nil {
		a = o.spoil(call.Op, a)
	}
	time.AfterFunc(0, func() { call.Done(a) })
}

// Watch is part of backend.
func (*oracle) Watch([16]byte, func(*apiv1.Notice)) (stop func()) { return func() {} }

// Done is part of backend.
func (*oracle) Done() <-chan struct{} { return nil }

func (o *oracle) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *oracle) answerLocked(op *apiv1.Operation) *apiv1.Answer {
	a := &apiv1.Answer{Stamp: int64(o.now)}
	deadline := int64(sum(o.now, cmp.Or(o.ttl, 10*time.Second)))
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_OpenSession:
		a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: deadline}}
	case *apiv1.Operation_KeepAlive:
		a.Result = &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: deadline}}
	case *apiv1.Operation_Acquire:
		got := &apiv1.AcquireResponse{Token: o.tokens[0], Queued: int64(o.now), Granted: int64(o.now)}
		if r.Acquire.GetTtlNs() > 0 {
			got.Deadline = sum(int64(o.now), r.Acquire.GetTtlNs())
		}
		o.tokens = o.tokens[1:]
		a.Result = &apiv1.Answer_Acquire{Acquire: got}
	case *apiv1.Operation_Renew:
		a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: int64(o.now) + r.Renew.GetTtlNs()}}
	case *apiv1.Operation_Release:
		a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
	case *apiv1.Operation_Cancel:
		a.Result = &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}
	case *apiv1.Operation_EndSession:
		a.Result = &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}
	}
	return a
}

func (o *oracle) client(t *testing.T, opts ...Option) *Client {
	began := time.Now()
	clock := Clock(func() time.Duration { return time.Hour + time.Since(began) })
	c := newEmbedded(o, append([]Option{clock}, opts...))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// An answer of another kind was once accepted as a grant with token 0.
func TestAnswerToAnotherRequestIsNoGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, wrong := range map[string]*apiv1.Answer{
			"nothing":        {},
			"another kind":   {Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{}}},
			"without token":  {Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Granted: 1}}},
			"OK as an error": {Result: &apiv1.Answer_Error{Error: &apiv1.Error{}}},
		} {
			o := &oracle{now: time.Minute, tokens: []uint64{1, 2}}
			o.spoil = func(op *apiv1.Operation, a *apiv1.Answer) *apiv1.Answer {
				if op.GetAcquire() != nil {
					return wrong
				}
				return a
			}
			c := o.client(t)
			if g, err := c.TryLock(t.Context(), "a"); err == nil {
				t.Errorf("%s: TryLock = token %d, want an error", name, g.Token())
			}
			if d, err := c.Detached().Acquire(t.Context(), "a", time.Minute); err == nil {
				t.Errorf("%s: Acquire = %+v, want an error", name, d)
			}
		}
	})
}

// The second of two grants with one token was never lost, because a session has its grants
// by their tokens.
func TestTokenThatIsGivenTwiceIsHeldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{now: time.Minute, tokens: []uint64{7, 7, 7}}
		c := o.client(t)
		first := mustLock(t, c, "a")
		if g, err := c.TryLock(t.Context(), "b"); apiv1.CodeOf(err) != apiv1.CodeInternal {
			t.Fatalf("TryLock = %v, %v; want an internal error", g, err)
		}
		mustUnlock(t, first)
		again := mustLock(t, c, "a") // no other grant of the client has the token now
		o.change(func() { o.silent = true })
		time.Sleep(11 * time.Second)
		if again.Err() == nil {
			t.Error("a grant is held after 11s of silence with a TTL of 10s")
		}
	})
}

// A cluster that was restored from a backup goes on with an earlier time, and may
// still have the session. Deadlines from before the restore must not be compared with stamps
// from after it: grants stayed valid for as long as the backup was old.
func TestStampsThatFallProlongNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{now: time.Hour, tokens: []uint64{1, 2}}
		c := o.client(t)
		g, timed := mustLock(t, c, "a"), mustLock(t, c, "b", TTL(time.Minute))
		o.change(func() { o.now -= 30 * time.Minute })
		time.Sleep(4 * time.Second) // a keep-alive is answered in the new time
		if g.Err() != nil || timed.Err() != nil {
			t.Fatalf("lost: %v, %v", g.Err(), timed.Err())
		}
		o.change(func() { o.silent = true })
		if left := time.Until(g.Deadline()); left > 10*time.Second {
			t.Errorf("the grant is valid for another %v", left)
		}
		time.Sleep(10 * time.Second)
		if g.Err() == nil {
			t.Error("the grant is held after 10s of silence")
		}
	})
}

// The answer has a deadline that is much later than the TTL allows.
func TestGrantEndsWithItsTTLWhateverItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{now: time.Minute, tokens: []uint64{1, 2, 3}}
		o.spoil = func(_ *apiv1.Operation, a *apiv1.Answer) *apiv1.Answer {
			if got := a.GetAcquire(); got.GetToken() == 2 {
				got.Deadline = int64(1000 * time.Hour)
			}
			return a
		}
		c := o.client(t)
		long, short := mustLock(t, c, "long", TTL(time.Minute)), mustLock(t, c, "short", TTL(2*time.Second))
		lost := short.Lost()
		time.Sleep(2 * time.Second)
		if short.Err() == nil {
			t.Error("a grant with a TTL of 2s is held after 2s")
		}
		select {
		case <-lost:
		case <-time.After(tickEvery):
			t.Error("Lost is not closed")
		}
		if long.Err() != nil {
			t.Errorf("the other grant: %v", long.Err())
		}
		d, err := c.Detached().Acquire(t.Context(), "c", time.Minute)
		if err != nil || d.ExpiresIn > time.Minute {
			t.Errorf("Acquire = %+v, %v", d, err)
		}
	})
}

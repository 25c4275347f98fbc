package host

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/racedetector"
)

func TestMain(m *testing.M) {
	racedetector.OneThread()
	goleak.VerifyTestMain(m)
}

// bench is a host whose calls a test answers by hand, in virtual time.
type bench struct {
	t      *testing.T
	h      *Host
	limits fsm.Limits
	begun  time.Time
	calls  chan *mux.Call // started and not looked at
}

// inBubble runs f with a host that runs until f returns.
func inBubble(t *testing.T, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, begun: time.Now(), calls: make(chan *mux.Call, 10_000), limits: fsm.Limits{}.WithDefaults()}
		b.h = New(Config{
			Start: func(c *mux.Call) { b.calls <- c }, Mono: func() time.Duration { return time.Since(b.begun) },
			TTL: 6 * time.Second, Limits: func() fsm.Limits { return b.limits }, Holder: "node n1",
		})
		ctx, stop := context.WithCancel(t.Context())
		go b.h.Run(ctx)
		f(b)
		stop()
		synctest.Wait()
	})
}

// caller is one caller without a session.
type caller struct {
	call   *mux.Call
	answer *apiv1.Answer // nil: none yet
}

func (c *caller) code() apiv1.Code { return apiv1.Code(c.answer.GetError().GetCode()) }

func (b *bench) ask(op *apiv1.Operation) *caller {
	b.t.Helper()
	c := &caller{}
	c.call = &mux.Call{Op: op, Done: func(a *apiv1.Answer) {
		if c.answer != nil {
			b.t.Errorf("answered again: %v, after %v", a, c.answer)
		}
		c.answer = a
	}}
	b.h.Start(c.call)
	synctest.Wait()
	return c
}

// next is the call that was started next, but for keep-alives, which are answered.
func (b *bench) next() *mux.Call {
	b.t.Helper()
	if c := b.look(); c != nil {
		return c
	}
	b.t.Fatal("nothing more was sent")
	return nil
}

// look is next, nil if there is none.
func (b *bench) look() *mux.Call {
	synctest.Wait()
	for {
		select {
		case c := <-b.calls:
			if c.Op.GetKeepAlive() == nil {
				return c
			}
			c.Done(&apiv1.Answer{Result: &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: 1}}})
		default:
			return nil
		}
	}
}

func (b *bench) quiet(when string) {
	b.t.Helper()
	if c := b.look(); c != nil {
		b.t.Fatalf("%s %v was sent", when, c.Op)
	}
}

func done(c *mux.Call, a *apiv1.Answer) {
	c.Done(a)
	synctest.Wait()
}

// open answers the request that opens a session, and returns its ID.
func (b *bench) open() []byte {
	b.t.Helper()
	c := b.next()
	if c.Op.GetOpenSession() == nil {
		b.t.Fatalf("%v was sent, want a request that opens a session", c.Op)
	}
	done(c, &apiv1.Answer{Result: &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: 1}}})
	return c.Op.GetOpenSession().GetSession()
}

// passes lets time pass, and answers keep-alives.
func (b *bench) passes(d time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Second, time.Until(end)))
		synctest.Wait()
		for range len(b.calls) {
			c := <-b.calls
			if c.Op.GetKeepAlive() != nil {
				c.Done(&apiv1.Answer{Result: &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: 1}}})
			} else {
				b.calls <- c
			}
		}
	}
	synctest.Wait()
}

func acquire(wait time.Duration, once string) *apiv1.Operation {
	a := &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: "x"}}, TtlNs: int64(time.Minute), WaitNs: int64(wait)}
	if once != "" {
		a.Id = &apiv1.RequestID{Once: []byte(once)}
	}
	return &apiv1.Operation{Id: 7, Request: &apiv1.Operation_Acquire{Acquire: a}}
}

func release() *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: "x", Token: 5}}}
}

func granted(token uint64) *apiv1.Answer {
	return &apiv1.Answer{Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: token, Deadline: 100}}}
}

// confirm answers the renewal that confirms a grant out of a wait.
func (b *bench) confirm(acquire *mux.Call, token uint64) {
	b.t.Helper()
	c := b.next()
	r := c.Op.GetRenew()
	if r.GetToken() != token || r.GetTtlNs() != acquire.Op.GetAcquire().GetTtlNs() || string(r.GetId().GetSession()) != string(acquire.Op.GetAcquire().GetId().GetSession()) {
		b.t.Fatalf("%v was sent, want a renewal of token %d in the session of its acquire", c.Op, token)
	}
	done(c, renewed())
}

func renewed() *apiv1.Answer {
	return &apiv1.Answer{Index: 70, Stamp: 200, Result: &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: 900}}}
}

func released() *apiv1.Answer {
	return &apiv1.Answer{Result: &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}}
}

func cancelled() *apiv1.Answer {
	return &apiv1.Answer{Result: &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}}
}

func refused(code apiv1.Code) *apiv1.Answer { return failed(code, "because") }

// isCancelOf checks a cancel, which has to be of the acquire's own session.
func (b *bench) isCancelOf(c *mux.Call, acquire *mux.Call) {
	b.t.Helper()
	r, of := c.Op.GetCancel(), acquire.Op.GetAcquire().GetId()
	if r == nil {
		b.t.Fatalf("%v was sent, want a cancel", c.Op)
	}
	if got := r.GetTarget(); string(got.GetSession()) != string(of.GetSession()) || got.GetSequence() != of.GetSequence() {
		b.t.Errorf("the cancel is of %v, want %v", got, of)
	}
	if string(r.GetId().GetSession()) != string(of.GetSession()) || r.GetId().GetSequence() == of.GetSequence() {
		b.t.Errorf("the cancel has the ID %v, want one of the same session", r.GetId())
	}
}

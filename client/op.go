package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// codeGaveUp is used in this package only: the remote backend answers with it when
// no node was reachable for [ConnectTimeout].
const codeGaveUp apiv1.Code = 1 << 16

// The pause before a refused operation is sent again: it doubles from retryFirst to
// retryLast, and is shortened by up to a half at random.
const (
	retryFirst = 10 * time.Millisecond
	retryLast  = 500 * time.Millisecond
)

// op is one operation that is retried until it has a final answer: one that is not "try
// again later". That goes to its taker, once, unless the op is abandoned.
type op struct {
	call  mux.Call
	c     *Client
	to    taker
	tries int
	// refusals counts how often it was sent again because its access token was refused.
	refusals int
	// noRetry: the operation is not retried, so that every answer is final.
	noRetry bool
	// untilReached: the operation is sent until a node has answered it: that none was
	// reachable for ConnectTimeout does not end it.
	untilReached bool
	// failFast: "overloaded" is a final answer.
	failFast bool
	refused  atomic.Pointer[refusal] // the last answer after which it was retried
}

// taker gets the final answer of an op, on a goroutine of the backend, and does not
// block. It is an interface, and not a function, because that costs no allocation where the
// op is part of its taker.
type taker interface{ take(*apiv1.Answer) }

type takerFunc func(*apiv1.Answer)

func (f takerFunc) take(a *apiv1.Answer) { f(a) }

// refusal is an answer after which an op was retried, and when it came.
type refusal struct {
	err *apiv1.Error
	at  time.Duration
}

// trouble returns why o was refused last, nil if that was some time ago.
func (o *op) trouble() *apiv1.Error {
	r := o.refused.Load()
	if r == nil || o.c.now()-r.at > 2*retryLast {
		return nil // it has been sent again since, and waits for its answer
	}
	return r.err
}

// send starts o. The caller holds no mutex.
func (c *Client) send(o *op) {
	o.call.Done = o.answered
	c.backend.Start(&o.call)
}

// answered runs on a goroutine of the backend.
func (o *op) answered(a *apiv1.Answer) {
	if o.call.Abandoned() {
		return
	}
	e := a.GetError()
	if e == nil && !o.call.Op.Kind().Fits(a) || e != nil && apiv1.Code(e.GetCode()) == apiv1.CodeOK {
		e = apiv1.NewError(apiv1.CodeInternal, "the answer is not one to this request")
		a = &apiv1.Answer{Result: &apiv1.Answer_Error{Error: e}}
	}
	if apiv1.Code(e.GetCode()) == apiv1.CodeUnauthenticated && !o.noRetry && o.c.router != nil &&
		!ended(o.c.closeEnd) && o.c.router.authenticate(o, e) {
		return
	}
	if e == nil || o.noRetry || !o.transient(apiv1.Code(e.GetCode())) {
		if e != nil && o.noRetry && o.c.router != nil {
			o.c.router.refused(e) // otherwise a client that only sends keep-alives would not find a new leader
		}
		o.to.take(a)
		return
	}
	if apiv1.Code(e.GetCode()) == apiv1.CodeUnknownOutcome {
		o.call.Doubt()
	}
	o.refused.Store(&refusal{err: e, at: o.c.now()})
	o.tries++
	if o.c.router != nil && !ended(o.c.closeEnd) && o.c.router.reroute(&o.call, e, o.tries) {
		return
	}
	time.AfterFunc(jitter(o.tries-1), o.again)
}

func (o *op) again() {
	if o.call.Abandoned() || ended(o.c.closeEnd) || ended(o.c.over) {
		return
	}
	o.c.backend.Start(&o.call)
}

// ended reports whether a channel is closed.
func ended(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// transient reports whether an operation that was refused with code is retried.
func (o *op) transient(code apiv1.Code) bool {
	switch code {
	case codeGaveUp:
		return o.untilReached
	case apiv1.CodeOverloaded:
		return !o.failFast
	}
	return code.Passes()
}

// jitter returns the pause after this number of earlier pauses.
func jitter(waits int) time.Duration {
	d := retryLast
	if waits < 6 {
		d = min(retryFirst<<waits, retryLast)
	}
	return d/2 + rand.N(d/2)
}

// waited is an op whose caller waits on a channel.
type waited struct {
	op
	answers chan *apiv1.Answer // of capacity 1
}

func (w *waited) prepare(c *Client) {
	w.c = c
	w.answers = make(chan *apiv1.Answer, 1)
	w.to = w
}

func (w *waited) take(a *apiv1.Answer) { w.answers <- a }

// ask sends an operation that has no session and waits for its answer. When ctx
// ends first it abandons the operation.
func (c *Client) ask(ctx context.Context, w what, request *apiv1.Operation) (*apiv1.Answer, error) {
	if err := c.admit(ctx, w); err != nil {
		return nil, err
	}
	o := &waited{}
	o.prepare(c)
	o.call.Op = request
	return c.await(ctx, w, o)
}

// await sends o and waits for its answer.
func (c *Client) await(ctx context.Context, w what, o *waited) (*apiv1.Answer, error) {
	c.send(&o.op)
	select {
	case a := <-o.answers:
		if e := a.GetError(); e != nil {
			return nil, c.failure(w, e)
		}
		return a, nil
	case <-ctx.Done():
		o.call.Abandon()
		return nil, c.ended(ctx, w, &o.op)
	case <-c.closing:
	case <-c.over:
	}
	o.call.Abandon()
	return nil, c.ready(w)
}

// failure returns the error for a final answer.
func (c *Client) failure(w what, e *apiv1.Error) error {
	if err := c.ready(w); err != nil {
		return err
	}
	if apiv1.Code(e.GetCode()) == codeGaveUp && c.router != nil {
		endpoints, last := c.router.trouble()
		return &UnavailableError{Op: w.String(), Endpoints: endpoints, Last: last}
	}
	return newError(w, e)
}

// ended returns the error for the end of a caller's context: an UnavailableError if the
// cluster could not be reached. o may be nil.
func (c *Client) ended(ctx context.Context, w what, o *op) error {
	if err := c.ready(w); err != nil {
		return err
	}
	cause := context.Cause(ctx)
	if !errors.Is(cause, ctx.Err()) {
		cause = &ctxError{err: ctx.Err(), cause: cause}
	}
	if o == nil {
		return &opError{op: w.String(), cause: cause}
	}
	if c.router != nil {
		if endpoints, last := c.router.trouble(); last != nil {
			return &UnavailableError{Op: w.String(), Endpoints: endpoints, Last: last, Cause: cause}
		}
	}
	if e := o.trouble(); e != nil {
		if apiv1.Code(e.GetCode()) == apiv1.CodeOverloaded {
			return &opError{op: w.String(), kind: ErrOverloaded, api: e, cause: cause}
		}
		return &UnavailableError{Op: w.String(), Last: e, Cause: cause}
	}
	return &opError{op: w.String(), cause: cause}
}

// ctxError is the end of a context that has its own cause.
type ctxError struct{ err, cause error }

func (e *ctxError) Error() string   { return e.cause.Error() }
func (e *ctxError) Unwrap() []error { return []error{e.err, e.cause} }

package mux

import (
	"context"
	"sync/atomic"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Call is one operation under way.
type Call struct {
	Op *apiv1.Operation
	// Done gets the answer: exactly once, from any goroutine, unless the call
	// was abandoned. It must not block.
	Done func(*apiv1.Answer)

	abandoned, doubtful atomic.Bool
}

// Abandon says that nobody waits for the answer any more: Done need not be
// called, and the operation need not be sent again. What it has done stays done.
func (c *Call) Abandon() { c.abandoned.Store(true) }

// Abandoned reports whether Abandon was called.
func (c *Call) Abandoned() bool { return c.abandoned.Load() }

// Doubt says that a try of the operation may have taken effect, though its answer
// was lost: from now on a refusal does not say that nothing was done.
func (c *Call) Doubt() { c.doubtful.Store(true) }

// Doubtful reports whether Doubt was called.
func (c *Call) Doubtful() bool { return c.doubtful.Load() }

// Do starts op and waits for its answer. When ctx ends first it abandons the
// call and returns the cause; whether the operation takes effect is then unknown.
func Do(ctx context.Context, start func(*Call), op *apiv1.Operation) (*apiv1.Answer, error) {
	answers := make(chan *apiv1.Answer, 1)
	call := &Call{Op: op, Done: func(a *apiv1.Answer) { answers <- a }}
	start(call)
	select {
	case a := <-answers:
		return a, nil
	case <-ctx.Done():
		call.Abandon()
		return nil, context.Cause(ctx)
	}
}

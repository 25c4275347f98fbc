package mux

import (
	"context"
	"sync"
	"sync/atomic"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
)

// Call is one operation under way.
type Call struct {
	Op *apiv1.Operation
	// Done gets the answer: exactly once, from any goroutine, unless the call
	// was abandoned. It must not block.
	Done func(*apiv1.Answer)
	// Owner is the owner of the call in queues in which owners take turns.
	Owner fair.Owner
	// Readable are the names that the answer to a read of many locks may show, in their order,
	// where the caller may not read all: each from From up to To, without To itself; without an
	// end if that is empty. nil: all names. It is for the node that the call is started on.
	Readable []struct{ From, To string }

	abandoned, doubtful atomic.Bool

	mu   sync.Mutex // guards left, and whether it sees the call abandoned
	left func()
}

// Abandon notes that no caller gets the answer: the caller no longer waits for it, or it could
// not be delivered. Done need not be called then, and the operation need not be sent again.
// What the operation has done stays done, unless the callee reacts to OnAbandon. Abandon may
// be called more than once.
func (c *Call) Abandon() {
	c.mu.Lock()
	again := c.abandoned.Swap(true)
	f := c.left
	c.mu.Unlock()
	if f != nil && !again {
		f()
	}
}

// Abandoned reports whether Abandon was called.
func (c *Call) Abandoned() bool { return c.abandoned.Load() }

// OnAbandon sets a function that is called once if the call is abandoned, before Done or
// after it: if and only if no caller got the answer. It is called at once if the call is abandoned
// already. A call has one such function, set before the call can be answered. It must
// neither block nor answer a call: Abandon may be called with locks held.
func (c *Call) OnAbandon(f func()) {
	c.mu.Lock()
	c.left = f
	gone := c.abandoned.Load()
	c.mu.Unlock()
	if gone {
		f()
	}
}

// Doubt records that an attempt of the operation may have taken effect, though its answer
// was lost: from now on a refusal does not mean that nothing was done.
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

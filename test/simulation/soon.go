package simulation

import (
	"context"
	"time"

	"github.com/locknode/locknode/client"
)

// soonBound is how long anything may take that waits for nobody, once nothing is
// broken: what a recovery takes, and a session's end by time.
func soonBound(p Plan) time.Duration { return recoveryBound(p) + 5*time.Second }

// soon waits until something is so, and finds a promise broken if it is not within
// the bound, counted only while nothing is broken. It gives up with ctx.
func (w *worker) soon(ctx context.Context, what string, so func(ctx context.Context) bool) bool {
	return w.soonIn(ctx, 0, what, so)
}

// soonIn is soon for what may take more time.
func (w *worker) soonIn(ctx context.Context, more time.Duration, what string, so func(ctx context.Context) bool) bool {
	bound, began := soonBound(w.r.p)+more, w.r.c.Now()
	for ctx.Err() == nil {
		calm := min(w.r.calmFor(), w.r.c.Now()-began)
		call, cancel := context.WithTimeout(ctx, bound)
		yes := so(call)
		cancel()
		if yes {
			return true
		}
		if calm > bound && w.r.calmFor() >= calm {
			w.r.violate("liveness", "%s: it is not so that %s, %v after everything was mended", w.w.Name, what, calm)
			return false
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return false
}

// look reads a lock for a check. It asks the client that the worker has now: the one
// that its deed began with may have been killed since, and never answers again.
func (w *worker) look(ctx context.Context, name string) (client.LockInfo, error) {
	c, err := w.client()
	if err != nil {
		return client.LockInfo{}, err
	}
	return c.Get(ctx, name)
}

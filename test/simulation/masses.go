package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locknode/locknode/client"
)

// second returns another client of the worker's own, which no fault is aimed at.
func (w *worker) second(role string) (*client.Client, error) {
	return w.r.c.Client(w.w.Name+"-"+role, client.SessionTTL(maxHold/2))
}

// all calls do for the numbers below n, some at a time.
func all(n int, do func(i int)) {
	const atOnce = 10
	var wg sync.WaitGroup
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < n; i += atOnce {
				do(i)
			}
		})
	}
	wg.Wait()
}

// masses holds more locks than the cluster keeps revocations for. An operator takes all of
// them away and holds them itself, mostly while their holder is cut off. The check of
// beliefs shows whether the holder takes them to be valid for too long.
func (w *worker) masses(ctx context.Context, c *client.Client) error {
	ops, err := w.second("ops")
	if err != nil {
		return err
	}
	n := 70 + w.rand.IntN(80)
	name := func(i int) string { return fmt.Sprintf("mass/%s/%d", w.w.Name, i) }
	held, taken := make([]*client.Grant, n), make([]*client.Grant, n)
	unlock := func(grants []*client.Grant) {
		all(n, func(i int) {
			if g := grants[i]; g != nil {
				w.expect(g.Unlock())
			}
		})
	}
	all(n, func(i int) {
		var err error
		held[i], err = c.Lock(ctx, name(i), client.Wait(maxHold))
		w.expect(err)
	})
	defer unlock(held)
	cut := w.rand.IntN(4) > 0
	if cut {
		_ = w.r.c.Isolate(w.w.Name) // never fails for a client
		sleep(ctx, time.Duration(w.rand.Int64N(int64(time.Second))))
	}
	all(n, func(i int) {
		_, err := ops.ForceRelease(ctx, name(i), 0, "the simulation wants all of them")
		w.expect(err)
		taken[i], err = ops.TryLock(ctx, name(i))
		w.expect(err)
	})
	defer unlock(taken)
	if cut {
		for _, node := range w.r.c.Nodes() {
			_ = w.r.c.Reset(w.w.Name, node) // likewise; what was on its way is lost
		}
		sleep(ctx, time.Duration(w.rand.Int64N(int64(w.w.TTL/2))))
		_ = w.r.c.Rejoin(w.w.Name) // likewise
	}
	sleep(ctx, w.w.TTL)
	return nil
}

package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/locknode/locknode/client"
)

// delays holds a lock that is to stay free for a while after a loss by time, and
// loses it now and then by being cut off until it is lost, and no longer: then it
// is back before the cluster has noticed.
func (w *worker) delays(ctx context.Context, c *client.Client) error {
	delay := 500*time.Millisecond + time.Duration(w.rand.Int64N(int64(3*time.Second)))
	opts := []client.LockOption{client.DelayAfterLoss(delay), client.Wait(time.Duration(1+w.rand.IntN(10)) * time.Second)}
	if w.rand.IntN(3) == 0 {
		opts = append(opts, client.TTL(time.Second+time.Duration(w.rand.Int64N(int64(2*time.Second)))))
	}
	g, err := c.Lock(ctx, fmt.Sprintf("delay/%d", w.rand.IntN(2)), opts...)
	if err != nil {
		return err
	}
	switch w.rand.IntN(4) {
	case 0:
		w.hold(ctx, g, w.holdFor())
	case 1:
		w.hold(ctx, g, maxHold)
	default:
		_ = w.r.c.Isolate(w.w.Name) // never fails for a client
		w.hold(ctx, g, maxHold)
		if w.rand.IntN(3) == 0 {
			sleep(ctx, time.Duration(w.rand.Int64N(int64(time.Second))))
		}
		_ = w.r.c.Rejoin(w.w.Name) // likewise
	}
	return g.Unlock()
}

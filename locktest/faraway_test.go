package locktest_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// TestAClientFarAwayGetsItsLock: a round trip of more than a second makes operations slow, and
// nothing else. The latency grows while the client is connected, or is high from the
// beginning.
func TestAClientFarAwayGetsItsLock(t *testing.T) {
	for _, way := range []time.Duration{400, 450, 550, 1000, 2000, 3000} {
		for _, connected := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				way := way * time.Millisecond
				c := locktest.New(t, 3, locktest.Timing(10*time.Second))
				a := c.Client("a", client.SessionTTL(time.Minute))
				if connected {
					isLocked(t, a, "x")
				}
				for _, n := range c.Nodes() {
					c.Slow("a", n, way)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begin := time.Now()
				g, err := a.Lock(ctx, "x")
				if err != nil {
					t.Fatalf("one way %v, connected before: %v: no lock within a minute: %v", way, connected, err)
				}
				first := time.Since(begin)
				must(t, g.SetValue(t.Context(), []byte("a"))) // the first pings may still be under way
				var took []time.Duration
				for range 11 {
					begin = time.Now()
					must(t, g.SetValue(t.Context(), []byte("b")))
					took = append(took, time.Since(begin))
				}
				slices.Sort(took)
				each := took[len(took)/2]
				t.Logf("one way %v, connected before: %v: the first lock took %v, then most changes of its value %v", way, connected, first, each)
				// Three seconds are nearly the most that a client waits for a ping. Below that
				// a late ping may still cost some changes a second trip.
				if way < 3*time.Second && each > 2*way*6/5 {
					t.Errorf("a change took %v, want a round trip", each)
				}
				must(t, g.Unlock())
			})
		}
	}
}

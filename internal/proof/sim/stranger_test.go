package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestStrangerOnTheRaftPort: whatever a stranger sends in a member's name, locks are granted,
// also after leaders were killed and while the member is down.
func TestStrangerOnTheRaftPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		cl := mustClient(t, c, "a")
		term := c.term()
		c.Intrude(150 * time.Millisecond)
		longest := gaps(t, c, cl, func() {
			time.Sleep(5 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, n := range c.Nodes() {
				must(t, c.Kill(n))
				time.Sleep(5 * time.Second)
				must(t, c.Start(n))
				if err := c.WaitReady(ctx); err != nil {
					t.Errorf("after the death of %s: %v", n, err)
					return
				}
			}
		})
		if longest > 2*anElection {
			t.Errorf("no lock was given for %v", longest)
		}
		if got := c.term(); got > term+20 {
			t.Errorf("the term went from %d to %d", term, got)
		}
	})
}

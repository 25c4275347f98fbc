package locktest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/locktest"
)

// TestALeaderThatRemovesItselfConfirmsNoReadAlone: what the leader sends arrives, the
// removal too, and nothing comes back. The others may elect without it.
func TestALeaderThatRemovesItselfConfirmsNoReadAlone(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := locktest.New(t, nodes, locktest.Timing(5*time.Second))
				must(t, lock(t, c.Client("a"), "x").Unlock())
				leader := c.Leader()
				n := c.Node(leader)
				for _, f := range c.Followers() {
					c.Slow(f, leader, 150*time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				c.Remove(leader) // first it makes sure that it leads: that takes 300 ms
				time.Sleep(400 * time.Millisecond)
				for _, f := range c.Followers() {
					c.Cut(f, leader)
				}
				if _, err := n.ReadIndex(ctx); err == nil {
					t.Errorf("a read round of %s was confirmed though no voter of its configuration has answered it", leader)
				}
				c.Heal()
				c.Reseed(leader)
				c.WaitReady()
				must(t, lock(t, c.Client("a"), "x").Unlock())
				c.CheckHistory()
			})
		})
	}
}

// TestAReadThroughAFollowerIsThereWithTheNextWrite: at a failover, when a new leader
// takes writes, reads through followers need not wait any longer.
func TestAReadThroughAFollowerIsThereWithTheNextWrite(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			c := locktest.New(t, 3, locktest.Seed(seed))
			f := c.Followers()[0]
			cl := c.Node(f).Client()
			defer cl.Close()
			w := c.Client("w")
			isLocked(t, cl, "x")
			must(t, lock(t, w, "x").Unlock())
			time.Sleep(time.Duration(seed) * 137 * time.Millisecond) // rounds come once a second
			c.KillLeader()
			begin := time.Now()
			done := make(chan time.Duration)
			go func() {
				g, err := w.Lock(t.Context(), "y")
				done <- time.Since(begin)
				if err == nil {
					_ = g.Unlock()
				}
			}()
			isLocked(t, cl, "x")
			read := time.Since(begin)
			write := <-done
			t.Logf("after the leader's death: a write took %v, a read through %s %v", write, f, read)
			if read > write+100*time.Millisecond {
				t.Errorf("a read through a follower took %v longer than a write", read-write)
			}
		})
	}
}

// TestWhatIsOnItsWayToADeadLeaderGoesToTheNext: nobody asks anything else meanwhile.
func TestWhatIsOnItsWayToADeadLeaderGoesToTheNext(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		leader, f := c.Leader(), c.Followers()[0]
		cl := c.Node(f).Client()
		defer cl.Close()
		must(t, lock(t, cl, "x").Unlock())
		time.Sleep(100 * time.Millisecond)
		c.Isolate(leader)
		within(t, 800*time.Millisecond, "a lock through a follower whose leader had just died", func() {
			must(t, lock(t, cl, "y").Unlock())
		})
		c.Heal()
	})
}

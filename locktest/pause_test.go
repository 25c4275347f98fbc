package locktest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// TestAMinuteOfVirtualTimeTakesLessThanSeconds reports how long the user's test of
// worker_test.go takes. It asserts nothing: machines differ.
func TestAMinuteOfVirtualTimeTakesLessThanSeconds(t *testing.T) {
	begin := time.Now()
	t.Run("minute", TestAWorkerThatWasPausedForAMinuteDoesNotWrite)
	t.Logf("a minute of virtual time took %v", time.Since(begin).Round(time.Millisecond))
}

// TestAPausedWorkerHasLostItsLock: when it runs again its context has ended, with
// the reason, before another client had the lock.
func TestAPausedWorkerHasLostItsLock(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		err := cluster.Client("worker").Do(t.Context(), "x", func(ctx context.Context, g *client.Grant) error {
			cluster.PauseFor("worker", time.Minute)
			var l *client.LostError
			if !errors.As(context.Cause(ctx), &l) || l.Reason != client.LostDeadline {
				t.Errorf("after the pause the cause of the context's end is %v", context.Cause(ctx))
			}
			return g.Err()
		})
		if !errors.Is(err, client.ErrLost) {
			t.Errorf("Do: %v, want ErrLost", err)
		}
	})
}

// TestAPausePointStopsThePausedClientOnly: until Resume, and no other client.
func TestAPausePointStopsThePausedClientOnly(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		cluster.Client("a")
		cluster.Client("b")
		steps := func(name string) chan time.Duration {
			passed := make(chan time.Duration, 1)
			begin := time.Now()
			go func() {
				cluster.PausePoint(name)
				passed <- time.Since(begin)
			}()
			return passed
		}
		cluster.Pause("a")
		held, free := steps("a"), steps("b")
		if d := <-free; d != 0 {
			t.Errorf("a pause of a has held b for %v", d)
		}
		time.Sleep(time.Minute)
		cluster.Resume("a")
		if d := <-held; d != time.Minute {
			t.Errorf("the pause point has held for %v, want a minute", d)
		}
		if d := <-steps("a"); d != 0 {
			t.Errorf("after the pause it holds for %v", d)
		}
	})
}

// TestAPauseEndsWithTheCluster: no test hangs because it forgot to resume.
func TestAPauseEndsWithTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 2)
		t.Cleanup(func() { <-ended; <-ended }) // after the cluster's, which comes first
		cluster := locktest.New(t, 3)
		cluster.Client("a")
		cluster.Pause("a")
		go func() { cluster.PausePoint("a"); ended <- struct{}{} }()
		go func() { cluster.PauseFor("n1", 24*time.Hour); ended <- struct{}{} }()
		synctest.Wait()
	})
}

// TestALeaderThatIsPausedDoesNoHarm: the others elect a leader, and what it finishes after the
// pause counts only if its term is still the latest.
func TestALeaderThatIsPausedDoesNoHarm(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a", short()), cluster.Client("b", short())
		for range 3 {
			g := lock(t, a, "x")
			leader := cluster.Leader()
			cluster.Pause(leader)
			within(t, 3*time.Second, "an unlock and a lock after the leader was paused", func() {
				must(t, g.Unlock())
				g = lock(t, b, "x")
			})
			if now := cluster.Leader(); now == leader {
				t.Errorf("%s is paused and leads", now)
			}
			time.Sleep(10 * time.Second)
			cluster.Resume(leader)
			must(t, g.Unlock())
			cluster.WaitReady()
		}
	})
}

// TestPartitionsSeparateAndHeal: the side with the majority works, the other one
// does not, and no two grants of a lock are valid at once.
func TestPartitionsSeparateAndHeal(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		few, many := cluster.Client("few", short()), cluster.Client("many", short())
		lost := lock(t, few, "x")
		leader := cluster.Leader()
		cluster.Partition([]string{leader, "few"}, append(cluster.Followers(), "many"))
		g := lock(t, many, "x")
		if !errors.Is(lost.Err(), client.ErrLost) {
			t.Errorf("the holder beside a leader without a majority: %v, want ErrLost", lost.Err())
		}
		if _, err := few.Lock(t.Context(), "y", client.Wait(time.Second)); !errors.Is(err, client.ErrTimeout) && !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("Lock without a majority: %v", err)
		}
		cluster.Heal()
		cluster.WaitReady()
		must(t, lock(t, few, "y").Unlock())
		must(t, g.Unlock())
	})
}

// TestSlowAndBrokenConnectionsAreOnlySlow: a round trip of half a second, and
// connections that break all the time.
func TestSlowAndBrokenConnectionsAreOnlySlow(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a := cluster.Client("a")
		for _, n := range cluster.Nodes() {
			cluster.Slow("a", n, 250*time.Millisecond)
		}
		for range 5 {
			g := lock(t, a, "x")
			for _, n := range cluster.Nodes() {
				cluster.Reset("a", n)
			}
			must(t, g.Unlock())
		}
		if n := granted(cluster, "x"); n != 5 {
			t.Errorf("%d grants for 5 locks", n)
		}
	})
}

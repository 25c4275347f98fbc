package locktest_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/locktest"
)

// handOver lets clients take a lock again and again that each of them loses by
// time, until d is over, and returns how often they got it.
func handOver(t testing.TB, clients []*client.Client, d time.Duration) (handovers int) {
	t.Helper()
	until := time.Now().Add(d)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for time.Now().Before(until) {
				g, err := c.Lock(t.Context(), "x", client.TTL(2*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				<-g.Lost()
				mu.Lock()
				handovers++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return handovers
}

// TestSkewedClocksBreakNothingWithinTheBound: clocks of clients and nodes at both ends of the
// range, wall clocks that jump, and a lock that changes its holder by time alone, so that
// clocks matter.
func TestSkewedClocksBreakNothingWithinTheBound(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		rates := []float64{0.995, 1.005, 0.995, 1.005}
		var clients []*client.Client
		for i, rate := range rates {
			name := fmt.Sprint("c", i)
			clients = append(clients, cluster.Client(name, short()))
			cluster.SkewClock(name, rate)
		}
		handovers := 0
		for i := range 4 { // each node leads with a clock that is fast, and with one that is slow
			for k, name := range cluster.Nodes() {
				cluster.SkewClock(name, rates[(i+k)%2])
				cluster.JumpWallClock(name, time.Duration(i*k-2)*5*time.Hour+time.Second)
			}
			handovers += handOver(t, clients, 40*time.Second)
			cluster.Restart(cluster.KillLeader())
			cluster.WaitReady()
		}
		if handovers < 50 {
			t.Errorf("only %d handovers", handovers)
		}
	})
}

// TestAClockBeyondTheBoundIsFound: the check of the test above can fail. The grants of a
// client whose clock is 5 % slow are valid for too long.
func TestAClockBeyondTheBoundIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := judged(t, func(t *judge) {
			cluster := locktest.New(t, 3)
			slow, other := cluster.Client("slow", short()), cluster.Client("other", short())
			cluster.SkewClock("slow", 0.95)
			handOver(t, []*client.Client{slow, other}, 20*time.Second)
			cluster.CheckHistory()
		})
		if !reports(failures, "a holder loses its grant in time (S3)", `lock "x"`, "of slow was valid") {
			t.Errorf("a clock that is 5%% slow: the kit reports %q", failures)
		}
	})
}

func TestAnExpiredClientLosesItsLockFirst(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a"), cluster.Client("b")
		cluster.Expire("a") // has no session yet
		g := lock(t, a, "x")
		waits := make(chan error, 1)
		go func() {
			next, err := b.Lock(t.Context(), "x")
			if err == nil && g.Err() == nil {
				err = errors.New("the grant of a is valid while b has the lock")
			}
			waits <- errors.Join(err, next.Unlock())
		}()
		cluster.Expire("a")
		if l := lost(t, g); l.Reason != client.LostDeadline {
			t.Errorf("lost by %v, want by its deadline", l.Reason)
		}
		must(t, <-waits)
		must(t, lock(t, a, "x").Unlock()) // it is reconnected, with another session
	})
}

// TestExpireMeansTheClientAndNotItsHolder: a client may have any holder name, also one
// that others have, or that is the name of another client.
func TestExpireMeansTheClientAndNotItsHolder(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		own, same := cluster.Client("a", client.Holder("b")), cluster.Client("b")
		first, second := lock(t, own, "x"), lock(t, same, "y")
		within(t, 15*time.Second, "the end of a session with a TTL of 10s", func() { cluster.Expire("a") })
		if l := lost(t, first); l.Reason != client.LostDeadline {
			t.Errorf("lost by %v, want by its deadline", l.Reason)
		}
		must(t, second.Err())
		must(t, lock(t, same, "x").Unlock())
		lock(t, own, "x")
		within(t, 15*time.Second, "the end of a session whose holder has another one", func() { cluster.Expire("b") })
		_ = lost(t, second)
	})
}

// TestNothingExpiresWithoutALeader: cluster time stands still for ten TTLs, while the clients
// that are cut off lose their grants by their own clocks.
func TestNothingExpiresWithoutALeader(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a", short()), cluster.Client("b", short())
		g := lock(t, a, "session")
		const ttl = 2 * time.Second
		detached, err := a.Detached().Acquire(t.Context(), "detached", ttl)
		must(t, err)
		begin := time.Now()
		for _, name := range cluster.Nodes() {
			cluster.Isolate(name)
		}
		<-g.Lost()
		if took := time.Since(begin); took > ttl {
			t.Errorf("the holder lost its grant after %v, want within the TTL of %v", took, ttl)
		}
		time.Sleep(10 * ttl)
		healed := time.Now()
		cluster.Heal()
		cluster.WaitReady()
		info, err := b.Get(t.Context(), "detached")
		must(t, err)
		if len(info.Holders) != 1 || info.Holders[0].Token != detached.Token {
			t.Errorf("after ten TTLs without a leader the lock is %+v, want it held with token %d", info, detached.Token)
		}
		// Cluster time goes on with the first of several leaders, perhaps long before all are ready.
		ready := time.Now()
		must(t, lock(t, b, "detached").Unlock())
		if waited := time.Since(healed); waited < ttl/2 {
			t.Errorf("the lock was free %v after the network was whole, want what was left of its TTL of %v", waited, ttl)
		}
		if waited := time.Since(ready); waited > ttl+time.Second {
			t.Errorf("the lock was free %v after all were ready, want within its TTL of %v", waited, ttl)
		}
		must(t, lock(t, b, "session").Unlock())
	})
}

// TestAllNodesDownForAnHour: what was held is held when they are back.
func TestAllNodesDownForAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a := cluster.Client("a")
		g := lock(t, a, "session")
		detached, err := a.Detached().Acquire(t.Context(), "detached", time.Minute)
		must(t, err)
		for _, name := range cluster.Nodes() {
			cluster.Kill(name)
		}
		down := time.Hour
		if !testall.On() {
			down = 5 * time.Minute // clients that search for a node are most of the work
		}
		time.Sleep(down)
		if g.Err() == nil {
			t.Errorf("the grant is still valid after %v without a node", down)
		}
		for _, name := range cluster.Nodes() {
			cluster.Restart(name)
		}
		cluster.WaitReady()
		b := cluster.Client("b")
		var busy *client.BusyError
		if _, err := b.TryLock(t.Context(), "detached"); !errors.As(err, &busy) || busy.Holders[0].Token != detached.Token {
			t.Errorf("TryLock after that: %v, want that it is held with token %d", err, detached.Token)
		}
		within(t, time.Minute+2*time.Second, "what was left of a minute", func() { must(t, lock(t, b, "detached").Unlock()) })
		must(t, lock(t, b, "session").Unlock())
	})
}

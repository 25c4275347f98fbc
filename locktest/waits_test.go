package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/locktest"
)

// TestManyRevocationsWhileCutOffAreLosses: an operator releases more grants of a client
// by force than the cluster remembers, while the client is cut off for less than its TTL.
func TestManyRevocationsWhileCutOffAreLosses(t *testing.T) {
	for _, n := range []int{64, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			bubble(t, func(t *testing.T, c *locktest.Cluster) {
				holder, ops := c.Client("holder", client.SessionTTL(60*time.Second)), c.Client("ops")
				var grants []*client.Grant
				for i := range n {
					grants = append(grants, lock(t, holder, fmt.Sprintf("l%d", i)))
				}
				c.Isolate("holder")
				time.Sleep(2 * time.Second)
				for i := range n {
					_, err := ops.ForceRelease(t.Context(), fmt.Sprintf("l%d", i), 0, "stuck")
					must(t, err)
					lock(t, ops, fmt.Sprintf("l%d", i))
				}
				time.Sleep(25 * time.Second)
				c.Heal()
				time.Sleep(25 * time.Second) // one keep-alive is enough
				for _, g := range grants {
					if g.Err() == nil {
						t.Errorf("%q was released by force and given to another client, and its first grant is valid", g.Name())
					}
				}
				must(t, lock(t, holder, "another").Err())
			})
		})
	}
}

// TestSetValueBesideALongWait: a candidate for one lock works under another one, for
// longer than the cluster remembers the answers of a session.
func TestSetValueBesideALongWait(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		other, a := c.Client("other"), c.Client("a")
		leader := lock(t, other, "leader")
		elected := make(chan error, 1)
		go func() {
			g, err := a.Lock(t.Context(), "leader")
			if err == nil {
				err = g.Unlock()
			}
			elected <- err
		}()
		waiting(t, c, other, "leader", 1)
		g := lock(t, a, "job/7")
		for i := range 10_100 {
			must(t, g.SetValue(t.Context(), fmt.Appendf(nil, "%d", i)))
		}
		must(t, g.Unlock())
		if isLocked(t, other, "job/7") {
			t.Error("the lock is held after Unlock has returned nil")
		}
		must(t, leader.Unlock())
		must(t, <-elected)
	})
}

// TestRepeatedAcquireThroughOtherClients: the answers under one request ID are true at the
// time of each answer.
func TestRepeatedAcquireThroughOtherClients(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		one, two, three := c.Client("one"), c.Client("two"), c.Client("three")
		id := client.RequestID([16]byte{1, 2, 3})
		acquire := func(c *client.Client, opts ...client.DetachedOption) (client.DetachedGrant, error) {
			return c.Detached().Acquire(t.Context(), "x", 10*time.Second, opts...)
		}
		first, err := acquire(one, id)
		must(t, err)
		time.Sleep(8 * time.Second)
		again, err := acquire(two, id)
		must(t, err)
		if again.Token != first.Token || again.ExpiresIn > 2*time.Second {
			t.Errorf("8 s after a grant of 10 s, %+v, another try gets %+v", first, again)
		}
		time.Sleep(3 * time.Second)
		next, err := acquire(three)
		must(t, err)
		for _, wait := range []time.Duration{0, time.Second, 20 * time.Second} {
			time.Sleep(wait)
			if g, err := acquire(two, id); !errors.Is(err, client.ErrNotHeld) {
				t.Errorf("after the grant has ended another try gets %+v, %v, want ErrNotHeld; the next grant was %+v", g, err, next)
			}
		}
	})
}

// TestSlowTryAndItsCancelAfterARetry: they arrive after the second try, which went through
// another node, and do not end its grant.
func TestSlowTryAndItsCancelAfterARetry(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		slow, fast, third := c.Client("slow"), c.Client("fast"), c.Client("third")
		must(t, lock(t, slow, "open").Unlock())
		must(t, lock(t, fast, "open").Unlock())
		id := client.RequestID([16]byte{1, 2, 3})
		for _, n := range c.Nodes() {
			c.Slow("slow", n, 700*time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := slow.Detached().Acquire(ctx, "x", 30*time.Second, id)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the first try: %v", err)
		}
		g, err := fast.Detached().Acquire(t.Context(), "x", 30*time.Second, id)
		must(t, err)
		time.Sleep(3 * time.Second)
		if !isLocked(t, third, "x") {
			t.Errorf("3 s after a grant for %v the lock is free", g.ExpiresIn)
		}
		must(t, fast.Detached().Release(t.Context(), "x", g.Token))
	})
}

// TestDelayAfterLossWithoutALeader: the lock is lost by time, by its holder's clock,
// while the cluster's stands still.
func TestDelayAfterLossWithoutALeader(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		holder, next := c.Client("holder"), c.Client("next")
		g := lock(t, holder, "x", client.DelayAfterLoss(30*time.Second))
		got := make(chan time.Duration, 1)
		go func() {
			g, err := next.Lock(t.Context(), "x")
			if err != nil {
				t.Error(err)
			}
			got <- c.Now()
			_ = g.Unlock()
		}()
		waiting(t, c, c.Client("ops"), "x", 1)
		c.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		<-g.Lost()
		lost := c.Now()
		time.Sleep(time.Second)
		c.Heal()
		if d := <-got - lost; d < 30*time.Second || d > 35*time.Second {
			t.Errorf("the next holder got the lock %v after it was lost by time, with a delay of 30 s", d)
		}
	})
}

// TestCloseDuringDetachedAcquires: whatever the moment, a lock is held afterwards only if its
// grant was returned.
func TestCloseDuringDetachedAcquires(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		ops := c.Client("ops")
		lock(t, ops, "warm")
		for i := range 100 {
			name := fmt.Sprintf("c%d", i)
			closer := c.Client(name)
			must(t, lock(t, closer, "open").Unlock())
			held := lock(t, ops, name+"/waited for")
			var mu sync.Mutex
			var returned []uint64
			var wg sync.WaitGroup
			for _, l := range []string{name, name + "/waited for"} {
				wg.Go(func() {
					g, err := closer.Detached().Acquire(t.Context(), l, time.Hour, client.Wait(time.Hour))
					if err == nil {
						mu.Lock()
						defer mu.Unlock()
						returned = append(returned, g.Token)
					}
				})
			}
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			unlocked := make(chan error, 1)
			go func() { unlocked <- held.Unlock() }()
			time.Sleep(time.Duration(i%10) * 100 * time.Microsecond)
			must(t, closer.Close())
			wg.Wait()
			must(t, <-unlocked)
			for _, l := range []string{name, name + "/waited for"} {
				info, err := ops.Get(t.Context(), l)
				must(t, err)
				if info.Waiters != 0 || info.Held() && !slices.Contains(returned, info.Holders[0].Token) {
					t.Errorf("%q is held by %+v with %d waiters; returned were %d", l, info.Holders, info.Waiters, returned)
				}
			}
		}
	})
}

// TestLongestWait: no sum with it overflows.
func TestLongestWait(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		g := lock(t, c.Client("a"), "x")
		time.AfterFunc(5*time.Second, func() { _ = g.Unlock() })
		n, err := c.Client("b").Lock(t.Context(), "x", client.Wait(math.MaxInt64))
		must(t, err)
		must(t, n.Unlock())
	})
}

// TestManyWaitersOfOneClient: so many of its acquires wait that its stream accepts no
// more of them; requests that free the locks are accepted.
func TestManyWaitersOfOneClient(t *testing.T) {
	testall.Only(t, "20,400 goroutines")
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		a := c.Client("a", client.SessionTTL(10*time.Minute))
		const locks, each = 3, 6_800
		var held []*client.Grant
		for i := range locks {
			held = append(held, lock(t, a, fmt.Sprintf("hot%d", i)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		var granted atomic.Int64
		for i := range locks * each {
			wg.Go(func() {
				if g, err := a.Lock(ctx, fmt.Sprintf("hot%d", i%locks)); err == nil {
					granted.Add(1)
					_ = g.Unlock()
				}
			})
		}
		time.Sleep(20 * time.Second)
		for _, g := range held {
			must(t, g.Unlock())
		}
		time.Sleep(10 * time.Second)
		if granted.Load() == 0 {
			t.Errorf("all locks were unlocked 10 s ago, %d goroutines wait for them, and none got one", locks*each)
		}
		cancel()
		wg.Wait()
		must(t, a.Close())
	})
}

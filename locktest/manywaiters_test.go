package locktest_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/locktest"
)

// crowd is more queued acquires than a stream may have operations of other kinds
// under way, for a few locks that are held. A client gets half of a queue at most.
type crowd struct {
	locks, each     int
	wg              sync.WaitGroup
	granted, failed atomic.Int64
}

func (w *crowd) name(i int) string { return fmt.Sprintf("hot%d", i%w.locks) }

// wait makes c wait for the locks until ctx ends; each that is granted is released.
func (w *crowd) wait(ctx context.Context, c *client.Client) {
	for i := range w.locks * w.each {
		w.wg.Go(func() {
			g, err := c.Lock(ctx, w.name(i))
			if err != nil {
				w.failed.Add(1)
				return
			}
			w.granted.Add(1)
			_ = g.Unlock()
		})
	}
}

// manyGoroutines skips a test if 20,500 of them are not possible.
func manyGoroutines(t *testing.T) {
	t.Helper()
	testall.Only(t, "has 20,500 goroutines")
	if raceDetector {
		t.Skip("has 20,500 goroutines")
	}
}

// TestAClientIsServedHoweverManyOfItsAcquiresWait: waits are bounded, and requests that free
// the locks are not refused because of them.
func TestAClientIsServedHoweverManyOfItsAcquiresWait(t *testing.T) {
	manyGoroutines(t)
	synctest.Test(t, func(t *testing.T) {
		c := locktest.New(t, 1)
		a := c.Client("a", client.SessionTTL(10*time.Minute))
		crowd := crowd{locks: 5, each: 4_100}
		var held []*client.Grant
		for i := range crowd.locks {
			held = append(held, lock(t, a, crowd.name(i)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		crowd.wait(ctx, a)
		time.Sleep(20 * time.Second)
		must(t, lock(t, a, "free").Unlock())
		begin := time.Now()
		for _, g := range held {
			must(t, g.Unlock())
		}
		crowd.wg.Wait()
		t.Logf("%d granted, %d failed, within %v", crowd.granted.Load(), crowd.failed.Load(), time.Since(begin))
		if n := int64(crowd.locks * crowd.each); crowd.granted.Load() != n {
			t.Errorf("%d of %d were granted", crowd.granted.Load(), n)
		}
	})
}

// TestManyAcquiresThatWaitAreCancelled, and leave no waiter.
func TestManyAcquiresThatWaitAreCancelled(t *testing.T) {
	manyGoroutines(t)
	synctest.Test(t, func(t *testing.T) {
		c := locktest.New(t, 1)
		a, other := c.Client("a", client.SessionTTL(10*time.Minute)), c.Client("other")
		crowd := crowd{locks: 5, each: 4_100}
		for i := range crowd.locks {
			lock(t, other, crowd.name(i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		crowd.wait(ctx, a)
		time.Sleep(20 * time.Second)
		cancel()
		crowd.wg.Wait()
		for i := range crowd.locks {
			waiting(t, c, other, crowd.name(i), 0)
		}
		must(t, lock(t, a, "free").Unlock())
		must(t, a.Close())
	})
}

// TestAClientIsServedHoweverManyWaitThroughItsNode: a node that forwards has one stream
// for all of its clients.
func TestAClientIsServedHoweverManyWaitThroughItsNode(t *testing.T) {
	manyGoroutines(t)
	synctest.Test(t, func(t *testing.T) {
		c := locktest.New(t, 3, locktest.Timing(time.Second))
		direct := c.Client("direct", client.SessionTTL(10*time.Minute))
		crowd := crowd{locks: 5, each: 4_100}
		var held []*client.Grant
		for i := range crowd.locks {
			held = append(held, lock(t, direct, crowd.name(i)))
		}
		f := c.Node(c.Followers()[0])
		many, one := f.Client(client.SessionTTL(10*time.Minute)), f.Client(client.SessionTTL(10*time.Minute))
		defer func() { _ = many.Close() }()
		defer func() { _ = one.Close() }()
		mine := lock(t, one, "mine")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		crowd.wait(ctx, many)
		time.Sleep(20 * time.Second)
		free, err := one.TryLock(t.Context(), "free")
		must(t, err)
		must(t, free.Unlock())
		must(t, mine.Unlock())
		if isLocked(t, direct, "mine") {
			t.Error("a lock is held that was unlocked through a node through which many wait")
		}
		begin := time.Now()
		for _, g := range held {
			must(t, g.Unlock())
		}
		crowd.wg.Wait()
		t.Logf("%d granted, %d failed, within %v", crowd.granted.Load(), crowd.failed.Load(), time.Since(begin))
		if n := int64(crowd.locks * crowd.each); crowd.granted.Load() != n {
			t.Errorf("%d of %d were granted", crowd.granted.Load(), n)
		}
	})
}

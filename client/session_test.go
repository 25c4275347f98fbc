package client

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

func TestSessionIsOpenedByTheFirstLockOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		if _, err := c.IsLocked(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if k.count("OpenSession") != 0 {
			t.Error("a read opened a session")
		}
		done := make(chan *Grant)
		for i := range 20 {
			go func() { done <- mustLock(t, c, fmt.Sprint(i)) }()
		}
		for range 20 {
			<-done
		}
		if n := k.count("OpenSession"); n != 1 {
			t.Errorf("20 Locks opened %d sessions", n)
		}
	})
}

func TestKeepAliveComesAtAThirdOfTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		mustLock(t, k.client(t, SessionTTL(30*time.Second)), "a")
		time.Sleep(100*time.Second + time.Second)
		if n := k.count("KeepAlive"); n != 10 {
			t.Errorf("%d keep-alives in 101s with a TTL of 30s, want 10", n)
		}
	})
}

func TestRefusedKeepAliveIsRepeatedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		var refused atomic.Int32
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetKeepAlive() != nil && refused.Add(1) <= 8 {
				return fate{refuse: apiv1.NewError(apiv1.CodeUnavailable, "no leader")}
			}
			return fate{}
		})
		time.Sleep(6500 * time.Millisecond)
		if refused.Load() <= 8 || k.count("KeepAlive") == 0 {
			t.Errorf("%d keep-alives were sent, %d got through, want 8 refused and then some", refused.Load(), k.count("KeepAlive"))
		}
		if g.Err() != nil {
			t.Error(g.Err())
		}
	})
}

// TestWaiterKeepsItsPlaceThroughALongOutage: cluster time stands still while
// there is no leader, so that sessions and waiters survive. Holders cannot
// know that: their grants are lost at their deadline.
func TestWaiterKeepsItsPlaceThroughALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		holder, other := k.client(t), k.client(t)
		g := mustLock(t, holder, "a")
		firstHas, otherHas := make(chan *Grant, 1), make(chan *Grant, 1)
		waiter := k.client(t)
		go func() { firstHas <- mustLock(t, waiter, "a") }()
		time.Sleep(time.Second)
		go func() { otherHas <- mustLock(t, other, "a") }()
		time.Sleep(time.Second)

		begin := time.Now()
		k.setDown(true)
		<-g.Lost()
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("the grant of the holder was lost after %v", d)
		}
		time.Sleep(100 * time.Second)
		if len(firstHas)+len(otherHas) != 0 {
			t.Fatal("a cluster that is down has granted the lock")
		}
		k.setDown(false)
		begin = time.Now()
		got := <-firstHas
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the first waiter got it %v after the cluster came back", d)
		}
		if len(otherHas) != 0 || k.holder("a") != got.Token() || got.Err() != nil {
			t.Errorf("second waiter has it: %v; holder %d, want %d", len(otherHas) != 0, k.holder("a"), got.Token())
		}
		if n := k.count("OpenSession"); n != 3 {
			t.Errorf("%d sessions were opened, want the 3 from before", n)
		}
		mustUnlock(t, got)
		mustUnlock(t, <-otherHas)
	})
}

// TestSessionThatRanOutWhileItWasOpenedIsReplaced: the first answer is lost, and
// the next try arrives after the session has expired.
func TestSessionThatRanOutWhileItWasOpenedIsReplaced(t *testing.T) {
	for name, lock := range map[string]func(context.Context, *Client) (*Grant, error){
		"Lock":    func(ctx context.Context, c *Client) (*Grant, error) { return c.Lock(ctx, "a") },
		"TryLock": func(ctx context.Context, c *Client) (*Grant, error) { return c.TryLock(ctx, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(t)
				k.loseNotices()
				c := k.client(t)
				began := time.Now()
				var opened [][]byte
				k.fault(func(op *apiv1.Operation) fate {
					r := op.GetOpenSession()
					if r == nil {
						return fate{}
					}
					opened = append(opened, r.Session)
					if len(opened) == 1 {
						return fate{loseAnswer: true}
					}
					return fate{loseRequest: time.Since(began) < 11*time.Second}
				})
				g, err := lock(t.Context(), c)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				first, id := string(opened[0]), g.s.id
				if string(id[:]) == first || k.holder("a") != g.Token() || k.count("OpenSession") != 3 {
					t.Errorf("holder %d, want %d in another session; %d openings arrived, want 3", k.holder("a"), g.Token(), k.count("OpenSession"))
				}
				mustUnlock(t, g)
			})
		})
	}
}

func TestWaitingLockIsQueuedAgainAfterItsSessionWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		g := mustLock(t, k.client(t), "a")
		c := k.client(t)
		has := make(chan *Grant, 1)
		go func() { has <- mustLock(t, c, "a") }()
		time.Sleep(time.Second)
		c.mu.Lock()
		id := c.cur.id
		c.mu.Unlock()
		k.do(fsm.KillSession{Session: id})
		time.Sleep(time.Second)
		if k.waiters("a") != 1 {
			t.Fatalf("%d waiters, want 1", k.waiters("a"))
		}
		mustUnlock(t, g)
		got := <-has
		if got.s.id == id || k.holder("a") != got.Token() {
			t.Errorf("holder %d, want %d in another session", k.holder("a"), got.Token())
		}
	})
}

// TestWaitIsOneWaitOverSeveralSessions: Wait counts from the call, not from each session.
func TestWaitIsOneWaitOverSeveralSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		mustLock(t, k.client(t), "a")
		c := k.client(t)
		for range 4 {
			time.AfterFunc(3*time.Second, func() {
				c.mu.Lock()
				s := c.cur
				c.mu.Unlock()
				if s != nil {
					k.do(fsm.KillSession{Session: s.id})
				}
			})
			begin := time.Now()
			_, err := c.Lock(t.Context(), "a", Wait(5*time.Second))
			wantErr(t, "Lock", err, ErrTimeout)
			if d := time.Since(begin); d < 5*time.Second || d > 5200*time.Millisecond {
				t.Errorf("it took %v, want 5s", d)
			}
		}
	})
}

func TestFirstLockWaitsForTheEndOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		k.setDown(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Lock(ctx, "a")
		wantErr(t, "Lock", err, context.DeadlineExceeded)
		time.AfterFunc(time.Minute, func() { k.setDown(false) })
		begin := time.Now()
		g := mustLock(t, c, "a")
		if d := time.Since(begin); d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("Lock took %v, want 1m", d)
		}
		mustUnlock(t, g)
	})
}

func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "a"))
		time.Sleep(30 * time.Second)
		if n := k.stats().Sessions; n != 1 {
			t.Errorf("%d sessions after 30s, want 1", n)
		}
		time.Sleep(time.Minute)
		if n := k.stats().Sessions; n != 0 {
			t.Errorf("%d sessions after 90s, want 0", n)
		}
		c.mu.Lock()
		left := len(c.sessions)
		c.mu.Unlock()
		if left != 0 {
			t.Errorf("the client keeps %d sessions", left)
		}
		mustUnlock(t, mustLock(t, c, "a"))
	})
}

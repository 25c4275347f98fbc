package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func TestDetachedGrantOutlivesItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, Holder("alice"))
		g, err := c.Detached().Acquire(t.Context(), "a", 30*time.Second, Value([]byte("v")))
		if err != nil {
			t.Fatal(err)
		}
		if g.Name != "a" || g.ExpiresIn < 29*time.Second || g.ExpiresIn > 30*time.Second {
			t.Errorf("grant is %+v", g)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		other := k.client(t)
		_, err = other.Detached().Acquire(t.Context(), "a", 30*time.Second)
		wantErr(t, "second Acquire", err, ErrBusy)
		info, err := other.Get(t.Context(), "a")
		if err != nil || !info.Held() || info.Holders[0].Holder != "alice" || info.Holders[0].Session != "" || string(info.Holders[0].Value) != "v" {
			t.Errorf("Get: %+v, %v", info, err)
		}
		wantErr(t, "Release with a wrong token", other.Detached().Release(t.Context(), "a", g.Token+1), ErrNotHeld)
		wantErr(t, "Release of another lock", other.Detached().Release(t.Context(), "b", g.Token), ErrNotHeld)
		if k.holder("a") != g.Token {
			t.Error("a wrong release changed something")
		}
		left, err := other.Detached().Renew(t.Context(), "a", g.Token, time.Minute)
		if err != nil || left < 59*time.Second || left > time.Minute {
			t.Errorf("Renew: %v, %v", left, err)
		}
		time.Sleep(40 * time.Second)
		if k.holder("a") != g.Token {
			t.Error("the renewal had no effect")
		}
		if err := other.Detached().Release(t.Context(), "a", g.Token); err != nil || k.holder("a") != 0 {
			t.Errorf("Release: %v, holder %d", err, k.holder("a"))
		}
		_, err = other.Detached().Renew(t.Context(), "a", g.Token, time.Minute)
		wantErr(t, "Renew of a released grant", err, ErrNotHeld)
		if n := k.stats().Sessions; n != 0 {
			t.Errorf("%d sessions were opened", n)
		}
	})
}

func TestDetachedAcquireWithTheSameIDIsOneAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		id := RequestID([16]byte{1, 2, 3})
		one, err := k.client(t).Detached().Acquire(t.Context(), "a", 30*time.Second, id)
		if err != nil {
			t.Fatal(err)
		}
		two, err := k.client(t).Detached().Acquire(t.Context(), "a", 30*time.Second, id)
		if err != nil || two.Token != one.Token || k.stats().Grants != 1 {
			t.Errorf("again: token %d, %v; want %d", two.Token, err, one.Token)
		}
	})
}

func TestDetachedAcquireWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		d := k.client(t).Detached()
		g, err := d.Acquire(t.Context(), "a", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Acquire(t.Context(), "a", 5*time.Second, Wait(time.Second))
		wantErr(t, "Acquire", err, ErrTimeout)
		next, err := d.Acquire(t.Context(), "a", 5*time.Second, Wait(time.Minute))
		if err != nil || next.Token <= g.Token || next.Waited < 3*time.Second || next.ExpiresIn < 4850*time.Millisecond {
			t.Errorf("Acquire: %+v, %v", next, err)
		}
	})
}

func TestCancelledDetachedAcquireLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g, err := c.Detached().Acquire(t.Context(), "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = c.Detached().Acquire(ctx, "a", time.Minute, Wait(time.Minute))
		wantErr(t, "Acquire", err, context.Canceled)
		if err := c.Close(); err != nil { // waits until the cluster knows
			t.Fatal(err)
		}
		if k.waiters("a") != 0 || k.holder("a") != g.Token {
			t.Errorf("%d waiters, holder %d, want none and %d", k.waiters("a"), k.holder("a"), g.Token)
		}
	})
}

func TestLateDetachedGrantIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 3 * time.Second}))
		_, err := c.Detached().Acquire(t.Context(), "a", 2*time.Second)
		wantErr(t, "Acquire", err, ErrLost)

		// One that the cluster still counts as held is renewed.
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 1500 * time.Millisecond}))
		g, err := c.Detached().Acquire(t.Context(), "b", 2*time.Second)
		if err != nil || g.ExpiresIn < 1900*time.Millisecond {
			t.Errorf("Acquire: %+v, %v", g, err)
		}
	})
}

// TestLongWaitDoesNotEatTheTTL: the margin is one percent of what is measured,
// which must not be the wait.
func TestLongWaitDoesNotEatTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, SessionTTL(time.Hour))
		g := mustLock(t, k.client(t), "a")
		time.AfterFunc(50*time.Minute, func() { _ = g.Unlock() })
		d, err := c.Detached().Acquire(t.Context(), "a", 20*time.Second, Wait(time.Hour))
		if err != nil || d.ExpiresIn < 19*time.Second {
			t.Errorf("Acquire: %+v, %v; want nearly 20s", d, err)
		}
		time.AfterFunc(50*time.Minute, func() { _ = c.Detached().Release(t.Context(), "a", d.Token) })
		if _, err := c.Detached().Renew(t.Context(), "a", d.Token, time.Hour); err != nil {
			t.Fatal(err)
		}
		got := mustLock(t, c, "a", TTL(20*time.Second))
		if left := time.Until(got.Deadline()); left < 19*time.Second {
			t.Errorf("%v are left, want nearly 20s", left)
		}
	})
}

func TestListGoesThroughAllPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, Labels(map[string]string{"zone": "b"}))
		for _, name := range []string{"x/3", "x/1", "y/1", "x/2"} {
			mustLock(t, c, name)
		}
		var names []string
		o := ListOptions{Limit: 2}
		for pages := 1; ; pages++ {
			page, err := c.List(t.Context(), "x/", o)
			if err != nil || pages > 2 {
				t.Fatalf("page %d: %v", pages, err)
			}
			for _, l := range page.Locks {
				names = append(names, l.Name)
				if l.HolderCount != 1 || !l.Held() || l.Holders[0].Session == "" || l.Holders[0].Remaining <= 0 || l.Holders[0].Shared {
					t.Errorf("lock is %+v", l)
				}
			}
			if o.After = page.Next; o.After == "" {
				break
			}
		}
		if len(names) != 3 || names[0] != "x/1" || names[2] != "x/3" {
			t.Errorf("names are %v", names)
		}
		info, err := c.Get(t.Context(), "free")
		if err != nil || info.Held() || info.Name != "free" {
			t.Errorf("Get of a free lock: %+v, %v", info, err)
		}
	})
}

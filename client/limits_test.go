package client

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheLongestDurationsAreLong: a caller that means "for ever" passes the longest duration
// that there is, and no sum with it overflows.
func TestTheLongestDurationsAreLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, forever := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 - 200*time.Millisecond} {
			k := newCluster(t)
			c := k.client(t)
			held := mustLock(t, k.client(t), "x")
			time.AfterFunc(30*time.Second, func() { _ = held.Unlock() })
			g, err := c.Lock(t.Context(), "x", Wait(forever))
			if err != nil {
				t.Fatalf("Lock with Wait(%d) failed after %v: %v", forever, time.Since(k.began), err)
			}
			mustUnlock(t, g)
			if _, err := c.Get(t.Context(), "x", Stale(forever)); err != nil {
				t.Errorf("Get with Stale(%d): %v", forever, err)
			}

			// The cluster's limits are smaller for these, and it returns an error.
			_, err = c.TryLock(t.Context(), "x", TTL(forever))
			wantErr(t, "TryLock with TTL", err, ErrInvalid)
			_, err = c.TryLock(t.Context(), "x", DelayAfterLoss(forever))
			wantErr(t, "TryLock with DelayAfterLoss", err, ErrInvalid)
			_, err = k.client(t, SessionTTL(forever)).TryLock(t.Context(), "x")
			wantErr(t, "TryLock with SessionTTL", err, ErrInvalid)
			_, err = c.Detached().Acquire(t.Context(), "x", forever)
			wantErr(t, "Acquire", err, ErrInvalid)
			_, err = c.Detached().Acquire(t.Context(), "x", time.Minute, Wait(forever))
			wantErr(t, "Acquire with Wait", err, ErrInvalid)
			_, err = c.Detached().Renew(t.Context(), "x", 1, forever)
			wantErr(t, "Renew", err, ErrInvalid)
		}
	})
}

// TestTTLsWithoutAnEndLast: the limits of a cluster may allow any TTL.
func TestTTLsWithoutAnEndLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{now: time.Minute, tokens: []uint64{1, 2}, ttl: math.MaxInt64}
		c := o.client(t, SessionTTL(math.MaxInt64))
		g, timed := mustLock(t, c, "a"), mustLock(t, c, "b", TTL(math.MaxInt64))
		o.change(func() { o.silent = true })
		time.Sleep(24 * time.Hour)
		if g.Err() != nil || timed.Err() != nil || time.Until(g.Deadline()) < time.Hour || time.Until(timed.Deadline()) < time.Hour {
			t.Errorf("after a day: %v until %v, %v until %v", g.Err(), g.Deadline(), timed.Err(), timed.Deadline())
		}
	})
}

func TestSumsDoNotOverflow(t *testing.T) {
	for _, c := range []struct{ a, b, want time.Duration }{
		{1, 2, 3},
		{-1, -2, -3},
		{math.MaxInt64, 1, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{math.MinInt64, -1, math.MinInt64},
		{math.MinInt64, math.MinInt64, math.MinInt64},
		{math.MaxInt64, math.MinInt64, -1},
		{math.MaxInt64 - 1, 1, math.MaxInt64},
	} {
		if got := sum(c.a, c.b); got != c.want {
			t.Errorf("sum(%d, %d) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

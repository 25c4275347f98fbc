package stalls

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStallsAreRemembered(t *testing.T) {
	l := New(nil)
	for i := range 2 * memory {
		l.add(stall{time.Duration(i * 10), time.Duration(i*10 + i%5)})
	}
	if got := l.Longest(20_000, 20_200); got != 4 {
		t.Errorf("longest: got %d, want 4", got)
	}
	if got := l.Longest(20_005, 20_009); got != 0 {
		t.Errorf("longest between two: got %d, want none", got)
	}
}

// The clock goes on while the process does not.
func TestAStallIsSeenAndAQuietTimeIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var away atomic.Int64
		l := New(func() time.Duration { return time.Since(began) + time.Duration(away.Load()) })
		ctx, stop := context.WithCancel(t.Context())
		go l.Watch(ctx)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := l.Longest(0, time.Second); got != 0 {
			t.Errorf("in a quiet second: got %v, want none", got)
		}
		away.Store(int64(100 * time.Millisecond))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := l.Longest(time.Second, 2*time.Second); got != 100*time.Millisecond+look {
			t.Errorf("with a stall of 100 ms between two looks: got %v, want %v", got, 100*time.Millisecond+look)
		}
		stop()
		synctest.Wait()
	})
}

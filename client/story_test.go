package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The two stories of the documentation of the Python library, step for step.

func TestStoryOfAnExpiredLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t).client(t)
		lock := c.Mutex("story", Wait(4*time.Second), TTL(2*time.Second))
		var steps []string
		err := lock.Do(t.Context(), func(ctx context.Context, first *Grant) error {
			for {
				held, err := lock.IsLocked(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !held {
					break
				}
				steps = append(steps, "still active")
				time.Sleep(time.Second)
			}
			steps = append(steps, "expired")
			second, err := lock.Lock(afterwards(t, first))
			if err != nil {
				t.Fatalf("Lock while the expired hold is in scope: %v", err)
			}
			steps = append(steps, fmt.Sprint("again, larger token: ", second.Token() > first.Token()))
			wantErr(t, "Unlock of the expired hold", first.Unlock(), ErrLost)
			held, err := lock.IsLocked(t.Context())
			steps = append(steps, fmt.Sprintf("still locked: %v, %v", held, err))
			if second.Err() != nil {
				t.Errorf("the second hold: %v", second.Err())
			}
			mustUnlock(t, second)
			return nil
		})
		wantErr(t, "Do", err, ErrLost)
		want := "still active|still active|expired|again, larger token: true|still locked: true, <nil>"
		if got := strings.Join(steps, "|"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// afterwards is the context of an expired grant, without its end: the grant has ended, so
// that a Lock within it is no re-entry.
func afterwards(t *testing.T, g *Grant) context.Context {
	t.Helper()
	ctx := context.WithoutCancel(g.Context())
	if heldBy(ctx, g.s.c, g.name) != nil {
		t.Error("an expired hold counts as held")
	}
	return ctx
}

func TestStoryOfALockReleasedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t).client(t)
		lock := c.Mutex("story", Wait(4*time.Second), TTL(2*time.Second))
		err := lock.Do(t.Context(), func(_ context.Context, g *Grant) error {
			if held, err := lock.IsLocked(t.Context()); !held || err != nil {
				t.Errorf("is locked: %v, %v; want true", held, err)
			}
			mustUnlock(t, g)
			if held, err := lock.IsLocked(t.Context()); held || err != nil {
				t.Errorf("is locked after release: %v, %v; want false", held, err)
			}
			begin := time.Now()
			again, err := lock.TryLock(t.Context())
			if err != nil {
				t.Fatalf("again: %v", err)
			}
			if d := time.Since(begin); d > 10*time.Millisecond {
				t.Errorf("again after %v, want at once", d)
			}
			mustUnlock(t, again)
			return nil
		})
		if err != nil {
			t.Errorf("Do: %v", err)
		}
	})
}

func TestGuardSerializesCallsOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		var running [2]atomic.Int32
		work := func(ctx context.Context, id int) (string, error) {
			if running[id].Add(1) > 1 {
				t.Error("two calls of one key run together")
			}
			time.Sleep(time.Second)
			running[id].Add(-1)
			return fmt.Sprint("done ", id), ctx.Err()
		}
		key := func(id int) string { return fmt.Sprint("order-", id) }
		begin := time.Now()
		results := make(chan string, 6)
		for i := range 6 {
			guarded := Guard(k.client(t), key, work)
			go func() {
				r, err := guarded(t.Context(), i%2)
				if err != nil {
					t.Error(err)
				}
				results <- r
			}()
		}
		for range 6 {
			if r := <-results; !strings.HasPrefix(r, "done ") {
				t.Errorf("result %q", r)
			}
		}
		if d := time.Since(begin); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("three calls on each of two keys took %v, want 3s", d)
		}
	})
}

func TestOnceRunsOneAndRefusesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		runs := 0
		once := TryGuard(k.client(t), func(string) string { return "job" }, func(context.Context, string) (int, error) {
			runs++
			time.Sleep(time.Second)
			return runs, nil
		})
		errs := make(chan error, 5)
		for range 5 {
			go func() {
				r, err := once(t.Context(), "x")
				if err == nil && r != 1 || err != nil && r != 0 {
					t.Errorf("result %d with error %v", r, err)
				}
				errs <- err
			}()
		}
		busy := 0
		for range 5 {
			if err := <-errs; errors.Is(err, ErrBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		if busy != 4 || runs != 1 {
			t.Errorf("%d were refused and %d ran, want 4 and 1", busy, runs)
		}
		if r, err := once(t.Context(), "x"); r != 2 || err != nil {
			t.Errorf("afterwards: %d, %v", r, err)
		}
	})
}

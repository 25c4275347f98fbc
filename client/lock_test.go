package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// mustLock locks, or fails the test.
func mustLock(t *testing.T, c *Client, name string, opts ...LockOption) *Grant {
	t.Helper()
	g, err := c.Lock(t.Context(), name, opts...)
	if err != nil {
		t.Fatalf("Lock(%q): %v", name, err)
	}
	return g
}

func mustUnlock(t *testing.T, g *Grant) {
	t.Helper()
	if err := g.Unlock(); err != nil {
		t.Fatalf("Unlock of %q: %v", g.Name(), err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func TestLockIsHeldUntilUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		if g.Token() == 0 || g.Name() != "a" || g.Waited() != 0 || g.Err() != nil {
			t.Fatalf("grant %q: token %d, waited %v, err %v", g.Name(), g.Token(), g.Waited(), g.Err())
		}
		if k.holder("a") != g.Token() {
			t.Fatalf("holder in the table is %d, want %d", k.holder("a"), g.Token())
		}
		time.Sleep(time.Hour) // far beyond the TTL: keep-alives are sent
		if g.Err() != nil || k.holder("a") != g.Token() {
			t.Fatalf("after an hour: err %v, holder %d, want %d", g.Err(), k.holder("a"), g.Token())
		}
		if left := time.Until(g.Deadline()); left < 5*time.Second || left > 10*time.Second {
			t.Errorf("deadline is %v away, want between 5s and 10s", left)
		}
		mustUnlock(t, g)
		if k.holder("a") != 0 {
			t.Errorf("lock is held by %d after Unlock", k.holder("a"))
		}
		wantErr(t, "Err after Unlock", g.Err(), ErrNotHeld)
		if !g.Deadline().IsZero() {
			t.Errorf("Deadline after Unlock is %v", g.Deadline())
		}
	})
}

func TestUnlockTwiceIsUnlockOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		mustUnlock(t, g)
		next := mustLock(t, c, "a")
		mustUnlock(t, g)
		if k.holder("a") != next.Token() || next.Err() != nil {
			t.Errorf("the second Unlock touched the next grant: holder %d, want %d", k.holder("a"), next.Token())
		}
		if n := k.count("Release"); n != 1 {
			t.Errorf("%d releases were sent, want 1", n)
		}
	})
}

func TestBusyErrorNamesTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		alice := k.client(t, Holder("alice"), Labels(map[string]string{"zone": "b", "app": "x"}))
		bob := k.client(t, Holder("bob"))
		g := mustLock(t, alice, "a", Value([]byte("v")))
		_, err := bob.TryLock(t.Context(), "a")
		wantErr(t, "TryLock", err, ErrBusy)
		var busy *BusyError
		if !errors.As(err, &busy) || len(busy.Holders) != 1 {
			t.Fatalf("TryLock: %v is no BusyError with one holder", err)
		}
		if h := busy.Holders[0]; h.Holder != "alice" || h.Token != g.Token() || string(h.Value) != "v" {
			t.Errorf("holder is %+v", h)
		}
		if !strings.Contains(err.Error(), "alice") {
			t.Errorf("error %q does not name the holder", err)
		}
		if _, err := bob.Lock(t.Context(), "a", Wait(0)); !errors.Is(err, ErrBusy) {
			t.Errorf("Lock with Wait(0): %v, want ErrBusy", err)
		}
	})
}

func TestTimeoutNamesTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, k.client(t, Holder("alice")), "a")
		for how, wait := range map[string]func() error{
			"Lock": func() error { _, err := c.Lock(t.Context(), "a", Wait(time.Second)); return err },
			"Acquire": func() error {
				_, err := c.Detached().Acquire(t.Context(), "a", time.Minute, Wait(time.Second))
				return err
			},
		} {
			err := wait()
			wantErr(t, how, err, ErrTimeout)
			wantErr(t, how, err, context.DeadlineExceeded)
			var over *TimeoutError
			if !errors.As(err, &over) || len(over.Holders) != 1 || over.Holders[0].Token != g.Token() || !strings.Contains(err.Error(), "alice") {
				t.Errorf("%s: %v, want a TimeoutError that names alice", how, err)
			}
			if errors.Is(err, ErrBusy) || apiv1.CodeOf(err) != apiv1.CodeTimeout {
				t.Errorf("%s: %v has code %v and is busy: %v", how, err, apiv1.CodeOf(err), errors.Is(err, ErrBusy))
			}
		}
	})
}

func TestLockWaitsInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		holder := k.client(t)
		g := mustLock(t, holder, "a")
		order := make(chan int, 5)
		for i := range 5 {
			c := k.client(t)
			go func() {
				g, err := c.Lock(t.Context(), "a")
				if err != nil {
					t.Errorf("waiter %d: %v", i, err)
					return
				}
				order <- i
				if g.Waited() < time.Second {
					t.Errorf("waiter %d waited %v, want more than 1s", i, g.Waited())
				}
				_ = g.Unlock()
			}()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		mustUnlock(t, g)
		for want := range 5 {
			if got := <-order; got != want {
				t.Fatalf("place %d went to waiter %d", want, got)
			}
		}
	})
}

func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		mustLock(t, k.client(t), "a")
		c := k.client(t)

		for name, try := range map[string]func() error{
			"Wait": func() error {
				_, err := c.Lock(t.Context(), "a", Wait(4*time.Second))
				return err
			},
			"context": func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
				defer cancel()
				_, err := c.Lock(ctx, "a")
				return err
			},
		} {
			begin := time.Now()
			err := try()
			wantErr(t, name, err, ErrTimeout)
			wantErr(t, name, err, context.DeadlineExceeded)
			if apiv1.CodeOf(err) != apiv1.CodeTimeout {
				t.Errorf("%s: code %v, want timeout", name, apiv1.CodeOf(err))
			}
			if d := time.Since(begin); d < 4*time.Second || d > 4200*time.Millisecond {
				t.Errorf("%s: took %v, want about 4s", name, d)
			}
			time.Sleep(10 * time.Millisecond)
			if n := k.waiters("a"); n != 0 {
				t.Errorf("%s: %d waiters are left", name, n)
			}
		}
	})
}

// TestCancelledLockLeavesNoWaiter cancels a wait at every moment around the one
// at which the lock becomes free: whether it was granted or not, the waiter does not
// keep it.
func TestCancelledLockLeavesNoWaiter(t *testing.T) {
	for shift := -4 * time.Millisecond; shift <= 4*time.Millisecond; shift += 500 * time.Microsecond {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			holder, c := k.client(t), k.client(t)
			g := mustLock(t, holder, "a")
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, func() { _ = g.Unlock() })
			time.AfterFunc(time.Second+shift, cancel)
			got, err := c.Lock(ctx, "a")
			if err != nil {
				wantErr(t, "Lock", err, context.Canceled)
			}
			time.Sleep(time.Second)
			s := k.stats()
			switch {
			case s.Waiters != 0:
				t.Fatalf("shift %v: %d waiters are left", shift, s.Waiters)
			case err == nil && k.holder("a") != got.Token():
				t.Fatalf("shift %v: Lock succeeded, but the holder is %d, want %d", shift, k.holder("a"), got.Token())
			case err != nil && k.holder("a") != 0:
				t.Fatalf("shift %v: Lock failed, but %d holds the lock", shift, k.holder("a"))
			}
		})
	}
}

func TestCancelIsRepeatedUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		mustLock(t, k.client(t), "a")
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "other")) // so that the session is open
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, func() {
			k.setDown(true)
			cancel()
		})
		begin := time.Now()
		_, err := c.Lock(ctx, "a")
		wantErr(t, "Lock", err, context.Canceled)
		if d := time.Since(begin); d > 1100*time.Millisecond {
			t.Errorf("Lock returned %v after the cancel", d-time.Second)
		}
		time.Sleep(5 * time.Second)
		if k.waiters("a") != 1 {
			t.Fatalf("%d waiters while the cluster is down, want 1", k.waiters("a"))
		}
		k.setDown(false)
		time.Sleep(time.Second)
		if k.waiters("a") != 0 {
			t.Errorf("%d waiters after the cluster came back", k.waiters("a"))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := c.cur.window.Len(); n != 0 {
			t.Errorf("%d operations count as unanswered", n)
		}
	})
}

func TestReentryFailsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c, other := k.client(t), k.client(t)
		g := mustLock(t, c, "a")
		inner, err := c.Lock(g.Context(), "b")
		if err != nil {
			t.Fatalf("Lock of another name within: %v", err)
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(inner.Context(), time.Hour)
		defer cancel()
		for _, name := range []string{"a", "b"} {
			_, err = c.Lock(ctx, name)
			wantErr(t, "Lock within itself", err, ErrReentry)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("it took %v to see", d)
		}
		if _, err := c.TryLock(ctx, "a"); !errors.Is(err, ErrBusy) {
			t.Errorf("TryLock within itself: %v, want ErrBusy", err)
		}
		if _, err := other.Lock(ctx, "a", Wait(time.Second)); !errors.Is(err, ErrTimeout) {
			t.Errorf("Lock of another client: %v, want ErrTimeout", err)
		}
		mustUnlock(t, g)
		again, err := c.Lock(inner.Context(), "a")
		if err != nil {
			t.Fatalf("Lock after Unlock within the old context: %v", err)
		}
		mustUnlock(t, again)
	})
}

func TestContextOfGrantOutlivesTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		k := newCluster(t)
		c := k.client(t)
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "v"), time.Second)
		g, err := c.Lock(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(time.Minute)
		if g.Context().Err() != nil || g.Err() != nil {
			t.Fatalf("the end of the wait's context ended the grant: %v, %v", g.Context().Err(), g.Err())
		}
		if g.Context().Value(key{}) != "v" {
			t.Error("values of the wait's context are gone")
		}
		if g.Context() != g.Context() {
			t.Error("two calls gave two contexts")
		}
		lost := g.Lost()
		mustUnlock(t, g)
		wantErr(t, "cause after Unlock", context.Cause(g.Context()), ErrNotHeld)
		if ended(lost) {
			t.Error("Unlock closed Lost")
		}
	})
}

func TestArgumentsAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		cases := map[string]func() error{
			"empty name":       func() error { _, err := c.Lock(t.Context(), ""); return err },
			"not UTF-8":        func() error { _, err := c.Lock(t.Context(), "a\xff"); return err },
			"long name":        func() error { _, err := c.Lock(t.Context(), strings.Repeat("x", 5000)); return err },
			"name over limit":  func() error { _, err := c.Lock(t.Context(), strings.Repeat("x", 513)); return err },
			"negative wait":    func() error { _, err := c.Lock(t.Context(), "a", Wait(-1)); return err },
			"zero ttl":         func() error { _, err := c.Lock(t.Context(), "a", TTL(0)); return err },
			"short ttl":        func() error { _, err := c.Lock(t.Context(), "a", TTL(time.Millisecond)); return err },
			"negative delay":   func() error { _, err := c.Lock(t.Context(), "a", DelayAfterLoss(-1)); return err },
			"big value":        func() error { _, err := c.Lock(t.Context(), "a", Value(make([]byte, 70<<10))); return err },
			"value over limit": func() error { _, err := c.Lock(t.Context(), "a", Value(make([]byte, 5<<10))); return err },
			"negative stale":   func() error { _, err := c.IsLocked(t.Context(), "a", Stale(-1)); return err },
			"no name to read":  func() error { _, err := c.Get(t.Context(), ""); return err },
			"list limit":       func() error { _, err := c.List(t.Context(), "", ListOptions{Limit: 1001}); return err },
			"list stale":       func() error { _, err := c.List(t.Context(), "", ListOptions{Stale: -1}); return err },
			"list prefix":      func() error { _, err := c.List(t.Context(), "\xff", ListOptions{}); return err },
			"list after":       func() error { _, err := c.List(t.Context(), "", ListOptions{After: "\xff"}); return err },
			"reason":           func() error { _, err := c.ForceRelease(t.Context(), "a", 0, "\xff"); return err },
			"size of nothing":  func() error { return c.Resize(t.Context(), "a", 0) },
			"no semaphore":     func() error { return c.Resize(t.Context(), "", 1) },
			"renew ttl":        func() error { _, err := c.Detached().Renew(t.Context(), "a", 1, 0); return err },
			"detached ttl":     func() error { _, err := c.Detached().Acquire(t.Context(), "a", 0); return err },
		}
		for name, try := range cases {
			if err := try(); !errors.Is(err, ErrInvalid) || apiv1.CodeOf(err).ExitCode() != 64 {
				t.Errorf("%s: got %v (exit code %d), want ErrInvalid and 64", name, err, apiv1.CodeOf(err).ExitCode())
			}
		}
		if s := k.stats(); s.Grants != 0 || s.Waiters != 0 {
			t.Errorf("refused calls left %d grants and %d waiters", s.Grants, s.Waiters)
		}
	})
}

func TestInvalidSessionOptionsAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		for name, opt := range map[string]Option{
			"holder":    Holder("\xff"),
			"ttl":       SessionTTL(-1),
			"short ttl": SessionTTL(time.Millisecond),
			"label":     Labels(map[string]string{"": "x"}),
		} {
			c := k.client(t, opt)
			for range 2 { // not only the first time
				if _, err := c.Lock(t.Context(), "a"); !errors.Is(err, ErrInvalid) {
					t.Errorf("%s: Lock: %v, want ErrInvalid", name, err)
				}
			}
		}
	})
}

func TestOverloadIsRetriedByLockAndReturnedByTryLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		k.fault(every[*apiv1.Operation_Acquire](fate{refuse: apiv1.NewError(apiv1.CodeOverloaded, "queue is full")}))
		if _, err := c.TryLock(t.Context(), "a"); !errors.Is(err, ErrOverloaded) {
			t.Errorf("TryLock: %v, want ErrOverloaded", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := c.Lock(ctx, "a")
		cancel()
		wantErr(t, "Lock until the context ends", err, ErrOverloaded)
		wantErr(t, "Lock until the context ends", err, context.DeadlineExceeded)
		time.AfterFunc(3*time.Second, func() { k.fault(nil) })
		mustUnlock(t, mustLock(t, c, "a"))
	})
}

func TestUnavailableIsReturnedWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		k.fault(func(*apiv1.Operation) fate {
			return fate{refuse: apiv1.NewError(apiv1.CodeUnavailable, "no leader")}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.IsLocked(ctx, "a")
		wantErr(t, "IsLocked", err, ErrUnavailable)
		wantErr(t, "IsLocked", err, context.DeadlineExceeded)
		if !strings.Contains(err.Error(), "no leader") {
			t.Errorf("error %q does not say what went wrong", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = c.Lock(ctx, "a")
		wantErr(t, "Lock", err, ErrUnavailable)
	})
}

func TestKindMismatchIsErrKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		k.do(fsm.OpenSession{Session: fsm.SessionID{1}, TTL: int64(time.Hour)})
		k.do(fsm.Acquire{ID: fsm.RequestID{Session: fsm.SessionID{1}, Sequence: 1}, Wants: []fsm.Want{{Lock: "s", Mode: fsm.Permits, Permits: 1, Limit: 3}}})
		_, err := k.client(t).Lock(t.Context(), "s")
		wantErr(t, "Lock of a semaphore", err, ErrKind)
	})
}

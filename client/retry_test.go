package client

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

func TestRetriedAcquireTakesEffectOnce(t *testing.T) {
	for name, f := range map[string]fate{"lost request": {loseRequest: true}, "lost answer": {loseAnswer: true}} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			k.fault(first[*apiv1.Operation_Acquire](f))
			begin := time.Now()
			g := mustLock(t, c, "a")
			if d := time.Since(begin); d < time.Second {
				t.Errorf("%s: Lock returned after %v, the fault was not injected", name, d)
			}
			if s := k.stats(); s.Grants != 1 || s.LastToken != g.Token() || g.Token() != 1 {
				t.Errorf("%s: %d grants, last token %d, mine %d; want one grant with token 1", name, s.Grants, s.LastToken, g.Token())
			}
			mustUnlock(t, g)
			if k.holder("a") != 0 {
				t.Errorf("%s: still held", name)
			}
		})
	}
}

// TestRetriedWaitKeepsItsPlace loses the connection of a waiter, which keeps its place.
func TestRetriedWaitKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		g := mustLock(t, k.client(t), "a")
		k.fault(first[*apiv1.Operation_Acquire](fate{loseAnswer: true}))
		order := make(chan string, 2)
		for _, name := range []string{"first", "second"} {
			c := k.client(t)
			go func() {
				g := mustLock(t, c, "a")
				order <- name
				_ = g.Unlock()
			}()
			time.Sleep(100 * time.Millisecond)
		}
		mustUnlock(t, g) // and the answer of the first waiter is lost
		if got := <-order; got != "first" {
			t.Errorf("the lock went to the %s", got)
		}
		<-order
	})
}

func TestUnlockIsRetriedUntilAcknowledged(t *testing.T) {
	for name, f := range map[string]fate{"lost requests": {loseRequest: true}, "lost answers": {loseAnswer: true}} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			g := mustLock(t, c, "a")
			k.fault(every[*apiv1.Operation_Release](f))
			begin := time.Now()
			mustUnlock(t, g)
			if d := time.Since(begin); d < unlockWait || d > time.Second {
				t.Errorf("%s: Unlock took %v, want %v to 1s", name, d, unlockWait)
			}
			time.Sleep(5 * time.Second)
			if f.loseRequest && k.holder("a") != g.Token() {
				t.Fatalf("%s: the release arrived, the fault was not injected", name)
			}
			next := make(chan *Grant, 1)
			go func() { next <- mustLock(t, c, "a") }()
			time.Sleep(time.Second)
			k.fault(nil)
			after := <-next
			if k.holder("a") != after.Token() || after.Err() != nil {
				t.Errorf("%s: holder %d, want %d", name, k.holder("a"), after.Token())
			}
			time.Sleep(5 * time.Second) // a release that arrives twice must not end the next grant
			if k.holder("a") != after.Token() || g.Unlock() != nil {
				t.Errorf("%s: holder %d, want %d; Unlock again: %v", name, k.holder("a"), after.Token(), g.Unlock())
			}
		})
	}
}

// TestRefusedReleasesAndCancelsAreRepeated: a full window is no reason to leave
// a lock held or a waiter queued.
func TestRefusedReleasesAndCancelsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		full := fate{refuse: apiv1.NewError(apiv1.CodeLimit, "window is full")}
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetRelease() != nil || op.GetCancel() != nil {
				return full
			}
			return fate{}
		})
		_, err := c.Lock(t.Context(), "a", Wait(time.Second))
		wantErr(t, "Lock", err, ErrTimeout)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Lock(ctx, "a")
		wantErr(t, "Lock", err, ErrTimeout)
		mustUnlock(t, g)
		time.Sleep(5 * time.Second)
		if k.holder("a") == 0 {
			t.Fatal("the fault was not injected")
		}
		k.fault(nil)
		time.Sleep(time.Second)
		if k.holder("a") != 0 || k.waiters("a") != 0 {
			t.Errorf("holder %d, %d waiters, want none", k.holder("a"), k.waiters("a"))
		}
	})
}

// TestUnlockAfterItsTimeIsNoLoss: the release arrives late, and the lock was held at Unlock.
func TestUnlockAfterItsTimeIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a", TTL(2*time.Second))
		time.Sleep(1500 * time.Millisecond)
		k.fault(first[*apiv1.Operation_Release](fate{loseRequest: true}))
		mustUnlock(t, g)
		time.Sleep(time.Second)
		if err := g.Unlock(); err != nil {
			t.Errorf("Unlock, when the release had come too late: %v, want nil", err)
		}
	})
}

func TestSetValueIsSeenByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a", Value([]byte("one")))
		value := func() []byte {
			info, err := k.client(t).Get(t.Context(), "a")
			if err != nil || len(info.Holders) != 1 {
				t.Fatalf("Get: %+v, %v", info, err)
			}
			return info.Holders[0].Value
		}
		if got := value(); !bytes.Equal(got, []byte("one")) {
			t.Errorf("value is %q, want one", got)
		}
		if err := g.SetValue(t.Context(), []byte("two")); err != nil {
			t.Fatal(err)
		}
		if got := value(); !bytes.Equal(got, []byte("two")) {
			t.Errorf("value is %q, want two", got)
		}
		if err := g.SetValue(t.Context(), make([]byte, 5<<10)); !errors.Is(err, ErrInvalid) {
			t.Errorf("SetValue of too much: %v, want ErrInvalid", err)
		}
		mustUnlock(t, g)
		wantErr(t, "SetValue after Unlock", g.SetValue(t.Context(), nil), ErrNotHeld)
	})
}

func TestLaterValueIsNotOvertakenByAnEarlierOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		k.fault(first[*apiv1.Operation_SetValue](fate{loseRequest: true}))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		wantErr(t, "SetValue", g.SetValue(ctx, []byte("one")), context.DeadlineExceeded)
		if err := g.SetValue(t.Context(), []byte("two")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		info, err := c.Get(t.Context(), "a")
		if err != nil || string(info.Holders[0].Value) != "two" {
			t.Errorf("value is %q, %v; want two", info.Holders[0].Value, err)
		}
	})
}

// TestTryLockThatIsRefusedHoldsNothing: its first try was granted, and the answer was
// lost; the second one was refused.
func TestTryLockThatIsRefusedHoldsNothing(t *testing.T) {
	refused := fate{refuse: apiv1.NewError(apiv1.CodeOverloaded, "too much to do")}
	for how, first := range map[string]fate{
		"the connection broke":   {loseAnswer: true},
		"the outcome is unknown": {refuseAfter: apiv1.NewError(apiv1.CodeUnknownOutcome, "leadership was lost")},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			if err := mustLock(t, c, "b").Unlock(); err != nil { // there is a session
				t.Fatal(err)
			}
			tries := 0
			k.fault(func(op *apiv1.Operation) fate {
				if op.GetAcquire() == nil {
					return fate{}
				}
				if tries++; tries == 1 {
					return first
				}
				return refused
			})
			_, err := c.TryLock(t.Context(), "a")
			wantErr(t, how, err, ErrOverloaded)
			time.Sleep(time.Second)
			if token := k.holder("a"); token != 0 || tries != 2 {
				t.Errorf("%s: after %d tries it is held with token %d, which no caller has", how, tries, token)
			}
		})
	}
}

func TestSetValueOfALostGrantFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		k.loseNotices()
		c := k.client(t)
		g := mustLock(t, c, "a")
		k.do(fsm.ForceRelease{Lock: "a", Who: "root"})
		wantErr(t, "SetValue", g.SetValue(t.Context(), []byte("x")), ErrLost)
		wantErr(t, "Err", g.Err(), ErrLost)

		g = mustLock(t, c, "b", TTL(2*time.Second))
		k.fault(every[*apiv1.Operation_SetValue](fate{loseRequest: true}))
		begin := time.Now()
		wantErr(t, "SetValue", g.SetValue(t.Context(), []byte("x")), ErrLost)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("SetValue returned %v after its grant was lost", d-2*time.Second)
		}
	})
}

// TestOneSessionIsEnoughWhileOneAcquireWaits runs more operations than the cluster
// remembers of one session. Those that are answered behind the wait are acknowledged, so that
// no other session is needed.
func TestOneSessionIsEnoughWhileOneAcquireWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		k.latency = time.Microsecond
		blocker, c := k.client(t), k.client(t)
		held := mustLock(t, blocker, "slow")
		var got atomic.Pointer[Grant]
		done := make(chan struct{})
		go func() {
			defer close(done)
			got.Store(mustLock(t, c, "slow"))
		}()
		time.Sleep(time.Second)
		kept := mustLock(t, c, "kept")
		for range 15_000 / 2 {
			mustUnlock(t, mustLock(t, c, "fast"))
		}
		if n := k.stats().Sessions; n != 2 {
			t.Errorf("%d sessions, want the blocker's and one of the client", n)
		}
		value := []byte("v")
		for range 5_000 {
			if err := kept.SetValue(t.Context(), value); err != nil {
				t.Fatal(err)
			}
		}
		if n := k.remembered(kept.s.id); n > 10 {
			t.Errorf("the cluster remembers %d answers of the session, want those of the wait and the last few", n)
		}
		if kept.Err() != nil || got.Load() != nil {
			t.Fatalf("kept: %v; the waiter has it: %v", kept.Err(), got.Load() != nil)
		}
		mustUnlock(t, held)
		<-done
		time.Sleep(time.Minute)
		if kept.Err() != nil || got.Load().Err() != nil {
			t.Errorf("after the wait: %v, %v", kept.Err(), got.Load().Err())
		}
		mustUnlock(t, kept)
		mustUnlock(t, got.Load())
		time.Sleep(3 * time.Minute)
		if n := k.stats().Sessions; n != 0 {
			t.Errorf("%d sessions are left of idle clients", n)
		}
	})
}

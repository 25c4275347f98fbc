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
		if err := other.Close(); err != nil || k.stats().Sessions != 0 {
			t.Errorf("Close: %v; %d sessions are left", err, k.stats().Sessions)
		}
	})
}

// TestRepeatedAcquireIsAnsweredAsOfNow: under one request ID, by several clients, at
// several moments before and after the grant's end.
func TestRepeatedAcquireIsAnsweredAsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		id := RequestID([16]byte{1, 2, 3})
		again := func(name string, opts ...DetachedOption) (DetachedGrant, error) {
			return k.client(t).Detached().Acquire(t.Context(), name, 10*time.Second, append(opts, id)...)
		}
		one, err := again("a")
		if err != nil || one.ExpiresIn < 9800*time.Millisecond {
			t.Fatalf("Acquire: %+v, %v", one, err)
		}
		time.Sleep(8 * time.Second)
		for _, wait := range []time.Duration{0, time.Minute} {
			two, err := again("a", Wait(wait))
			if err != nil || two.Token != one.Token || k.stats().Grants != 1 {
				t.Errorf("after 8s: token %d, %v; want %d", two.Token, err, one.Token)
			}
			if two.ExpiresIn > 2*time.Second || two.ExpiresIn < 1900*time.Millisecond {
				t.Errorf("8s after a grant of 10s: expires in %v", two.ExpiresIn)
			}
		}
		time.Sleep(3 * time.Second)
		next := mustLock(t, k.client(t), "a") // another client has it
		_, err = again("a")
		wantErr(t, "after the grant has ended", err, ErrNotHeld)
		if !strings.Contains(err.Error(), "this request ID has ended") || !strings.Contains(err.Error(), "another ID") || errors.Is(err, ErrLost) {
			t.Errorf("error %q does not say that the grant of the ID has ended and what to do", err)
		}
		mustUnlock(t, next)
		_, err = again("a")
		wantErr(t, "and the lock is free", err, ErrNotHeld)

		for field, other := range map[string]func() error{
			"locks": func() error { _, err := again("b"); return err },
			"delay": func() error { _, err := again("a", DelayAfterLoss(time.Second)); return err },
			"value": func() error { _, err := again("a", Value([]byte("v"))); return err },
			"ttl": func() error {
				_, err := k.client(t).Detached().Acquire(t.Context(), "a", 9*time.Second, id)
				return err
			},
		} {
			err := other()
			wantErr(t, "another "+field, err, ErrInvalid)
			if !strings.Contains(err.Error(), field) {
				t.Errorf("error %q does not name the field %s", err, field)
			}
		}
	})
}

// TestReleasedGrantIsNotReturnedAgain: not to a repeated request either.
func TestReleasedGrantIsNotReturnedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		d, id := k.client(t).Detached(), RequestID([16]byte{1})
		g, err := d.Acquire(t.Context(), "a", time.Minute, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Release(t.Context(), "a", g.Token); err != nil {
			t.Fatal(err)
		}
		_, err = d.Acquire(t.Context(), "a", time.Minute, id)
		wantErr(t, "Acquire", err, ErrNotHeld)
		if k.holder("a") != 0 {
			t.Error("the lock is held again")
		}
	})
}

// TestRefusalIsNotRemembered: the loop that tries until the lock is free needs one ID.
func TestRefusalIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		d, id := k.client(t).Detached(), RequestID([16]byte{1})
		held := mustLock(t, k.client(t), "a")
		_, err := d.Acquire(t.Context(), "a", time.Minute, id)
		wantErr(t, "Acquire", err, ErrBusy)
		for range 2 {
			begin := time.Now()
			_, err = d.Acquire(t.Context(), "a", time.Minute, id, Wait(time.Second))
			wantErr(t, "Acquire with Wait", err, ErrTimeout)
			if d := time.Since(begin); d < time.Second {
				t.Errorf("a wait of 1s was over after %v", d)
			}
		}
		mustUnlock(t, held)
		g, err := d.Acquire(t.Context(), "a", time.Minute, id)
		if err != nil || k.holder("a") != g.Token {
			t.Errorf("Acquire of a free lock: %+v, %v", g, err)
		}
	})
}

// TestSlowTryAndItsCancelTakeNothingAway: the first try was given up before it arrived;
// the second one, under the same ID, holds the lock.
func TestSlowTryAndItsCancelTakeNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		slow, fast, id := k.client(t), k.client(t), RequestID([16]byte{1})
		mustUnlock(t, mustLock(t, slow, "open"))
		s := current(slow).id
		k.fault(func(op *apiv1.Operation) fate {
			if string(op.GetAcquire().GetId().GetSession()) == string(s[:]) {
				return fate{loseRequest: true} // it comes a second later
			}
			return fate{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		late := make(chan error, 1)
		go func() {
			_, err := slow.Detached().Acquire(t.Context(), "a", 30*time.Second, id)
			late <- err
		}()
		_, err := slow.Detached().Acquire(ctx, "a", 30*time.Second, id)
		wantErr(t, "first try", err, context.DeadlineExceeded)
		g, err := fast.Detached().Acquire(t.Context(), "a", 30*time.Second, id)
		if err != nil {
			t.Fatal(err)
		}
		k.fault(nil)
		if err := <-late; err != nil {
			t.Errorf("a try that came late: %v, want the grant", err)
		}
		if err := slow.Close(); err != nil {
			t.Fatal(err)
		}
		if k.holder("a") != g.Token {
			t.Errorf("holder %d, want %d: its caller got the lock for %v", k.holder("a"), g.Token, g.ExpiresIn)
		}
	})
}

// TestDetachedWaitKeepsItsSessionAlive: a wait is longer than the session's TTL.
func TestDetachedWaitKeepsItsSessionAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		held := mustLock(t, k.client(t), "a")
		time.AfterFunc(10*time.Minute, func() { _ = held.Unlock() })
		g, err := k.client(t).Detached().Acquire(t.Context(), "a", time.Minute, Wait(time.Hour))
		if err != nil || g.Waited < 599*time.Second || g.ExpiresIn < 59*time.Second || g.ExpiresIn > time.Minute {
			t.Errorf("Acquire: %+v, %v", g, err)
		}
	})
}

// TestDetachedWaitEndsWithItsProcess: no lock is granted to a process that has ended.
func TestDetachedWaitEndsWithItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		held := mustLock(t, k.client(t), "a")
		gone := k.client(t, SessionTTL(5*time.Second))
		go func() { _, _ = gone.Detached().Acquire(t.Context(), "a", time.Minute, Wait(time.Hour)) }()
		time.Sleep(time.Second)
		s := current(gone).id
		k.fault(func(op *apiv1.Operation) fate {
			// Its notices arrive, so it opens another session when this one has expired.
			return fate{loseRequest: string(op.GetKeepAlive().GetSession()) == string(s[:]) || op.GetOpenSession() != nil}
		})
		time.Sleep(6 * time.Second)
		if n := k.waiters("a"); n != 0 {
			t.Errorf("%d waiters, want none", n)
		}
		mustUnlock(t, held)
		if k.holder("a") != 0 {
			t.Error("a process that has ended holds the lock")
		}
	})
}

// TestDetachedWaitGoesOnInAnotherSession: with the wait that is left.
func TestDetachedWaitGoesOnInAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		held := mustLock(t, k.client(t), "a")
		c := k.client(t)
		kill := func() { k.do(fsm.KillSession{Session: current(c).id}) }
		for range 3 {
			time.AfterFunc(3*time.Second, kill)
			begin := time.Now()
			_, err := c.Detached().Acquire(t.Context(), "a", time.Minute, Wait(5*time.Second))
			wantErr(t, "Acquire", err, ErrTimeout)
			if d := time.Since(begin); d < 5*time.Second || d > 5200*time.Millisecond {
				t.Errorf("it took %v, want 5s", d)
			}
		}
		time.AfterFunc(time.Second, kill)
		time.AfterFunc(3*time.Second, func() { _ = held.Unlock() })
		g, err := c.Detached().Acquire(t.Context(), "a", time.Minute, Wait(5*time.Second))
		if err != nil || k.holder("a") != g.Token {
			t.Errorf("Acquire: %+v, %v; holder %d", g, err, k.holder("a"))
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

func TestLateDetachedGrantIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 3 * time.Second}))
		_, err := c.Detached().Acquire(t.Context(), "a", 2*time.Second)
		wantErr(t, "Acquire", err, ErrLost)

		// One that the cluster still counts as held: the caller gets what is left of the TTL.
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 1500 * time.Millisecond}))
		g, err := c.Detached().Acquire(t.Context(), "b", 2*time.Second)
		if err != nil || g.ExpiresIn < 450*time.Millisecond || g.ExpiresIn > 500*time.Millisecond {
			t.Errorf("Acquire: %+v, %v", g, err)
		}

		// One whose answer is lost, and which has ended when it is asked for again.
		k.fault(first[*apiv1.Operation_Acquire](fate{loseAnswer: true}))
		_, err = c.Detached().Acquire(t.Context(), "c", time.Second)
		wantErr(t, "Acquire", err, ErrLost)
	})
}

// TestLongWaitDoesNotShortenTheTTL: the margin is one percent of the TTL, and not of the
// wait.
func TestLongWaitDoesNotShortenTheTTL(t *testing.T) {
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

// TestGrantThatWasWaitedForIsConfirmed: its caller may have gone while it waited, so that it
// ends with the session until a request has shown its token.
func TestGrantThatWasWaitedForIsConfirmed(t *testing.T) {
	wait := func(t *testing.T, k *cluster, f func(*apiv1.Operation) fate) (DetachedGrant, error) {
		held := mustLock(t, k.client(t), "a")
		time.AfterFunc(5*time.Second, func() { _ = held.Unlock() })
		k.fault(f)
		return k.client(t).Detached().Acquire(t.Context(), "a", time.Minute, Wait(10*time.Second))
	}
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		g, err := wait(t, k, first[*apiv1.Operation_Renew](fate{loseAnswer: true}))
		if err != nil || k.holder("a") != g.Token || k.count("Renew") != 2 || g.ExpiresIn < 58*time.Second || g.Waited < 4900*time.Millisecond {
			t.Errorf("Acquire: %+v, %v after %d renewals", g, err, k.count("Renew"))
		}
		if _, err := k.client(t).Detached().Acquire(t.Context(), "b", time.Minute); err != nil || k.count("Renew") != 2 {
			t.Errorf("Acquire of a free lock: %v after %d renewals in all, want none of it", err, k.count("Renew"))
		}
	})
	synctest.Test(t, func(t *testing.T) { // an operator is faster
		k := newCluster(t)
		begin := time.Now()
		taken := false
		_, err := wait(t, k, func(op *apiv1.Operation) fate {
			if op.GetRenew() != nil && !taken {
				taken = true
				k.do(fsm.ForceRelease{Lock: "a"})
				k.do(fsm.OpenSession{Session: fsm.SessionID{1}, TTL: int64(time.Hour)})
				k.do(fsm.Acquire{ID: fsm.RequestID{Session: fsm.SessionID{1}, Sequence: 1}, Wants: []fsm.Want{{Lock: "a", Mode: fsm.Exclusive}}})
			}
			return fate{}
		})
		wantErr(t, "Acquire", err, ErrTimeout)
		if d := time.Since(begin); d < 10*time.Second || d > 10200*time.Millisecond || !taken {
			t.Errorf("a wait of 10s, with a grant that was released by force, took %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it cannot be confirmed
		k := newCluster(t)
		begin := time.Now()
		_, err := wait(t, k, every[*apiv1.Operation_Renew](fate{loseRequest: true}))
		wantErr(t, "Acquire", err, ErrTimeout)
		if d := time.Since(begin); d > 5*time.Second+confirmWait+100*time.Millisecond {
			t.Errorf("Acquire returned after %v", d)
		}
		time.Sleep(time.Second)
		if k.holder("a") != 0 {
			t.Error("a grant that its caller did not get is held")
		}
	})
}

// TestGrantOfAKilledWaiterEndsWithItsSession: not with its TTL.
func TestGrantOfAKilledWaiterEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		held := mustLock(t, k.client(t), "a")
		gone := k.client(t)
		go func() { _, _ = gone.Detached().Acquire(t.Context(), "a", time.Hour, Wait(time.Minute)) }()
		time.Sleep(time.Second)
		k.fault(func(op *apiv1.Operation) fate {
			return fate{loseRequest: op.GetKeepAlive() != nil || op.GetOpenSession() != nil || op.GetRenew() != nil || op.GetCancel() != nil}
		})
		begin := time.Now()
		mustUnlock(t, held)
		if k.holder("a") == 0 {
			t.Fatal("the waiter was not granted the lock")
		}
		for k.holder("a") != 0 {
			if time.Sleep(time.Second); time.Since(begin) > 15*time.Second {
				t.Fatalf("after %v the lock is held for a process that has ended, with a session of 10s", time.Since(begin))
			}
		}
	})
}

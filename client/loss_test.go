package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

func TestLateAnswerGivesNoGrant(t *testing.T) {
	late := fate{delayAnswer: 3 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))

		k.fault(first[*apiv1.Operation_Acquire](late))
		_, err := c.TryLock(t.Context(), "a", TTL(2*time.Second))
		wantErr(t, "TryLock", err, ErrLost)

		k.fault(first[*apiv1.Operation_Acquire](late))
		begin := time.Now()
		g := mustLock(t, c, "a", TTL(2*time.Second))
		if d := time.Since(begin); d < 3*time.Second {
			t.Errorf("Lock returned after %v, before the late answer", d)
		}
		if k.holder("a") != g.Token() || time.Until(g.Deadline()) < 1900*time.Millisecond {
			t.Errorf("holder is %d, want %d; deadline is %v away", k.holder("a"), g.Token(), time.Until(g.Deadline()))
		}

		// A late grant that the cluster still counts as held is given back.
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetAcquire() != nil {
				return fate{delayAnswer: 1995 * time.Millisecond}
			}
			return fate{}
		})
		_, err = c.TryLock(t.Context(), "b", TTL(2*time.Second))
		wantErr(t, "TryLock", err, ErrLost)
		time.Sleep(2 * time.Millisecond)
		if k.holder("b") != 0 {
			t.Error("a grant that came too late is still held")
		}
	})
}

// TestAnswersOfASessionInDoubtAreConfirmed lets the answer of an acquire
// arrive when the session may have expired.
func TestAnswersOfASessionInDoubtAreConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetAcquire() != nil {
				return fate{delayAnswer: 30 * time.Second}
			}
			if op.GetKeepAlive() != nil {
				return fate{delayAnswer: 12 * time.Second} // always too late
			}
			return fate{}
		})
		time.AfterFunc(40*time.Second, func() { k.fault(nil) })
		begin := time.Now()
		g := mustLock(t, c, "a")
		if d := time.Since(begin); d < 40*time.Second {
			t.Errorf("Lock returned after %v, before the session was confirmed", d)
		}
		if k.holder("a") != g.Token() || g.Err() != nil {
			t.Errorf("holder is %d, want %d; err %v", k.holder("a"), g.Token(), g.Err())
		}
	})
}

// TestGrantIsLostBeforeTheClusterGivesItsLockAway cuts a holder off at many
// moments between its keep-alives, with clocks that are slow and fast, and checks
// that its grant is lost when the next holder gets the lock.
func TestGrantIsLostBeforeTheClusterGivesItsLockAway(t *testing.T) {
	for _, rate := range []float64{0.995, 1, 1.005} {
		for cut := time.Duration(0); cut < 4*time.Second; cut += 370 * time.Millisecond {
			// One TTL is a multiple of the time between the ticks of a session, and one
			// is not.
			for _, ttl := range []time.Duration{10 * time.Second, 9600 * time.Millisecond} {
				for _, opts := range [][]LockOption{nil, {TTL(3 * time.Second)}} {
					t.Run(fmt.Sprintf("rate %v, cut %v, ttl %v, %d options", rate, cut, ttl, len(opts)), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { cutOff(t, rate, cut, ttl, opts) })
					})
				}
			}
		}
	}
}

func cutOff(t *testing.T, rate float64, cut, ttl time.Duration, opts []LockOption) {
	k := newCluster(t)
	began := time.Now()
	holder := k.client(t, SessionTTL(ttl), Clock(func() time.Duration {
		return time.Duration(float64(time.Since(began)) * rate)
	}))
	g := mustLock(t, holder, "a", opts...)
	id := g.s.id
	var lostAt time.Time
	context.AfterFunc(g.Context(), func() { lostAt = time.Now() })
	time.Sleep(cut)
	k.fault(func(op *apiv1.Operation) fate {
		if string(op.GetKeepAlive().GetSession()) == string(id[:]) || op.GetRelease() != nil {
			return fate{loseRequest: true}
		}
		return fate{}
	})
	next := mustLock(t, k.client(t), "a")
	synctest.Wait()
	if lostAt.IsZero() {
		t.Fatal("the next holder has the lock, and the grant of the first is not lost")
	}
	if early := time.Since(lostAt); early > time.Second {
		t.Errorf("lost %v before the lock was given away, want less than 1s", early)
	}
	if next.Token() <= g.Token() {
		t.Errorf("token %d after %d", next.Token(), g.Token())
	}
	var lost *LostError
	if err := context.Cause(g.Context()); !errors.As(err, &lost) || lost.Token != g.Token() || lost.Lock != "a" {
		t.Fatalf("cause is %v", err)
	}
	want := LostDeadline
	if opts != nil {
		want = LostExpired
	}
	if lost.Reason != want {
		t.Errorf("reason is %q, want %q", lost.Reason, want)
	}
	wantErr(t, "Unlock", g.Unlock(), ErrLost)
	wantErr(t, "Unlock", g.Unlock(), ErrNotHeld)
	if !ended(g.Lost()) || k.holder("a") != next.Token() {
		t.Errorf("Lost is closed: %v; holder %d, want %d", ended(g.Lost()), k.holder("a"), next.Token())
	}
}

func TestGrantIsLostAfterASuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		began := time.Now()
		var slept atomic.Int64 // time that the boottime clock counts and timers do not
		c := k.client(t, Clock(func() time.Duration { return time.Since(began) + time.Duration(slept.Load()) }))
		g, other := mustLock(t, c, "a"), mustLock(t, c, "b")
		ctx := other.Context()
		time.Sleep(100 * time.Millisecond)
		slept.Store(int64(time.Minute))
		wantErr(t, "Err after the wake-up", g.Err(), ErrLost)
		if !g.Deadline().IsZero() {
			t.Errorf("deadline is %v", g.Deadline())
		}
		if time.Sleep(tickEvery); ctx.Err() == nil {
			t.Errorf("the context has not ended %v after the wake-up", tickEvery)
		}
		wantErr(t, "Unlock", other.Unlock(), ErrLost)

		// The session has survived in the cluster: it goes on.
		mustUnlock(t, mustLock(t, c, "a"))
	})
}

func TestUnlockReadsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		began := time.Now()
		var slept atomic.Int64
		c := k.client(t, Clock(func() time.Duration { return time.Since(began) + time.Duration(slept.Load()) }))
		g := mustLock(t, c, "a")
		time.Sleep(100 * time.Millisecond)
		slept.Store(int64(time.Minute))
		wantErr(t, "Unlock", g.Unlock(), ErrLost)
		time.Sleep(100 * time.Millisecond)
		if k.holder("a") != 0 {
			t.Error("the lost grant was not given back")
		}
	})
}

func TestDoCancelsItsContextWhenTheLockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mine := errors.New("mine")
		for _, own := range []error{nil, mine} {
			err := c.Do(t.Context(), "a", func(ctx context.Context, g *Grant) error {
				<-ctx.Done()
				wantErr(t, "cause", context.Cause(ctx), ErrLost)
				wantErr(t, "Err", g.Err(), ErrLost)
				return own
			}, TTL(2*time.Second))
			wantErr(t, "Do", err, ErrLost)
			if own != nil {
				wantErr(t, "Do", err, own)
			}
		}
	})
}

func TestDoEndsWithTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := c.Do(ctx, "a", func(ctx context.Context, _ *Grant) error {
			<-ctx.Done()
			return ctx.Err()
		})
		wantErr(t, "Do", err, context.Canceled)
		if errors.Is(err, ErrLost) || k.holder("a") != 0 {
			t.Errorf("Do: %v, holder %d", err, k.holder("a"))
		}
	})
}

func TestDoUnlocksWhenItsFunctionPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = c.Do(t.Context(), "a", func(context.Context, *Grant) error { panic("no") })
		}()
		if k.holder("a") != 0 {
			t.Error("the lock is still held")
		}
	})
}

func TestForcedReleaseIsReportedWithWhoAndWhy(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			if !noticed {
				k.loseNotices() // so that a keep-alive delivers the revocation
			}
			c, admin := k.client(t), k.client(t, Holder("root"))
			g, kept := mustLock(t, c, "a"), mustLock(t, c, "b")
			lost := g.Lost()
			if _, err := admin.ForceRelease(t.Context(), "a", g.Token()+100, "no"); !errors.Is(err, ErrNotHeld) {
				t.Errorf("ForceRelease with a wrong token: %v, want ErrNotHeld", err)
			}
			begin := time.Now()
			if _, err := admin.ForceRelease(t.Context(), "a", g.Token(), "deploy"); err != nil {
				t.Fatal(err)
			}
			<-lost
			if d := time.Since(begin); noticed && d > 10*time.Millisecond || d > 4*time.Second {
				t.Errorf("lost after %v", d)
			}
			var e *LostError
			if !errors.As(g.Err(), &e) || e.Reason != LostForced || e.Who != "root" || e.Why != "deploy" {
				t.Errorf("Err is %v", g.Err())
			}
			wantErr(t, "Unlock", g.Unlock(), ErrLost)
			if kept.Err() != nil {
				t.Errorf("another grant: %v", kept.Err())
			}
			// A second revocation is delivered as well: the first was acknowledged.
			if _, err := admin.ForceRelease(t.Context(), "b", 0, "again"); err != nil {
				t.Fatal(err)
			}
			<-kept.Lost()
			if !errors.As(kept.Err(), &e) || e.Why != "again" {
				t.Errorf("Err is %v", kept.Err())
			}
		})
	}
}

// TestMissedNoticeIsDeliveredByAKeepAlive loses one notice and delivers the next: the client
// must not acknowledge the revocation that it has not seen.
func TestMissedNoticeIsDeliveredByAKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g, next := mustLock(t, c, "a"), mustLock(t, c, "b")
		k.loseNotices()
		k.do(fsm.ForceRelease{Lock: "a", Who: "root"})
		k.mu.Lock()
		k.noNotice = false
		k.mu.Unlock()
		k.do(fsm.ForceRelease{Lock: "b", Who: "root"})
		<-next.Lost()
		if g.Err() != nil {
			t.Fatalf("the notice was not lost: %v", g.Err())
		}
		select {
		case <-g.Lost():
		case <-time.After(10 * time.Second):
			t.Fatal("no keep-alive has delivered the revocation whose notice was lost")
		}
		wantErr(t, "Err", g.Err(), ErrLost)
		var seen atomic.Uint64
		k.fault(func(op *apiv1.Operation) fate {
			seen.Store(op.GetKeepAlive().GetRevocationsSeen())
			return fate{}
		})
		time.Sleep(4 * time.Second)
		if seen.Load() != 2 {
			t.Errorf("revocations up to %d are acknowledged, want 2", seen.Load())
		}
	})
}

// TestForcedReleaseBeforeTheAnswerIsReported lets the notice arrive before the
// answer of the acquire.
func TestForcedReleaseBeforeTheAnswerIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		var traced atomic.Int32
		c, admin := k.client(t, Trace(GrantTrace{Ended: func(g *Grant, err error) {
			if g.Name() == "a" && errors.Is(err, ErrLost) {
				traced.Add(1)
			}
		}})), k.client(t, Holder("root"))
		mustUnlock(t, mustLock(t, c, "open"))
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: time.Second}))
		time.AfterFunc(500*time.Millisecond, func() { _, _ = admin.ForceRelease(t.Context(), "a", 0, "why not") })
		g := mustLock(t, c, "a")
		var e *LostError
		if !errors.As(g.Err(), &e) || e.Reason != LostForced || e.Who != "root" {
			t.Errorf("Err is %v, want a forced loss", g.Err())
		}
		if g.Context().Err() == nil || !ended(g.Lost()) {
			t.Error("the grant's context has not ended")
		}
		wantErr(t, "Unlock", g.Unlock(), ErrLost)
		if n := traced.Load(); n != 1 {
			t.Errorf("Ended was called %d times, want once", n)
		}
	})
}

func TestUnlockReportsAForcedReleaseWithoutANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		k.loseNotices()
		c := k.client(t)
		g := mustLock(t, c, "a")
		if _, err := k.client(t).ForceRelease(t.Context(), "a", 0, ""); err != nil {
			t.Fatal(err)
		}
		next := mustLock(t, k.client(t), "a")
		err := g.Unlock()
		wantErr(t, "Unlock", err, ErrLost)
		wantErr(t, "second Unlock", g.Unlock(), ErrLost)
		if k.holder("a") != next.Token() {
			t.Errorf("Unlock changed the holder to %d, want %d", k.holder("a"), next.Token())
		}
	})
}

func TestKilledSessionLosesItsGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g := mustLock(t, c, "a")
		k.do(fsm.KillSession{Session: g.s.id, Reason: "why not", Who: "root"})
		<-g.Lost()
		wantErr(t, "Err", g.Err(), ErrLost)
		again := mustLock(t, c, "a")
		if again.s == g.s {
			t.Error("the next Lock used the session that had ended")
		}
	})
}

func TestOwnTTLIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		begin := time.Now()
		short, long := mustLock(t, c, "a", TTL(2*time.Second)), mustLock(t, c, "b", TTL(time.Minute))
		<-short.Lost()
		if d := time.Since(begin); d < 1900*time.Millisecond || d > 2*time.Second {
			t.Errorf("lost after %v, want a little less than 2s", d)
		}
		if long.Err() != nil {
			t.Errorf("the other grant: %v", long.Err())
		}
		time.Sleep(50 * time.Millisecond)
		if k.holder("a") != 0 {
			t.Error("the cluster still counts it as held")
		}
		<-long.Lost()
		if d := time.Since(begin); d < 59*time.Second || d > time.Minute {
			t.Errorf("lost after %v, want a little less than 1m", d)
		}
	})
}

// TestTTLCountsFromTheGrant: a grant that was waited for has all of its TTL.
func TestTTLCountsFromTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		first := mustLock(t, k.client(t), "a")
		time.AfterFunc(30*time.Second, func() { _ = first.Unlock() })
		g := mustLock(t, k.client(t), "a", TTL(5*time.Second))
		if left := time.Until(g.Deadline()); left < 4500*time.Millisecond || left > 5*time.Second {
			t.Errorf("%v are left, want a little less than 5s", left)
		}
		if g.Waited() < 29*time.Second || g.Waited() > 31*time.Second {
			t.Errorf("waited %v, want about 30s", g.Waited())
		}
	})
}

func TestDelayAfterLossKeepsTheLockFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		begin := time.Now()
		mustLock(t, c, "a", TTL(2*time.Second), DelayAfterLoss(5*time.Second))
		mustUnlock(t, mustLock(t, c, "a"))
		// The client counts a little less than the TTL, and releases the grant as lost then.
		if d := time.Since(begin); d < 6950*time.Millisecond || d > 7*time.Second {
			t.Errorf("the next one got it after %v, want a little less than 7s", d)
		}
	})
}

// TestDelayBeginsWithTheLossThatTheClientNotices: the time of the grant ends for the client
// while the cluster has no leader and its time stands still.
func TestDelayBeginsWithTheLossThatTheClientNotices(t *testing.T) {
	const delay = 30 * time.Second
	for name, opts := range map[string][]LockOption{
		"session": {DelayAfterLoss(delay)},
		"own TTL": {DelayAfterLoss(delay), TTL(5 * time.Second)},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			g := mustLock(t, c, "a", opts...)
			k.setDown(true)
			<-g.Lost()
			lost := time.Now()
			time.Sleep(time.Second)
			k.setDown(false)
			mustLock(t, k.client(t), "a")
			if d := time.Since(lost); d < delay || d > delay+3*time.Second {
				t.Errorf("%s: the next one got it %v after the loss, want %v", name, d, delay)
			}
		})
	}
}

// TestLateGrantCausesNoDelay: it was never valid, so that nothing was done under it.
func TestLateGrantCausesNoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 1995 * time.Millisecond}))
		_, err := c.TryLock(t.Context(), "a", TTL(2*time.Second), DelayAfterLoss(time.Minute))
		wantErr(t, "TryLock", err, ErrLost)
		time.Sleep(10 * time.Millisecond)
		if _, err := c.TryLock(t.Context(), "a"); err != nil {
			t.Errorf("the next TryLock: %v", err)
		}
	})
}

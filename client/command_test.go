package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// TestStaleRequestsAreSentAnew: the cluster has forgotten their answers, or their sequences
// were acknowledged before they came.
func TestStaleRequestsAreSentAnew(t *testing.T) {
	stale := apiv1.NewError(apiv1.CodeStaleRequest, "stale")
	for how, f := range map[string]fate{"never ran": {refuse: stale}, "ran": {refuseAfter: stale}} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			k.fault(first[*apiv1.Operation_Acquire](f))
			g := mustLock(t, c, "a")
			k.fault(first[*apiv1.Operation_Release](f))
			mustUnlock(t, g)
			time.Sleep(time.Second)
			if n := k.stats().Grants; n != 0 {
				t.Errorf("%s: %d grants are left after Unlock", how, n)
			}
			k.fault(first[*apiv1.Operation_Release](f))
			d, err := c.Detached().Acquire(t.Context(), "a", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Detached().Release(t.Context(), "a", d.Token); err != nil && (how != "ran" || !errors.Is(err, ErrNotHeld)) {
				t.Errorf("%s: Release: %v", how, err)
			}
			blocker := mustLock(t, k.client(t), "a")
			k.fault(first[*apiv1.Operation_Cancel](f))
			_, err = c.Lock(t.Context(), "a", Wait(10*time.Millisecond))
			wantErr(t, "Lock", err, ErrTimeout)
			mustUnlock(t, blocker)
			time.Sleep(time.Second)
			if s := k.stats(); s.Grants != 0 || s.Waiters != 0 {
				t.Errorf("%s: %d grants and %d waiters are left", how, s.Grants, s.Waiters)
			}
		})
	}
}

// TestForceReleaseHappensOnce: if the session ends before the answer, the outcome is unknown,
// and the grant of the next holder must not end.
func TestForceReleaseHappensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		g := mustLock(t, k.client(t), "a")
		k.fault(first[*apiv1.Operation_ForceRelease](fate{loseAnswer: true}))
		var next atomic.Pointer[Grant]
		time.AfterFunc(100*time.Millisecond, func() {
			next.Store(mustLock(t, k.client(t), "a"))
			k.do(fsm.KillSession{Session: current(c).id})
		})
		_, err := c.ForceRelease(t.Context(), "a", 0, "why")
		wantErr(t, "ForceRelease", err, ErrSession)
		time.Sleep(5 * time.Second)
		if g.Err() == nil || next.Load().Err() != nil || k.holder("a") != next.Load().Token() {
			t.Errorf("the holder: %v, the next one: %v", g.Err(), next.Load().Err())
		}

		// With a token it can be repeated.
		k.fault(first[*apiv1.Operation_ForceRelease](fate{loseRequest: true}))
		time.AfterFunc(100*time.Millisecond, func() { k.do(fsm.KillSession{Session: current(c).id}) })
		if _, err := c.ForceRelease(t.Context(), "a", next.Load().Token(), "why"); err != nil || k.holder("a") != 0 {
			t.Errorf("ForceRelease of a token: %v, holder %d", err, k.holder("a"))
		}
	})
}

// semaphore creates a semaphore: another client holds a permit of it.
func semaphore(t *testing.T, k *cluster, name string, size uint32) {
	t.Helper()
	session := fsm.SessionID{15: 1}
	k.do(fsm.OpenSession{Session: session, TTL: int64(time.Hour)})
	r := k.do(fsm.Acquire{
		ID: fsm.RequestID{Session: session, Sequence: 1}, Wants: []fsm.Want{{Lock: name, Mode: fsm.Permits, Permits: 1, Limit: size}},
	})
	if r.Code != fsm.OK {
		t.Fatalf("a permit of %s: %+v", name, r)
	}
}

func TestResizeChangesWhatIsASemaphoreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		semaphore(t, k, "pool", 3)
		for _, size := range []int{5, 5, 1, math.MaxInt32} {
			if err := c.Resize(t.Context(), "pool", size); err != nil {
				t.Fatal(err)
			}
			if info, err := c.Get(t.Context(), "pool"); err != nil || info.Limit != size || info.HolderCount != 1 {
				t.Errorf("resized to %d: %+v, %v", size, info, err)
			}
		}
		mustLock(t, c, "mutex")
		wantErr(t, "Resize of a mutex", c.Resize(t.Context(), "mutex", 2), ErrKind)
		wantErr(t, "Resize of nothing", c.Resize(t.Context(), "nothing", 2), ErrNotHeld)
		for _, size := range []int{0, -1} {
			err := c.Resize(t.Context(), "pool", size)
			wantErr(t, "Resize to a size that none has", err, ErrInvalid)
			if want := fmt.Sprintf("size: is %d, must be 1 to 4294967295", size); !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	})
}

// TestResizeHappensOnce: if the answer is lost, the request is sent again under the same request
// ID; if the session ends first, another operator's size must stay.
func TestResizeHappensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		semaphore(t, k, "pool", 3)
		other := func() { k.do(fsm.Resize{Lock: "pool", Limit: 7}) }
		size := func() int { info, _ := c.Get(t.Context(), "pool"); return info.Limit }

		var tries atomic.Int32
		k.fault(func(op *apiv1.Operation) fate {
			switch {
			case op.GetResize() == nil:
				return fate{}
			case tries.Add(1) == 1:
				return fate{refuseAfter: apiv1.NewError(apiv1.CodeUnknownOutcome, "lost")}
			}
			other()
			return fate{}
		})
		if err := c.Resize(t.Context(), "pool", 5); err != nil || size() != 7 {
			t.Errorf("sent again: %v, and the size is %d, want the later one of the other operator, 7", err, size())
		}

		k.fault(first[*apiv1.Operation_Resize](fate{loseAnswer: true}))
		time.AfterFunc(100*time.Millisecond, func() {
			other()
			k.do(fsm.KillSession{Session: current(c).id})
		})
		wantErr(t, "Resize", c.Resize(t.Context(), "pool", 4), ErrSession)
		time.Sleep(5 * time.Second)
		if size() != 7 {
			t.Errorf("after the session has ended the size is %d, want that of the other operator, 7", size())
		}
	})
}

// TestAbandonedCommandNeverRunsLater: it had not arrived when its context ended.
func TestAbandonedCommandNeverRunsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		g, err := c.Detached().Acquire(t.Context(), "a", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var late *apiv1.Operation
		k.fault(func(op *apiv1.Operation) fate {
			if op.GetRelease() != nil {
				late = op
				return fate{refuse: apiv1.NewError(apiv1.CodeUnavailable, "lost")}
			}
			return fate{}
		})
		for _, wait := range []time.Duration{time.Millisecond, time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			err = c.Detached().Release(ctx, "a", g.Token)
			cancel()
			if err == nil {
				t.Fatal("the release arrived")
			}
		}
		k.fault(nil)
		mustUnlock(t, mustLock(t, c, "b")) // acknowledges its sequence
		if r := k.do(command(late)); r.Code != fsm.StaleRequest || k.holder("a") != g.Token {
			t.Errorf("a late copy of the release: %+v; holder %d, want %d", r, k.holder("a"), g.Token)
		}
		if err := c.Detached().Release(t.Context(), "a", g.Token); err != nil {
			t.Errorf("another Release: %v", err)
		}
	})
}

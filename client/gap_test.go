package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// cutOffFrom loses the notices and keep-alives of a session for a while.
func cutOffFrom(k *cluster, id [16]byte) (heal func()) {
	k.loseNotices()
	k.fault(func(op *apiv1.Operation) fate {
		return fate{loseRequest: string(op.GetKeepAlive().GetSession()) == string(id[:])}
	})
	return func() {
		k.fault(nil)
		k.mu.Lock()
		k.noNotice = false
		k.mu.Unlock()
	}
}

// TestGrantsAreLostWhenRevocationsAreMissing: the cluster remembers the last 64 that a session
// has not seen, and any grant of the client may be one of the others.
func TestGrantsAreLostWhenRevocationsAreMissing(t *testing.T) {
	for _, n := range []int{64, 65, 100} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t, SessionTTL(time.Minute))
			var taken, kept []*Grant
			for i := range n {
				taken = append(taken, mustLock(t, c, fmt.Sprint("taken", i)))
			}
			for i := range 5 {
				kept = append(kept, mustLock(t, c, fmt.Sprint("kept", i), DelayAfterLoss(time.Minute)))
			}
			heal := cutOffFrom(k, taken[0].s.id)
			for _, g := range taken {
				k.do(fsm.ForceRelease{Lock: g.Name(), Who: "root", Reason: "stuck"})
			}
			time.Sleep(30 * time.Second)
			heal()
			time.Sleep(25 * time.Second)
			for _, g := range taken {
				var lost *LostError
				if !errors.As(g.Err(), &lost) || lost.Reason != LostForced {
					t.Errorf("%d revocations: Err of %q, which was released by force, is %v", n, g.Name(), g.Err())
				}
			}
			gap := n > fsm.MaxRevocations
			for _, g := range kept {
				if (g.Err() != nil) != gap {
					t.Errorf("%d revocations: Err of %q is %v", n, g.Name(), g.Err())
				}
				if gap && !strings.Contains(g.Err().Error(), "no longer remembers") {
					t.Errorf("error %q does not say why", g.Err())
				}
				if held := k.holder(g.Name()) != 0; held == gap {
					t.Errorf("%d revocations: %q is held in the cluster: %v", n, g.Name(), held)
				}
				// Its holder did not unlock it.
				if _, err := k.client(t).TryLock(t.Context(), g.Name()); gap && !errors.Is(err, ErrBusy) {
					t.Errorf("%q is not kept free: %v", g.Name(), err)
				}
			}
			after := mustLock(t, c, "after")
			if same := after.s == taken[0].s; same == gap {
				t.Errorf("%d revocations: the next lock is in the same session: %v", n, same)
			}
			time.Sleep(10 * time.Minute)
			if after.Err() != nil {
				t.Errorf("a lock that was taken after the gap: %v", after.Err())
			}
		})
	}
}

// TestGrantFromBeforeAGapIsNotReturned: its revocation may be one of those that are missing.
// One that was given after the gap is returned.
func TestGrantFromBeforeAGapIsNotReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t, SessionTTL(time.Minute))
		var taken []*Grant
		for i := range 70 {
			taken = append(taken, mustLock(t, c, fmt.Sprint("taken", i)))
		}
		blocker := mustLock(t, k.client(t, SessionTTL(time.Hour)), "later")
		later := make(chan *Grant, 1)
		go func() { later <- mustLock(t, c, "later") }()
		time.Sleep(time.Second)

		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 35 * time.Second}))
		early := make(chan *Grant, 1)
		go func() { early <- mustLock(t, c, "early") }()
		time.Sleep(time.Second)
		heal := cutOffFrom(k, taken[0].s.id)
		k.do(fsm.ForceRelease{Lock: "early", Who: "root"})
		for _, g := range taken {
			k.do(fsm.ForceRelease{Lock: g.Name(), Who: "root"})
		}
		next := mustLock(t, k.client(t, SessionTTL(time.Hour)), "early")
		time.Sleep(20 * time.Second)
		heal()
		time.Sleep(25 * time.Second) // the client has found the gap, and the answer comes after that
		if len(early) != 0 {
			t.Fatalf("token %d is valid, which was revoked; %d holds the lock", (<-early).Token(), next.Token())
		}
		mustUnlock(t, next)
		if g := <-early; k.holder("early") != g.Token() || g.s == taken[0].s {
			t.Errorf("holder %d, want %d in another session", k.holder("early"), g.Token())
		}
		mustUnlock(t, blocker) // the waiter still has its place
		if g := <-later; g.s != taken[0].s || k.holder("later") != g.Token() {
			t.Errorf("holder %d, want %d in the session that had the gap", k.holder("later"), g.Token())
		}
	})
}

// TestNoticesOutOfOrderAreNoGap: some come late, and some are lost.
func TestNoticesOutOfOrderAreNoGap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			kept := mustLock(t, c, "kept")
			for i := range 40 {
				mustLock(t, c, fmt.Sprint(i))
			}
			var notices []func()
			k.mu.Lock()
			watch := k.watchers[kept.s.id]
			k.watchers[kept.s.id] = func(n *apiv1.Notice) {
				k.mu.Lock()
				defer k.mu.Unlock()
				notices = append(notices, func() { watch(n) })
			}
			k.mu.Unlock()
			for i := range 40 {
				k.do(fsm.ForceRelease{Lock: fmt.Sprint(i), Who: "root"})
				time.Sleep(10 * time.Millisecond)
			}
			k.mu.Lock()
			all := notices
			k.mu.Unlock()
			random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
			for _, notify := range all[:30] {
				notify()
			}
			time.Sleep(time.Minute)
			if kept.Err() != nil {
				t.Fatalf("a grant that was not revoked: %v", kept.Err())
			}
			kept.s.mu.Lock()
			defer kept.s.mu.Unlock()
			if len(kept.s.grants) != 1 {
				t.Errorf("%d grants are valid, want 1", len(kept.s.grants))
			}
		})
	}
}

// TestManyEarlyRevocationsAreNotForgotten: revocations of grants whose answers have not
// arrived are kept, up to a bound; beyond it the grants of those answers are not returned.
func TestManyEarlyRevocationsAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		k.fault(first[*apiv1.Operation_Acquire](fate{delayAnswer: 2 * time.Second}))
		got := make(chan *Grant, 1)
		go func() { got <- mustLock(t, c, "a") }()
		time.Sleep(time.Second)
		s := current(c)
		for i := range uint64(maxEarly) { // of grants that the client does not have
			s.notice(&apiv1.Notice{Session: s.id[:], Revocation: &apiv1.Revocation{Number: i + 1, Token: 1_000_000 + i}})
		}
		s.notice(&apiv1.Notice{Session: s.id[:], Revocation: &apiv1.Revocation{Number: maxEarly + 1, Token: k.holder("a")}})
		g := <-got
		if g.s == s {
			t.Errorf("token %d is valid, whose revocation was received and forgotten", g.Token())
		}
	})
}

package client

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// sends counts the operations of a kind on a lock that are sent, and has each end as fate says.
func sends(k *cluster, kind apiv1.Kind, end fate) *atomic.Int32 {
	n := new(atomic.Int32)
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.onWay
	k.onWay = func(op *apiv1.Operation) fate {
		if op.Kind() == kind {
			n.Add(1)
			return end
		}
		if before != nil {
			return before(op)
		}
		return fate{}
	}
	return n
}

func busyAs(t *testing.T, c *Client, name string, want uint64) {
	t.Helper()
	_, err := c.TryLock(t.Context(), name)
	var busy *BusyError
	if !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0].Token != want || busy.Holders[0].Lock != name {
		t.Fatalf("TryLock = %v, want that it is busy, and held with token %d", err, want)
	}
}

// Whoever polls a held lock has it in the log once, and is told the holder each time; the
// free lock is his at the next try.
func TestPollingAHeldLockWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		alice, bob := k.client(t), k.client(t)
		g := mustLock(t, alice, "a")
		acquires, looks := sends(k, apiv1.KindAcquire, fate{}), sends(k, apiv1.KindGet, fate{})
		for range 10 {
			busyAs(t, bob, "a", g.Token())
			time.Sleep(looksFor / 2)
		}
		if acquires.Load() != 1 || looks.Load() != 9 {
			t.Errorf("%d acquires and %d looks, want 1 and 9", acquires.Load(), looks.Load())
		}
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		got, err := bob.TryLock(t.Context(), "a")
		if err != nil {
			t.Fatalf("TryLock of the free lock: %v", err)
		}
		if err := got.Unlock(); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.TryLock(t.Context(), "a"); err != nil || looks.Load() != 10 {
			t.Errorf("TryLock of a lock that was free last: %v, after %d looks in all, want 10", err, looks.Load())
		}
	})
}

// What was refused long ago is tried as if for the first time.
func TestAFirstTryDoesNotLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		alice, bob := k.client(t), k.client(t)
		g := mustLock(t, alice, "a")
		looks := sends(k, apiv1.KindGet, fate{})
		busyAs(t, bob, "a", g.Token())
		time.Sleep(looksFor)
		busyAs(t, bob, "a", g.Token())
		if looks.Load() != 0 {
			t.Errorf("%d looks, want none", looks.Load())
		}
	})
}

// A client that may not read, or whose read is refused for any other reason, still tries.
func TestATryIsMadeWhereALookIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		alice, bob := k.client(t), k.client(t)
		g := mustLock(t, alice, "a")
		busyAs(t, bob, "a", g.Token())
		looks := sends(k, apiv1.KindGet, fate{refuse: apiv1.NewError(apiv1.CodeDenied, "right read: is missing")})
		busyAs(t, bob, "a", g.Token())
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.TryLock(t.Context(), "a"); err != nil || looks.Load() != 2 {
			t.Errorf("TryLock of the free lock: %v, after %d looks, want 2", err, looks.Load())
		}
	})
}

// A look is a linearizable read: an older answer could say that a lock is held which was
// released before the try began.
func TestALookIsLinearizable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		alice, bob := k.client(t), k.client(t)
		g := mustLock(t, alice, "a")
		busyAs(t, bob, "a", g.Token())
		k.mu.Lock()
		k.onWay = func(op *apiv1.Operation) fate {
			if get := op.GetGet(); get != nil && get.GetMaxStaleNs() != 0 {
				t.Errorf("an answer may be %v old", time.Duration(get.GetMaxStaleNs()))
			}
			return fate{}
		}
		k.mu.Unlock()
		busyAs(t, bob, "a", g.Token())
	})
}

func TestRefusedTriesAreForgottenBeyondABound(t *testing.T) {
	var r refusedTries
	for i := range 2 * maxRefused {
		r.note(fmt.Sprint(i), time.Second)
	}
	if len(r.at) != maxRefused {
		t.Errorf("%d locks are remembered, want %d", len(r.at), maxRefused)
	}
}

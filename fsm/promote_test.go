package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A request for three locks that are freed one after the other, in whatever order, is
// granted with the last of them.
func TestAWaiterThatMovesFromLockToLockIsGranted(t *testing.T) {
	names := []string{"a", "b", "c"}
	for _, order := range [][]uint64{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}} {
		for _, want := range []func(string) Want{wantExclusive, wantShared, func(name string) Want { return wantPermits(name, 2, 2) }} {
			c := newCrowd(t, 2)
			var wants []Want
			for _, name := range names {
				holder := want(name)
				if holder.Mode == Shared {
					holder.Mode = Exclusive
				}
				c.apply(c.acquire(0, 1, holder)...)
				wants = append(wants, want(name))
			}
			c.apply(c.acquire(1, 1, wants...)...)
			for i, held := range order {
				c.sound()
				if token := c.token(1, 1); token != 0 {
					t.Errorf("%v freed in the order %v: granted after %d", wants, order, i)
				}
				c.apply(c.release(0, held))
			}
			if c.sound(); c.token(1, 1) == 0 {
				t.Errorf("%v freed in the order %v: not granted", wants, order)
			}
		}
	}
}

// A waiter that was held up by another lock is granted at a semaphore, too, and leaves
// room there for the next one.
func TestAGrantLeavesRoomAtASemaphore(t *testing.T) {
	c := newCrowd(t, 4)
	c.apply(c.acquire(0, 1, wantExclusive("a"))...)
	c.apply(c.acquire(1, 1, wantExclusive("a"), wantPermits("s", 1, 3))...)
	c.apply(c.acquire(2, 1, wantPermits("s", 1, 3))...)
	c.apply(c.acquire(3, 1, wantPermits("s", 1, 3))...)
	a := c.apply(c.release(0, 1))
	for i := 1; i <= 3; i++ {
		if token := c.token(i, 1); token != uint64(i+1) {
			t.Errorf("session %d has token %d, want %d; events %+v", i, token, i+1, a.Events)
		}
	}
	c.sound()
}

// Several locks that one command frees are handed on by the age of those who wait, not
// lock by lock.
func TestGrantsOfOneCommandAreInTheOrderOfTheQueue(t *testing.T) {
	c := newCrowd(t, 3)
	c.apply(c.acquire(0, 1, wantExclusive("a"))...)
	c.apply(c.acquire(0, 1, wantExclusive("b"))...)
	for i := range 6 {
		c.apply(c.acquire(1, 1, wantShared([]string{"b", "a"}[i%2]))...)
	}
	c.apply(EndSession{Session: c.session(0)})
	for i := range uint64(6) {
		if token := c.token(1, i+1); token != i+3 {
			t.Errorf("the request that came as number %d has token %d, want %d", i+1, token, i+3)
		}
	}
	c.sound()
}

// Where a waiter is registered depends on what happened, and is not in a snapshot: a
// table that was restored has it elsewhere, and does the same.
func TestRegistrationsDecideNothing(t *testing.T) {
	c := newCrowd(t, 4)
	c.apply(c.acquire(0, 1, wantPermits("s", 2, 3))...)
	c.apply(c.acquire(1, 1, wantPermits("s", 1, 3))...)
	c.apply(c.acquire(2, 1, wantExclusive("x"))...)
	c.apply(c.acquire(3, 1, wantPermits("s", 2, 3), wantExclusive("x"))...)
	c.apply(c.release(0, 1)) // now x keeps it waiting
	c.apply(Resize{Lock: "s", Limit: 2})
	other := *c
	other.t = restore(t, snapshotBytes(t, c.t))
	at := func(c *crowd) int32 {
		l, _ := c.t.locks.get("x")
		number, _, _ := l.queue.others.first()
		r, _ := c.t.requests.get(number)
		return r.registered
	}
	if at(c) != 2 || at(&other) != 1 {
		t.Fatalf("registered at %d, and after the restore at %d: nothing is tested", at(c), at(&other))
	}
	for _, release := range []Command{c.release(2, 1), c.release(1, 1)} {
		c.apply(release)
		other.apply(release)
		if c.sound(); c.t.digest != other.t.digest {
			t.Fatalf("a table that was restored does something else in entry %d", c.index)
		}
		other.sound()
	}
	if c.token(3, 1) == 0 {
		t.Error("not granted")
	}
}

// The same, whatever is asked.
func TestRestoredForestsGoOnAlike(t *testing.T) {
	checkMany(t, 1, func(rt *rapid.T) {
		f := newForest(rt)
		for range 6 {
			f.run(f.entry()...)
		}
		other := *f.crowd
		other.t = restore(t, snapshotBytes(t, f.t))
		for range 12 {
			entry := f.entry()
			f.run(entry...)
			other.run(entry...)
			if f.t.digest != other.t.digest {
				rt.Fatalf("a table that was restored does something else in entry %d", f.index)
			}
		}
		f.sound()
		other.sound()
	})
}

// In a mass expiry that is cut, a waiter whose session is due is passed over. When the
// session is kept alive in the same entry, it gets its turn after all.
func TestRevivedWaitersAreLookedAtAgain(t *testing.T) {
	for _, n := range []int{1, 2, 300} {
		c := newCrowd(t, 1)
		due, entry := pastDueWaiters(c, n)
		c.apply(entry...)
		if v := c.t.Lock("a"); v.HolderCount != 0 || v.Waiters != n {
			t.Fatalf("%d holders and %d waiters, want the %d that are due passed over", v.HolderCount, v.Waiters, n)
		}
		c.sound()
		c.apply(KeepAlive{Sessions: []KeepAliveSession{{Session: c.session(due)}}})
		// The entry before has left the session for this one, which ends it first.
		if _, open := c.t.Session(c.session(due)); open {
			t.Fatal("the session lived on")
		}

		c = newCrowd(t, 1)
		due, entry = pastDueWaiters(c, n)
		c.apply(append(entry, KeepAlive{Sessions: []KeepAliveSession{{Session: c.session(due)}}})...)
		if v := c.t.Lock("a"); v.HolderCount != n {
			t.Fatalf("%d holders, want %d", v.HolderCount, n)
		}
		c.sound()
	}
}

// A request with tries in two sessions that are both revived is granted once.
func TestARequestOfTwoRevivedSessionsIsGrantedOnce(t *testing.T) {
	c := newCrowd(t, 1)
	c.apply(Configure{Limits: Limits{ExpiriesPerEntry: 1}})
	c.openSession(10 * second)
	one, two := c.openSession(10*second), c.openSession(10*second)
	c.apply(c.acquire(0, 1, wantExclusive("a"))...)
	for _, i := range []int{one, two} {
		c.apply(Acquire{
			ID: RequestID{Session: c.session(i), Sequence: 1, Once: genOnce(0)}, Detached: true,
			Wants: []Want{wantExclusive("a")}, Wait: 60 * second, TTL: 60 * second,
		})
	}
	c.now = 10 * second
	a := c.apply(
		c.release(0, 1),
		KeepAlive{Sessions: []KeepAliveSession{{Session: c.session(one)}, {Session: c.session(two)}}},
	)
	if n := countKind(a, EventGranted); n != 1 || c.t.Lock("a").HolderCount != 1 {
		t.Fatalf("granted %d times; %+v", n, c.t.Lock("a"))
	}
	c.sound()
}

// A snapshot is written while waiters move from lock to lock: it shares their records,
// and not what changes in them.
func TestSnapshotIsWrittenWhileWaitersMove(t *testing.T) {
	c := newCrowd(t, 2)
	var wants []Want
	for i := range 20 {
		wants = append(wants, wantShared(fmt.Sprint(i)))
		c.apply(c.acquire(0, 1, wantExclusive(fmt.Sprint(i)))...)
	}
	c.apply(c.acquire(1, 500, wants...)...)
	before, snapshot := c.t.Hash(), c.t.Snapshot()
	written := make(chan *Table)
	go func() {
		var b bytes.Buffer
		if _, err := snapshot.WriteTo(&b); err != nil {
			t.Error(err)
		}
		table, err := Restore(&b)
		if err != nil {
			t.Error(err)
		}
		written <- table
	}()
	for i := range uint64(20) {
		c.apply(c.release(0, i+1))
	}
	if table := <-written; table == nil || table.Hash() != before {
		t.Error("the snapshot changed while it was written")
	}
	c.sound()
}

// One operation is a release, the grant to the next of n waiters, and one
// that comes to the end of the queue. Each belongs to a session of its own.
func BenchmarkHandOff(b *testing.B) {
	for _, shape := range []struct {
		name  string
		wants []Want
	}{
		{"exclusive", []Want{wantExclusive("child")}},
		{"child+parent", []Want{wantExclusive("child"), wantShared("parent")}},
	} {
		for _, waiters := range []int{1, 100, 9_999} {
			b.Run(fmt.Sprintf("%s/waiters=%d", shape.name, waiters), func(b *testing.B) {
				c := newCrowd(b, waiters+1)
				acknowledged := func(i int) RequestID {
					id := c.next(i)
					id.Acked = id.Sequence - 1
					return id
				}
				acquire := func(i int) { c.apply(Acquire{ID: acknowledged(i), Wants: shape.wants, Wait: -1}) }
				for i := range waiters + 1 {
					acquire(i)
				}
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					i := n % (waiters + 1)
					c.apply(Release{ID: acknowledged(i), Token: c.t.lastToken})
					acquire(i)
				}
			})
		}
	}
}

// One operation is a waiter in the middle of a line who cancels, and one who comes to
// its end. All belong to one session, which acknowledges nothing.
func BenchmarkCancelInTheMiddle(b *testing.B) {
	for _, waiters := range []int{1, 1_000, 9_990, 100_000} {
		b.Run(fmt.Sprintf("waiters=%d", waiters), func(b *testing.B) {
			c := newCrowd(b, 1)
			c.apply(Configure{Limits: Limits{GrantsPerSession: 200_000, WaitersPerLock: 200_000}})
			acquire := func() { c.apply(c.acquire(0, 1, wantExclusive("a"))...) }
			for range waiters + 1 {
				acquire()
			}
			for next := uint64(waiters/2 + 2); b.Loop(); next++ {
				c.apply(Cancel{Target: RequestID{Session: c.session(0), Sequence: next}})
				acquire()
			}
		})
	}
}

// One operation is the end of a session that holds n times a lock Shared for which n
// others wait, who are blocked by another lock.
func BenchmarkEndSessionOverSharedWaiters(b *testing.B) {
	for _, n := range []int{2_000, 9_900} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := newCrowd(b, 3)
				parentAndChild(c, n)
				b.StartTimer()
				c.apply(EndSession{Session: c.session(0)})
			}
		})
	}
}

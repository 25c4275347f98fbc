package fsm

import (
	"fmt"
	"testing"
)

// A line that is cleared ends as a whole, however long, in entries of bounded work: nobody
// in it is granted the lock in between, all are told why, and who comes later gets it.
func TestClearEndsTheWholeLine(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{WaitersPerLock: 10_000}}), OK)
	b.open(0, 600*second)
	held := b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
	const waiters = 2*clearPerEntry + 7
	for q := range uint64(waiters) {
		c := inSession(0, q+2, -1, "a", fmt.Sprint("b", q))
		if q%3 == 0 {
			c.Wants[0] = wantShared("a")
		}
		b.want(b.one(0, c), Queued)
	}
	c := Clear{Lock: "a", Reason: "stuck", Who: "10.0.0.1"}
	ended, entries := 0, 0
	for more := true; more; entries++ {
		a := b.at(1, c)
		r := b.want(a.Results[0], OK)
		for _, e := range a.Events {
			switch {
			case e.Kind == EventWaitEnded && e.Code == Revoked && e.Reason == "stuck" && e.Who == "10.0.0.1":
				ended++
			case e.Kind == EventGranted && e.Request.Sequence == 5000 && !r.Cleared.More:
			case e.Kind == EventRevoked && e.Token == held.Token && e.Reason == "stuck" && e.Number == 1 && !r.Cleared.More:
			default:
				t.Fatalf("entry %d: %+v", entries, e)
			}
		}
		if r.Cleared.Grants+r.Cleared.Waiters > clearPerEntry {
			t.Fatalf("one entry ends %+v", *r.Cleared)
		}
		if entries == 0 {
			b.want(b.one(1, inSession(0, 5000, -1, "a")), Queued) // after it began
		}
		c.UpTo, more = r.Cleared.UpTo, r.Cleared.More
	}
	if ended != waiters || entries != 3 {
		t.Errorf("%d waits ended in %d entries, want %d in 3", ended, entries, waiters)
	}
	b.holders("a", 1)
	b.waiters("a", 0)
	b.want(b.one(1, inSession(0, 2, -1, "a", "b0")), Invalid) // another request under a used ID
	again := inSession(0, 3, -1, "a", "b1")
	b.want(b.one(1, again), Revoked) // a copy is told the same
	b.want(b.one(1, Clear{Lock: "nobody's"}), NotHeld)
	b.reload()
}

// A line is cleared as a whole also where nobody holds the lock: those in it wait for
// another one, too.
func TestClearEndsALineBehindNobody(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, inSession(0, 1, 0, "other")), OK)
	const waiters = 2*clearPerEntry + 7
	for q := range uint64(waiters) {
		b.want(b.one(0, inSession(0, q+2, -1, "a", "other")), Queued)
	}
	b.waiters("a", waiters)
	c, entries := Clear{Lock: "a"}, 0
	for more := true; more && entries < 9; entries++ {
		r := b.want(b.one(1, c), OK)
		c.UpTo, more = r.Cleared.UpTo, r.Cleared.More
	}
	b.waiters("a", 0)
	b.holders("other", 1)
	if entries != 3 {
		t.Errorf("%d entries, want 3", entries)
	}
}

package fsm

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// heapModel is a sorted list.
type heapModel []due

func (m heapModel) sort() {
	slices.SortFunc(m, func(a, b due) int {
		if a.at != b.at {
			return compareInts(a.at, b.at)
		}
		return compareInts(a.number, b.number)
	})
}

func (d *deadlines) sound(t *testing.T) {
	t.Helper()
	for i, e := range d.heap {
		if d.where[e.slot] != int32(i) {
			t.Fatalf("entry %+v stands at %d, slot says %d", e, i, d.where[e.slot])
		}
		if i > 0 && d.before(&d.heap[i], &d.heap[(i-1)/4]) {
			t.Fatalf("entry %+v stands below %+v", e, d.heap[(i-1)/4])
		}
	}
	if used := len(d.heap); len(d.where) > 0 && used+len(d.free) != len(d.where)-1 {
		t.Fatalf("%d entries and %d free slots of %d", used, len(d.free), len(d.where)-1)
	}
}

func TestDeadlinesLeaveInOrder(t *testing.T) {
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var d deadlines
		var want heapModel
		for number := uint64(1); number < 3000; number++ {
			at := Instant(rnd.Int64N(200)) // many are equal
			slot := d.add(at, number, nil)
			if slot == 0 {
				t.Fatal("slot 0 was given")
			}
			want = append(want, due{at, number, slot})
			switch {
			case rnd.IntN(3) == 0:
				i := rnd.IntN(len(want))
				d.remove(want[i].slot)
				want = slices.Delete(want, i, i+1)
			case rnd.IntN(4) == 0:
				i := rnd.IntN(len(want))
				want[i].at += Instant(rnd.Int64N(100) - 20)
				d.move(want[i].slot, want[i].at)
			}
			if number%100 == 0 {
				d.sound(t)
			}
		}
		want.sort()
		for _, w := range want {
			if d.heap[0] != w {
				t.Fatalf("seed %d: next is %+v, want %+v", seed, d.heap[0], w)
			}
			d.remove(w.slot)
		}
		if len(d.heap) != 0 {
			t.Fatalf("%d are left", len(d.heap))
		}
		d.sound(t)
	}
}

func TestNoDeadlineIsTakenOutForSlotZero(t *testing.T) {
	var d deadlines
	d.remove(0)
	slot := d.add(5, 1, nil)
	d.remove(0)
	if len(d.heap) != 1 || d.heap[0].slot != slot {
		t.Fatalf("heap %+v", d.heap)
	}
}

// Grants that are released long before their TTL leave nothing behind.
func TestReleasedGrantsLeaveNoDeadlines(t *testing.T) {
	b := newBench(t)
	for range 500 {
		r := b.want(b.one(0, b.grab("a", 3600*second)), OK)
		b.want(b.one(0, Release{Token: r.Token}), OK)
	}
	d := &b.table.deadlines
	if len(d.heap) != 1 || len(d.where) > 4 { // that of the session
		t.Fatalf("%d deadlines, %d slots after 500 cycles", len(d.heap), len(d.where))
	}
}

// A renewal moves its own deadline, at once. Were it left for the time when it comes to
// the top, one entry could have to move all that were renewed before.
func TestRenewalLeavesNothingToBeMovedLater(t *testing.T) {
	b := newBench(t)
	first := b.want(b.one(0, detached(1, "a", 2*second, 0)), OK)
	later := b.want(b.one(0, detached(2, "b", 3*second, 0)), OK)
	b.want(b.one(1, Renew{Token: later.Token, TTL: 60 * second}), OK)
	if err := b.table.check(); err != nil {
		t.Fatal(err)
	}
	b.want(b.one(1, Release{Token: first.Token}), OK)
	if at, ok := b.table.NextDeadline(); !ok || at != 61*second {
		t.Fatalf("next deadline %d, %v, want 61 s", at, ok)
	}
}

func BenchmarkDeadlines(b *testing.B) {
	var d deadlines
	rnd := rand.New(rand.NewPCG(1, 1))
	for n := range uint64(1_000_000) {
		d.add(Instant(rnd.Int64N(1<<40)), n, nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		d.remove(d.add(Instant(rnd.Int64N(1<<40)), 1<<40, nil))
	}
}

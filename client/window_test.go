package client

import (
	"math/rand/v2"
	"testing"
)

// TestWindowAcknowledgesOnlyWhatIsAnswered compares the ring with a set.
func TestWindowAcknowledgesOnlyWhatIsAnswered(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var w window
		open := map[uint64]*op{}
		var last uint64
		for range 2000 {
			if len(open) == 0 || random.IntN(100) < 52 {
				o := &op{}
				last++
				if got := w.issue(o); got != last {
					t.Fatalf("issue() = %d, want %d", got, last)
				}
				open[last] = o
			} else {
				seq := pick(random, open)
				delete(open, seq)
				w.answered(seq)
				w.answered(seq) // twice is once
			}
			check(t, &w, open, last)
		}
	}
}

func pick(random *rand.Rand, open map[uint64]*op) uint64 {
	var all []uint64
	for seq := range open {
		all = append(all, seq)
	}
	return all[random.IntN(len(all))]
}

func check(t *testing.T, w *window, open map[uint64]*op, last uint64) {
	t.Helper()
	want := last
	for seq := range open {
		want = min(want, seq-1)
	}
	if got := w.acknowledged(); got != want {
		t.Fatalf("acknowledged() = %d, want %d with %d unanswered", got, want, len(open))
	}
	if got := w.span(); got != int(last-want) {
		t.Fatalf("span() = %d, want %d", got, last-want)
	}
	seen := 0
	w.each(func(o *op) { seen++ })
	if seen != len(open) {
		t.Fatalf("each() saw %d, want %d", seen, len(open))
	}
}

func TestWindowIgnoresSequencesItDoesNotHave(t *testing.T) {
	var w window
	w.answered(1)
	seq := w.issue(&op{})
	w.answered(seq + 1)
	w.answered(0)
	if w.acknowledged() != 0 || w.span() != 1 {
		t.Errorf("acknowledged %d, span %d, want 0 and 1", w.acknowledged(), w.span())
	}
	w.answered(seq)
	w.answered(seq)
	if w.acknowledged() != 1 || w.span() != 0 {
		t.Errorf("acknowledged %d, span %d, want 1 and 0", w.acknowledged(), w.span())
	}
}

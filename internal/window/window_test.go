package window

import (
	"math/rand/v2"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
)

type request struct{ seq uint64 }

// bench is a window with a set of the unanswered sequences, and one of those that were
// reported to the cluster.
type bench struct {
	t        *testing.T
	w        Window[request]
	open     map[uint64]*request
	last     uint64
	reported map[uint64]bool // by spans
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, open: map[uint64]*request{}, reported: map[uint64]bool{}}
}

func (b *bench) issue() *apiv1.RequestID {
	b.t.Helper()
	r, id := &request{}, &apiv1.RequestID{}
	b.w.Issue(r, id)
	r.seq = id.GetSequence()
	b.last++
	if r.seq != b.last {
		b.t.Fatalf("issued sequence %d, want %d", r.seq, b.last)
	}
	if got := id.GetAcknowledged(); got != b.w.Acknowledged() {
		b.t.Fatalf("the ID acknowledges %d, the window %d", got, b.w.Acknowledged())
	}
	if len(id.GetAnswered()) > maxSpans {
		b.t.Fatalf("%d spans in one ID, at most %d are allowed", len(id.GetAnswered()), maxSpans)
	}
	for _, s := range id.GetAnswered() {
		if s.GetFirst() <= id.GetAcknowledged() || s.GetLast() < s.GetFirst() {
			b.t.Fatalf("span %v beside acknowledged %d", s, id.GetAcknowledged())
		}
		for seq := s.GetFirst(); seq <= s.GetLast(); seq++ {
			if b.open[seq] != nil || seq >= r.seq {
				b.t.Fatalf("span %v says that %d is answered", s, seq)
			}
			if b.reported[seq] {
				b.t.Fatalf("span %v says again that %d is answered", s, seq)
			}
			b.reported[seq] = true
		}
	}
	b.open[r.seq] = r
	return id
}

func (b *bench) answer(seq uint64) {
	delete(b.open, seq)
	b.w.Answered(seq)
}

func (b *bench) check() {
	b.t.Helper()
	want := b.last
	for seq, r := range b.open {
		want = min(want, seq-1)
		if b.w.Get(seq) != r {
			b.t.Fatalf("Get(%d) is not what was issued", seq)
		}
	}
	if got := b.w.Acknowledged(); got != want {
		b.t.Fatalf("Acknowledged() = %d, want %d with %d unanswered", got, want, len(b.open))
	}
	if got := b.w.Len(); got != len(b.open) {
		b.t.Fatalf("Len() = %d, want %d", got, len(b.open))
	}
	before, seen := uint64(0), 0
	b.w.Each(func(r *request) {
		if r.seq <= before || b.open[r.seq] != r {
			b.t.Fatalf("Each: %d after %d", r.seq, before)
		}
		before = r.seq
		seen++
	})
	if seen != len(b.open) {
		b.t.Fatalf("Each saw %d, want %d", seen, len(b.open))
	}
}

// TestWindowAcknowledgesOnlyWhatIsAnswered compares the window with sets.
func TestWindowAcknowledgesOnlyWhatIsAnswered(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := newBench(t)
		for range 2000 {
			if len(b.open) == 0 || random.IntN(100) < 52 {
				b.issue()
			} else {
				seq := b.pick(random)
				b.answer(seq)
				b.answer(seq) // the second time changes nothing
			}
			b.check()
		}
	}
}

func (b *bench) pick(random *rand.Rand) uint64 {
	for {
		if seq := 1 + random.Uint64N(b.last); b.open[seq] != nil {
			return seq
		}
	}
}

// TestEverythingAnsweredBehindAWaitIsReported: sequences after a request that stays
// unanswered are reported soon, in whatever order they were answered.
func TestEverythingAnsweredBehindAWaitIsReported(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := newBench(t)
		b.issue() // waits for ever
		for range 500 {
			if len(b.open) < 2 || random.IntN(2) == 0 {
				b.issue()
			} else if seq := b.pick(random); seq != 1 {
				b.answer(seq)
			}
		}
		for range 250 { // each ID has room for two spans
			b.issue()
		}
		for seq := uint64(2); seq <= b.last; seq++ {
			if b.open[seq] == nil && !b.reported[seq] {
				t.Fatalf("%d was answered, and this was not reported", seq)
			}
		}
		b.answer(1)
		for seq := range b.open {
			b.answer(seq)
		}
		if b.check(); b.w.Acknowledged() != b.last || len(b.w.unreported) != 0 {
			t.Fatalf("all are answered: acknowledged %d of %d, unreported %v", b.w.Acknowledged(), b.last, b.w.unreported)
		}
	}
}

func TestAnswersInARowAreOneSpan(t *testing.T) {
	b := newBench(t)
	for range 6 {
		b.issue()
	}
	for _, seq := range []uint64{3, 5, 4, 2} {
		b.answer(seq)
	}
	id := b.issue()
	if s := id.GetAnswered(); len(s) != 1 || s[0].GetFirst() != 2 || s[0].GetLast() != 5 {
		t.Errorf("spans %v, want 2 to 5", s)
	}
	if s := b.issue().GetAnswered(); s != nil {
		t.Errorf("spans %v in the next ID, want none", s)
	}
}

func TestWindowIgnoresSequencesItDoesNotHave(t *testing.T) {
	var w Window[request]
	w.Answered(1)
	id := &apiv1.RequestID{}
	w.Issue(&request{}, id)
	w.Answered(id.GetSequence() + 1)
	w.Answered(0)
	if w.Acknowledged() != 0 || w.Len() != 1 || w.Get(0) != nil || w.Get(2) != nil {
		t.Errorf("acknowledged %d, %d unanswered, want 0 and 1", w.Acknowledged(), w.Len())
	}
	w.Answered(1)
	w.Answered(1)
	if w.Acknowledged() != 1 || w.Len() != 0 {
		t.Errorf("acknowledged %d, %d unanswered, want 1 and 0", w.Acknowledged(), w.Len())
	}
}

// TestMemoryIsForWhatIsUnanswered: one request waits while a million after it are
// answered, a few at a time.
func TestMemoryIsForWhatIsUnanswered(t *testing.T) {
	var w Window[request]
	id := &apiv1.RequestID{}
	w.Issue(&request{}, id)
	for range 1_000_000 / 4 {
		var seqs [4]uint64
		for i := range seqs {
			w.Issue(&request{}, id)
			seqs[i] = id.GetSequence()
		}
		for _, i := range []int{2, 0, 3, 1} {
			w.Answered(seqs[i])
		}
	}
	if w.Len() != 1 || w.Acknowledged() != 0 {
		t.Fatalf("%d unanswered, acknowledged %d, want 1 and 0", w.Len(), w.Acknowledged())
	}
	if cap(w.slots) > 64 || cap(w.unreported) > 64 {
		t.Errorf("room for %d requests and %d spans is taken, with 5 unanswered at most", cap(w.slots), cap(w.unreported))
	}
}

func BenchmarkIssueAndAnswer(b *testing.B) {
	for name, waits := range map[string]bool{"alone": false, "behind a wait": true} {
		b.Run(name, func(b *testing.B) {
			var w Window[request]
			r, id := &request{}, &apiv1.RequestID{}
			if waits {
				w.Issue(r, id)
			}
			b.ReportAllocs()
			for range b.N {
				w.Issue(r, id)
				w.Answered(id.GetSequence())
			}
		})
	}
}

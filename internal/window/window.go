package window

import (
	"slices"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// maxSpans is how many spans of answered sequences one request ID may carry.
const maxSpans = 2

// Window is the requests of one session from the first unanswered one on. Its
// zero value is that of a new session. It is not safe for concurrent use.
//
//	acknowledged = base - 1
//	slot(seq) == nil  ⇔  seq is answered, for base <= seq < base + n
//	untold ⊆ the answered sequences above base, and none of them was told before
type Window[T any] struct {
	base   uint64 // sequence of ring[head]; 0 stands for 1
	ring   []*T   // its length is a power of two
	head   int
	n      int
	untold []span // ascending, neither overlapping nor adjacent
}

// span is the sequences from first to last, both included.
type span struct{ first, last uint64 }

// Issue gives item, which is not nil, the next sequence, and sets what id says of
// the window: its sequence, and what has been answered.
func (w *Window[T]) Issue(item *T, id *apiv1.RequestID) {
	if w.base == 0 {
		w.base = 1
	}
	if w.n == len(w.ring) {
		w.grow()
	}
	w.ring[(w.head+w.n)&(len(w.ring)-1)] = item
	w.n++
	id.Sequence = w.base + uint64(w.n) - 1
	id.Acknowledged = w.base - 1
	id.Answered = w.tell()
}

// Answered says that the answer of seq is not needed any more.
func (w *Window[T]) Answered(seq uint64) {
	if w.Get(seq) == nil {
		return
	}
	mask := len(w.ring) - 1
	w.ring[(w.head+int(seq-w.base))&mask] = nil
	if seq != w.base {
		w.note(seq)
		return
	}
	for w.n > 0 && w.ring[w.head] == nil {
		w.head = (w.head + 1) & mask
		w.base++
		w.n--
	}
	told := 0 // from now on by the cumulative acknowledgement
	for told < len(w.untold) && w.untold[told].first < w.base {
		told++
	}
	w.untold = slices.Delete(w.untold, 0, told)
}

// Get returns the unanswered request with a sequence, nil if there is none.
func (w *Window[T]) Get(seq uint64) *T {
	if seq < w.base || seq-w.base >= uint64(w.n) {
		return nil
	}
	return w.ring[(w.head+int(seq-w.base))&(len(w.ring)-1)]
}

// Acknowledged returns the sequence up to which everything has been answered.
func (w *Window[T]) Acknowledged() uint64 { return max(w.base, 1) - 1 }

// Span returns how many sequences there are from the first unanswered one on.
func (w *Window[T]) Span() int { return w.n }

// Each calls f for every unanswered request, in order.
func (w *Window[T]) Each(f func(*T)) {
	for i := range w.n {
		if item := w.ring[(w.head+i)&(len(w.ring)-1)]; item != nil {
			f(item)
		}
	}
}

// note puts an answered sequence among the untold ones.
func (w *Window[T]) note(seq uint64) {
	// Mostly it is the last one, or next to it.
	i := len(w.untold)
	for i > 0 && w.untold[i-1].first > seq {
		i--
	}
	before := i > 0 && w.untold[i-1].last+1 == seq
	after := i < len(w.untold) && w.untold[i].first == seq+1
	switch {
	case before && after:
		w.untold[i-1].last = w.untold[i].last
		w.untold = slices.Delete(w.untold, i, i+1)
	case before:
		w.untold[i-1].last = seq
	case after:
		w.untold[i].first = seq
	default:
		w.untold = slices.Insert(w.untold, i, span{seq, seq})
	}
}

// tell takes out the first untold spans.
func (w *Window[T]) tell() []*apiv1.Span {
	n := min(len(w.untold), maxSpans)
	if n == 0 {
		return nil
	}
	told := make([]*apiv1.Span, n)
	for i, s := range w.untold[:n] {
		told[i] = &apiv1.Span{First: s.first, Last: s.last}
	}
	w.untold = slices.Delete(w.untold, 0, n)
	return told
}

func (w *Window[T]) grow() {
	ring := make([]*T, max(16, 2*len(w.ring)))
	for i := range w.n {
		ring[i] = w.ring[(w.head+i)&(len(w.ring)-1)]
	}
	w.ring, w.head = ring, 0
}

package window

import (
	"slices"
	"sort"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// maxSpans is how many spans of answered sequences one request ID may carry.
const maxSpans = 2

// Window is the unanswered requests of one session. Its zero value is that of a new
// session. It is not safe for concurrent use.
//
// It takes memory for what is unanswered, not for what came after it: one request
// may wait for a day while a million others are answered behind it.
//
//	slots is ascending in seq; slots[head] is the first unanswered request
//	item == nil  ⇔  it is answered; dead counts these in slots[head:]
//	acknowledged = slots[head].seq - 1, or last where nothing is unanswered
//	untold ⊆ the answered sequences above acknowledged, none of them told before
type Window[T any] struct {
	last   uint64 // the sequence that was issued last
	slots  []slot[T]
	head   int
	dead   int
	untold []span // ascending, neither overlapping nor adjacent
}

type slot[T any] struct {
	seq  uint64
	item *T
}

// span is the sequences from first to last, both included.
type span struct{ first, last uint64 }

// Issue gives item, which is not nil, the next sequence, and sets what id says of
// the window: its sequence, and what has been answered.
func (w *Window[T]) Issue(item *T, id *apiv1.RequestID) {
	if len(w.slots) == cap(w.slots) && 2*(w.head+w.dead) >= len(w.slots) {
		w.sweep()
	}
	w.last++
	w.slots = append(w.slots, slot[T]{w.last, item})
	id.Sequence = w.last
	id.Acknowledged = w.Acknowledged()
	id.Answered = w.tell()
}

// Answered says that the answer of seq is not needed any more.
func (w *Window[T]) Answered(seq uint64) {
	i, ok := w.find(seq)
	if !ok {
		return
	}
	w.slots[i].item = nil
	w.dead++
	if i != w.head {
		w.note(seq)
		return
	}
	for w.head < len(w.slots) && w.slots[w.head].item == nil {
		w.head++
		w.dead--
	}
	acknowledged := w.Acknowledged()
	if w.head == len(w.slots) {
		w.slots, w.head = w.slots[:0], 0
	}
	told := 0 // from now on by the cumulative acknowledgement
	for told < len(w.untold) && w.untold[told].first <= acknowledged {
		told++
	}
	w.untold = slices.Delete(w.untold, 0, told)
}

// Get returns the unanswered request with a sequence, nil if there is none.
func (w *Window[T]) Get(seq uint64) *T {
	if i, ok := w.find(seq); ok {
		return w.slots[i].item
	}
	return nil
}

// Acknowledged returns the sequence up to which everything has been answered.
func (w *Window[T]) Acknowledged() uint64 {
	if w.head == len(w.slots) {
		return w.last
	}
	return w.slots[w.head].seq - 1
}

// Len returns how many requests are unanswered.
func (w *Window[T]) Len() int { return len(w.slots) - w.head - w.dead }

// Each calls f for every unanswered request, in order.
func (w *Window[T]) Each(f func(*T)) {
	for _, s := range w.slots[w.head:] {
		if s.item != nil {
			f(s.item)
		}
	}
}

// find returns the place of an unanswered request.
func (w *Window[T]) find(seq uint64) (int, bool) {
	open := w.slots[w.head:]
	if len(open) == 0 || seq < open[0].seq || seq > w.last {
		return 0, false
	}
	// Mostly nothing has been swept out, and it stands as far behind as it counts.
	i := int(min(seq-open[0].seq, uint64(len(open)-1)))
	if open[i].seq != seq {
		i = sort.Search(i, func(k int) bool { return open[k].seq >= seq })
	}
	return w.head + i, open[i].seq == seq && open[i].item != nil
}

// sweep makes room where answered requests were.
func (w *Window[T]) sweep() {
	kept := w.slots[:0]
	for _, s := range w.slots[w.head:] {
		if s.item != nil {
			kept = append(kept, s)
		}
	}
	clear(w.slots[len(kept):])
	w.slots, w.head, w.dead = kept, 0, 0
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

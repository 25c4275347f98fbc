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
//	item == nil  ⇔  it is answered; answered counts these in slots[head:]
//	acknowledged = slots[head].seq - 1, or last if nothing is unanswered
//	unreported ⊆ the answered sequences above acknowledged, none of them reported before
type Window[T any] struct {
	last       uint64 // the sequence that was issued last
	slots      []slot[T]
	head       int
	answered   int
	unreported []span // ascending, neither overlapping nor adjacent
}

type slot[T any] struct {
	seq  uint64
	item *T
}

// span is the sequences from first to last, both included.
type span struct{ first, last uint64 }

// Issue gives item, which must not be nil, the next sequence, and sets the fields of id that
// come from the window: its sequence, and which requests have been answered. The reported spans
// are not sent again, so that id must be sent.
func (w *Window[T]) Issue(item *T, id *apiv1.RequestID) {
	if len(w.slots) == cap(w.slots) && 2*(w.head+w.answered) >= len(w.slots) {
		w.sweep()
	}
	w.last++
	w.slots = append(w.slots, slot[T]{w.last, item})
	id.Sequence = w.last
	id.Acknowledged = w.Acknowledged()
	id.Answered = w.report()
}

// Answered notes that the answer of seq is not needed any more. It ignores a sequence that is
// not unanswered.
func (w *Window[T]) Answered(seq uint64) {
	i, ok := w.find(seq)
	if !ok {
		return
	}
	w.slots[i].item = nil
	w.answered++
	if i != w.head {
		w.note(seq)
		return
	}
	for w.head < len(w.slots) && w.slots[w.head].item == nil {
		w.head++
		w.answered--
	}
	acknowledged := w.Acknowledged()
	if w.head == len(w.slots) {
		w.slots, w.head = w.slots[:0], 0
	}
	covered := 0 // by acknowledged from now on
	for covered < len(w.unreported) && w.unreported[covered].first <= acknowledged {
		covered++
	}
	w.unreported = slices.Delete(w.unreported, 0, covered)
}

// Get returns the unanswered request with a sequence, nil if there is none.
func (w *Window[T]) Get(seq uint64) *T {
	if i, ok := w.find(seq); ok {
		return w.slots[i].item
	}
	return nil
}

// Acknowledged returns the sequence up to which all have been answered.
func (w *Window[T]) Acknowledged() uint64 {
	if w.head == len(w.slots) {
		return w.last
	}
	return w.slots[w.head].seq - 1
}

// Len returns how many requests are unanswered.
func (w *Window[T]) Len() int { return len(w.slots) - w.head - w.answered }

// Each calls f for every unanswered request, in order.
func (w *Window[T]) Each(f func(*T)) {
	for _, s := range w.slots[w.head:] {
		if s.item != nil {
			f(s.item)
		}
	}
}

// find returns the index of an unanswered request in slots, and whether there is one.
func (w *Window[T]) find(seq uint64) (int, bool) {
	open := w.slots[w.head:]
	if len(open) == 0 || seq < open[0].seq || seq > w.last {
		return 0, false
	}
	// Usually nothing has been removed, and the difference of the sequences is its index.
	i := int(min(seq-open[0].seq, uint64(len(open)-1)))
	if open[i].seq != seq {
		i = sort.Search(i, func(k int) bool { return open[k].seq >= seq })
	}
	return w.head + i, open[i].seq == seq && open[i].item != nil
}

// sweep removes the slots of answered requests.
func (w *Window[T]) sweep() {
	kept := w.slots[:0]
	for _, s := range w.slots[w.head:] {
		if s.item != nil {
			kept = append(kept, s)
		}
	}
	clear(w.slots[len(kept):])
	w.slots, w.head, w.answered = kept, 0, 0
}

// note adds an answered sequence to the unreported ones.
func (w *Window[T]) note(seq uint64) {
	// Usually it belongs at the end.
	i := len(w.unreported)
	for i > 0 && w.unreported[i-1].first > seq {
		i--
	}
	before := i > 0 && w.unreported[i-1].last+1 == seq
	after := i < len(w.unreported) && w.unreported[i].first == seq+1
	switch {
	case before && after:
		w.unreported[i-1].last = w.unreported[i].last
		w.unreported = slices.Delete(w.unreported, i, i+1)
	case before:
		w.unreported[i-1].last = seq
	case after:
		w.unreported[i].first = seq
	default:
		w.unreported = slices.Insert(w.unreported, i, span{seq, seq})
	}
}

// report removes the first unreported spans and returns them.
func (w *Window[T]) report() []*apiv1.Span {
	n := min(len(w.unreported), maxSpans)
	if n == 0 {
		return nil
	}
	spans := make([]*apiv1.Span, n)
	for i, s := range w.unreported[:n] {
		spans[i] = &apiv1.Span{First: s.first, Last: s.last}
	}
	w.unreported = slices.Delete(w.unreported, 0, n)
	return spans
}

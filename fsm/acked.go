package fsm

import (
	"slices"
	"sort"
)

// sequences are those of a session that are acknowledged: all up to one, and some
// above it, where an earlier one is not answered yet.
type sequences struct {
	upTo  uint64
	above []Span // ascending, with gaps between them and behind upTo
}

func (q *sequences) has(sequence uint64) bool {
	if sequence <= q.upTo {
		return true
	}
	i := q.from(sequence)
	return i < len(q.above) && q.above[i].First <= sequence
}

// from returns the place of the first span that ends at a sequence or behind it,
// mostly the last.
func (q *sequences) from(sequence uint64) int {
	if n := len(q.above); n == 0 || q.above[n-1].Last < sequence {
		return n
	}
	return sort.Search(len(q.above), func(i int) bool { return q.above[i].Last >= sequence })
}

// covers says that a span was added before.
func (q *sequences) covers(s Span) bool {
	if s.Last <= q.upTo {
		return true
	}
	i := q.from(s.Last)
	return i < len(q.above) && q.above[i].First <= max(s.First, q.upTo+1)
}

// add puts in a span, which begins at 1 at least.
func (q *sequences) add(s Span) {
	if s.First-1 <= q.upTo {
		q.raise(s.Last)
		return
	}
	i := q.from(s.First - 1)
	k := i
	for ; k < len(q.above) && q.above[k].First-1 <= s.Last; k++ {
		s = Span{min(s.First, q.above[k].First), max(s.Last, q.above[k].Last)}
	}
	q.above = slices.Replace(q.above, i, k, s)
}

// raise puts in all sequences up to one.
func (q *sequences) raise(upTo uint64) {
	q.upTo = max(q.upTo, upTo)
	n := 0
	for ; n < len(q.above) && q.above[n].First-1 <= q.upTo; n++ {
		q.upTo = max(q.upTo, q.above[n].Last)
	}
	q.above = slices.Delete(q.above, 0, n)
	if c := cap(q.above); c > 16 && len(q.above) < c/4 {
		q.above = clip(q.above)
	}
}

// bound closes the lowest gaps if there are too many.
func (q *sequences) bound(most int) {
	if n := len(q.above) - most; n > 0 {
		q.raise(q.above[n-1].Last)
	}
}

package fsm

import (
	"iter"
	"slices"
)

// A list of up to fewNumbers is a slice, of which one change moves at most half;
// a longer one is a tree until it is shorter than backToFew. What the two are
// apart pays for the moves between them.
const (
	fewNumbers = 2048
	backToFew  = 512
)

// numbers is an ascending list of numbers of requests, each with a value. Most
// have one or none, the longest have millions, and they come and go at any place
// in it: adding and removing take logarithmic time, or move a few kilobytes.
//
// Lists follow from the requests and no snapshot reads one. So they are changed
// in place, and a record shares its lists with the copies that snapshots keep.
type numbers[V any] struct {
	few  []numbered[V]
	many *tree[uint64, V] // nil: all are in few
}

type numbered[V any] struct {
	value  V
	number uint64
}

// none is the value of a number that has none.
type none = struct{}

func (s *numbers[V]) len() int {
	if s.many != nil {
		return s.many.len
	}
	return len(s.few)
}

// first returns the smallest number.
func (s *numbers[V]) first() (n uint64, v V, ok bool) {
	switch {
	case s.many != nil:
		return s.many.first()
	case len(s.few) > 0:
		return s.few[0].number, s.few[0].value, true
	}
	return 0, v, false
}

// after returns the smallest number that is greater than n.
func (s *numbers[V]) after(n uint64) (next uint64, ok bool) {
	if s.many != nil {
		return s.many.after(n)
	}
	i, found := s.find(n)
	if found {
		i++
	}
	if i == len(s.few) {
		return 0, false
	}
	return s.few[i].number, true
}

func (s *numbers[V]) get(n uint64) (v V, ok bool) {
	if s.many != nil {
		return s.many.get(n)
	}
	i, ok := s.find(n)
	if ok {
		v = s.few[i].value
	}
	return v, ok
}

func (s *numbers[V]) has(n uint64) bool {
	_, ok := s.get(n)
	return ok
}

// find returns the place of n in few, or of the first larger number. Most ask
// for the first, or for one behind the last.
func (s *numbers[V]) find(n uint64) (int, bool) {
	switch last := len(s.few) - 1; {
	case last < 0 || n <= s.few[0].number:
		return 0, last >= 0 && n == s.few[0].number
	case n > s.few[last].number:
		return last + 1, false
	}
	return slices.BinarySearchFunc(s.few, n, func(p numbered[V], n uint64) int { return compareInts(p.number, n) })
}

// put adds a number or replaces its value.
func (s *numbers[V]) put(n uint64, v V) {
	if s.many != nil {
		s.many.put(n, v)
		return
	}
	i, found := s.find(n)
	switch {
	case found:
		s.few[i].value = v
	case len(s.few) < fewNumbers:
		s.few = append(s.few, numbered[V]{})
		copy(s.few[i+1:], s.few[i:])
		s.few[i] = numbered[V]{v, n}
	default:
		s.many = &tree[uint64, V]{cmp: compareInts[uint64]}
		for _, p := range s.few {
			s.many.put(p.number, p.value)
		}
		s.many.put(n, v)
		s.few = nil
	}
}

// remove takes a number out, if it is there.
func (s *numbers[V]) remove(n uint64) {
	if s.many == nil {
		if i, ok := s.find(n); ok {
			s.removeAt(i)
		}
		return
	}
	s.many.delete(n)
	if s.many.len >= backToFew {
		return
	}
	s.few = make([]numbered[V], 0, backToFew)
	for n, v := range s.many.all() {
		s.few = append(s.few, numbered[V]{v, n})
	}
	s.many = nil
}

// removeAt takes the number at i out of few, and gives back the room that is not needed.
func (s *numbers[V]) removeAt(i int) {
	copy(s.few[i:], s.few[i+1:])
	s.few = s.few[:len(s.few)-1]
	if c := cap(s.few); c > 8 && len(s.few) < c/4 {
		s.few = clip(s.few)
	}
}

// all walks the list in ascending order. It must not change meanwhile.
func (s *numbers[V]) all() iter.Seq2[uint64, V] {
	return func(yield func(uint64, V) bool) {
		if s.many != nil {
			s.many.walk(s.many.root, nil, yield)
			return
		}
		for _, p := range s.few {
			if !yield(p.number, p.value) {
				return
			}
		}
	}
}

// tally is a list of numbers that are there several times, up to maxTries.
type tally struct {
	of    numbers[uint8] // how many times each
	total int
}

func (s *tally) add(n uint64) {
	times, _ := s.of.get(n)
	s.of.put(n, times+1)
	s.total++
}

// remove takes a number out once, if it is there.
func (s *tally) remove(n uint64) {
	switch times, _ := s.of.get(n); times {
	case 0:
		return
	case 1:
		s.of.remove(n)
	default:
		s.of.put(n, times-1)
	}
	s.total--
}

package fsm

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// same compares a list with a sorted slice, in all that it can be asked.
func (s *numbers[V]) same(t *testing.T, want []numbered[int], value func(V) int) {
	t.Helper()
	var got []numbered[int]
	for n, v := range s.all() {
		got = append(got, numbered[int]{value(v), n})
	}
	if s.len() != len(want) || !slices.Equal(got, want) {
		t.Fatalf("%d numbers, want %d:\n%v\n%v", s.len(), len(want), got, want)
	}
	first, v, ok := s.first()
	if ok != (len(want) > 0) || ok && (numbered[int]{value(v), first}) != want[0] {
		t.Fatalf("first is %d, %v", first, ok)
	}
	for i := range 20 {
		n := uint64(i * len(want) / 3)
		at, there := slices.BinarySearchFunc(want, n, func(p numbered[int], n uint64) int { return compareInts(p.number, n) })
		if v, ok := s.get(n); ok != there || ok && value(v) != want[at].value {
			t.Fatalf("get %d: %v, %v", n, v, ok)
		}
		if there {
			at++
		}
		next, ok := s.after(n)
		if ok != (at < len(want)) || ok && next != want[at].number {
			t.Fatalf("after %d: %d, %v", n, next, ok)
		}
	}
}

// A list is what a sorted slice is, however often it becomes long and short again.
func TestNumbersAreAnAscendingList(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var s numbers[int]
		var want []numbered[int]
		kinds := [2]int{} // slices and trees seen
		for _, aim := range []int{3, 0, fewNumbers - 5, fewNumbers + 300, backToFew + 5, backToFew - 200, fewNumbers * 2, 0, 9} {
			for len(want) != aim {
				n := uint64(rnd.IntN(3*fewNumbers)) + 1
				if len(want) > aim && rnd.IntN(8) > 0 {
					n = want[rnd.IntN(len(want))].number
				}
				at, there := slices.BinarySearchFunc(want, n, func(p numbered[int], n uint64) int { return compareInts(p.number, n) })
				switch grow := len(want) < aim == (rnd.IntN(8) > 0); {
				case grow && there:
					want[at].value = rnd.Int()
					s.put(n, want[at].value)
				case grow:
					want = slices.Insert(want, at, numbered[int]{rnd.Int(), n})
					s.put(n, want[at].value)
				case there:
					s.remove(n)
					want = slices.Delete(want, at, at+1)
				default:
					s.remove(n) // is not there
				}
				if rnd.IntN(200) == 0 {
					s.same(t, want, func(v int) int { return v })
				}
			}
			s.same(t, want, func(v int) int { return v })
			if s.many != nil {
				kinds[1]++
			} else {
				kinds[0]++
			}
			if len(s.few) > fewNumbers || s.many != nil && s.many.len < backToFew {
				t.Fatalf("%d in a slice, %d in a tree", len(s.few), s.len())
			}
		}
		if kinds[0] < 4 || kinds[1] < 3 {
			t.Fatalf("seed %d: %v slices and trees", seed, kinds)
		}
	}
}

// One operation takes a number out of the middle of a list and puts one at its end.
func BenchmarkNumbers(b *testing.B) {
	for name, n := range map[string]uint64{"1": 1, "100": 100, "2000": 2_000, "10000": 10_000, "1000000": 1_000_000} {
		b.Run(name, func(b *testing.B) {
			var s numbers[none]
			for i := range n {
				s.put(i, none{})
			}
			rnd := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			for next := n; b.Loop(); next++ {
				first, _, _ := s.first()
				out, ok := s.after(first + rnd.Uint64N(next-first))
				if !ok {
					out = first
				}
				s.remove(out)
				s.put(next, none{})
			}
		})
	}
}

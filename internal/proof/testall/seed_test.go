package testall

import "testing"

func TestSlicesOfFollowingDaysTakeEverythingInTurn(t *testing.T) {
	list := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	seen := make(map[string]int)
	for turn := range uint64(5) { // 20 of 10
		some := Slice(list, 4, 20000+turn)
		if len(some) != 4 {
			t.Errorf("turn %d: %d entries, want 4", turn, len(some))
		}
		for _, s := range some {
			seen[s]++
		}
	}
	for _, s := range list {
		if seen[s] != 2 {
			t.Errorf("%s was taken %d times in two rounds, want 2", s, seen[s])
		}
	}
	for _, n := range []int{0, 10, 11} {
		if got := Slice(list, n, 3); len(got) != 10 {
			t.Errorf("a slice of %d has %d entries, want all 10", n, len(got))
		}
	}
}

package chaos

import (
	"slices"
	"testing"
	"time"
)

func steps(seed uint64, kinds, beside []string, n int) (all []Step) {
	s := NewSchedule(seed, kinds, beside, 100*time.Millisecond, 200*time.Millisecond)
	for range n {
		all = append(all, s.Next())
	}
	return all
}

func TestScheduleIsAFunctionOfItsSeed(t *testing.T) {
	kinds, beside := []string{"a", "b", "c"}, []string{"b"}
	one, two := steps(7, kinds, beside, 100), steps(7, kinds, beside, 100)
	if !slices.Equal(one, two) {
		t.Error("the same seed dealt two schedules")
	}
	if slices.Equal(one, steps(8, kinds, beside, 100)) {
		t.Error("two seeds dealt the same schedule")
	}
}

func TestScheduleDealsAllKindsEquallyOften(t *testing.T) {
	counts := map[string]int{}
	for i, s := range steps(1, []string{"a", "b", "c"}, nil, 300) {
		counts[s.Fault]++
		if s.Number != i+1 {
			t.Fatalf("step %d has number %d", i+1, s.Number)
		}
		if s.Rest < 100*time.Millisecond || s.Rest > 200*time.Millisecond || s.Hold < 0 || s.Hold >= 1 {
			t.Errorf("step %d: rest %v, hold %v: out of range", s.Number, s.Rest, s.Hold)
		}
		if s.Beside != "" {
			t.Errorf("step %d: %s beside %s, though nothing may be", s.Number, s.Beside, s.Fault)
		}
	}
	for _, kind := range []string{"a", "b", "c"} {
		if counts[kind] != 100 {
			t.Errorf("%s was dealt %d times of 300, want a third", kind, counts[kind])
		}
	}
}

func TestScheduleDealsOthersBesideNowAndThen(t *testing.T) {
	pairs := 0
	for _, s := range steps(1, []string{"a", "b"}, []string{"b"}, 300) {
		switch s.Beside {
		case "":
		case "b":
			pairs++
			if s.Fault == "b" {
				t.Errorf("step %d: b beside itself", s.Number)
			}
		default:
			t.Errorf("step %d: %s beside others", s.Number, s.Beside)
		}
	}
	if pairs < 20 || pairs > 100 {
		t.Errorf("%d of 300 steps are pairs, want about a sixth", pairs)
	}
}

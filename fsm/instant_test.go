package fsm

import (
	"math"
	"testing"
)

func TestInstantsStopAtTheEndOfTime(t *testing.T) {
	for _, c := range []struct {
		at    Instant
		nanos int64
		want  Instant
	}{
		{0, 0, 0}, {5, 7, 12}, {5, math.MaxInt64, endOfTime}, {endOfTime, 1, endOfTime}, {endOfTime - 3, 3, endOfTime},
	} {
		if got := c.at.Add(c.nanos); got != c.want {
			t.Errorf("Instant(%d).Add(%d) = %d, want %d", c.at, c.nanos, got, c.want)
		}
	}
	if got := Instant(12).Sub(5); got != 7 {
		t.Errorf("from 5 to 12 are %d ns", got)
	}
	if got, past := Instant(12).Until(5), Instant(5).Until(12); got != 7 || past != 0 {
		t.Errorf("until 12 it is %d ns at 5; until 5 it is %d ns at 12", got, past)
	}
}

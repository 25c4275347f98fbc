package node

import (
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// fakeMono is a monotonic clock that tests move by hand.
type fakeMono struct{ at time.Duration }

func (f *fakeMono) now() time.Duration { return f.at }

func TestClusterTimeGoesOnWhereTheTableStood(t *testing.T) {
	mono := &fakeMono{at: 7 * time.Hour}
	c := newLeaderClock(1000, mono.now)
	if got := c.stamp(); got != 1000 {
		t.Fatalf("first stamp = %d, want the table's time 1000", got)
	}
	mono.at += 250 * time.Millisecond
	if got, want := c.stamp(), fsm.Instant(1000+250*time.Millisecond); got != want {
		t.Fatalf("stamp after 250ms = %d, want %d", got, want)
	}
}

func TestTimeInWhichNothingIsStampedDoesNotPass(t *testing.T) {
	mono := &fakeMono{}
	c := newLeaderClock(0, mono.now)
	mono.at = time.Hour
	if got, want := c.stamp(), fsm.Instant(time.Second); got != want {
		t.Fatalf("stamp after an hour of silence = %d, want %d", got, want)
	}
	mono.at += 100 * time.Millisecond
	if got, want := c.stamp(), fsm.Instant(time.Second+100*time.Millisecond); got != want {
		t.Fatalf("stamp 100ms later = %d, want %d: the excess must be dropped for good", got, want)
	}
}

func TestStampsNeverGoBack(t *testing.T) {
	mono := &fakeMono{at: time.Second}
	c := newLeaderClock(500, mono.now)
	before := c.stamp()
	mono.at = 0 // no monotonic clock does this; stamps must not go back even then
	if got := c.stamp(); got < before {
		t.Fatalf("stamp = %d after %d", got, before)
	}
}

func TestClusterTimeIsNeverFasterThanTheMonotonicClock(t *testing.T) {
	mono := &fakeMono{}
	c := newLeaderClock(0, mono.now)
	start := c.stamp()
	for i, step := range []time.Duration{0, 1, time.Millisecond, 3 * time.Second, 10 * time.Millisecond, time.Minute, 999 * time.Millisecond} {
		before, at := c.last, mono.at
		mono.at += step
		if got := c.stamp().Sub(before); got > int64(mono.at-at) {
			t.Fatalf("step %d: cluster time moved %v while the clock moved %v", i, time.Duration(got), mono.at-at)
		}
	}
	if got := c.stamp().Sub(start); got > int64(mono.at) {
		t.Fatalf("cluster time moved %v in %v", time.Duration(got), mono.at)
	}
}

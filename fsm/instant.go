package fsm

import "math"

// Instant is a moment of cluster time: nanoseconds on the clock that exists only in the log.
// It is a type of its own so that it is not taken for a duration, or for a wall clock, which
// are other numbers of the same size. 0 stands for no instant: no deadline, not granted yet.
//
// Durations are int64 here, in nanoseconds, because the table knows no clock and so imports
// no package time.
type Instant int64

// endOfTime is the last instant.
const endOfTime = Instant(math.MaxInt64)

// Add returns the instant that is nanos later, 0 or more. There is none after the last one.
func (i Instant) Add(nanos int64) Instant {
	if later := i + Instant(nanos); later >= i {
		return later
	}
	return endOfTime
}

// Sub returns how many nanoseconds i is later than another instant.
func (i Instant) Sub(other Instant) int64 { return int64(i - other) }

// Until returns how many nanoseconds are left until i; 0 if it has come.
func (i Instant) Until(now Instant) int64 { return max(0, i.Sub(now)) }

func (e *encoder) instant(i Instant) { e.int(int64(i)) }

func (d *decoder) instant() Instant { return Instant(d.int()) }

func (h *digester) instant(i Instant) { h.int(int64(i)) }

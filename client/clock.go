package client

import (
	"math"
	"time"
)

// marginFixed is subtracted from every deadline, for the time between a reading of the
// clock and the write that follows it. Another 1 % is for clocks that run at different rates.
const marginFixed = 10 * time.Millisecond

// ticket converts cluster time to a lower bound on the local clock.
//
// If a request was first sent at local time t and applied at cluster time C, then
// every later cluster time D comes no earlier than t + (D - C), if the local clock
// and the cluster's run at one rate; no wall clock is needed for that. With the margins,
// a deadline D has not come before
//
//	t + (D-C)·0.99 - 10 ms = (t - C·0.99) + D·0.99 - 10 ms
//
// so that the best of all requests is the one with the greatest t - C·0.99,
// whatever D is. A ticket keeps that number. Its zero value has none.
type ticket struct {
	offset int64
	known  bool
}

// learn takes a request into account that was first sent at sent and applied at
// applied. Reads do not count: they may be answered from before they were sent.
func (k *ticket) learn(sent time.Duration, applied int64) {
	if applied <= 0 {
		return // the answer has no stamp
	}
	offset := int64(sent) - applied + applied/100
	if !k.known || offset > k.offset {
		k.offset, k.known = offset, true
	}
}

// bound returns the local time before which a deadline has not come; 0 if nothing is known.
func (k *ticket) bound(deadline int64) time.Duration {
	if !k.known || deadline <= 0 {
		return 0
	}
	return sum(time.Duration(sum(k.offset, deadline-deadline/100)), -marginFixed)
}

// sum is a + b, or the nearest number that there is: a caller that means "for ever" passes
// the longest duration.
func sum[T ~int64](a, b T) T {
	switch s := a + b; {
	case a > 0 && b > 0 && s < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && s >= 0:
		return math.MinInt64
	default:
		return s
	}
}

// tickEvery bounds how long a session sleeps. Timers stop while the machine is suspended,
// and the client's clock does not: the first tick after that finds what was lost.
const tickEvery = 250 * time.Millisecond

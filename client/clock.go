package client

import (
	"math"
	"time"
)

// marginFixed is taken off every deadline, for the time between a look at the
// clock and a deed. Another 1 % is for clocks that run at different rates.
const marginFixed = 10 * time.Millisecond

// ticket converts cluster time to the local clock, carefully.
//
// A request first sent at local time t and applied at cluster time C says that
// every later cluster time D comes no earlier than t + (D - C), as local clocks
// and the cluster's run; no wall clock is needed to know that. With the margins,
// D may be relied on until
//
//	t + (D-C)·0.99 - 10 ms = (t - C·0.99) + D·0.99 - 10 ms
//
// so that the best of all requests is the one with the greatest t - C·0.99,
// whatever D is. That is what a ticket keeps. Its zero value knows nothing.
type ticket struct {
	offset int64
	known  bool
}

// learn takes a request into account that was first sent at sent and applied at
// applied. Reads do not count: they may be answered from before they were sent.
func (k *ticket) learn(sent time.Duration, applied int64) {
	if applied <= 0 {
		return // says nothing
	}
	offset := int64(sent) - applied + applied/100
	if !k.known || offset > k.offset {
		k.offset, k.known = offset, true
	}
}

// bound returns until when a deadline may be relied on; 0 if nothing is known.
func (k *ticket) bound(deadline int64) time.Duration {
	if !k.known || deadline <= 0 {
		return 0
	}
	return sum(time.Duration(sum(k.offset, deadline-deadline/100)), -marginFixed)
}

// sum is a + b, or as far as can be counted: those who mean "for ever" give the
// longest duration that there is.
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

// tickEvery bounds how long a session sleeps. Timers stand still while the
// machine is suspended and the client's clock does not: the first tick after
// the wake-up sees what was lost.
const tickEvery = 250 * time.Millisecond

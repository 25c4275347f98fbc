package client

import "time"

// margin is what the client takes off a deadline: 1 % for clocks that run at
// different rates, 10 ms for the time between a look and a deed.
const marginFixed = 10 * time.Millisecond

// believe returns until when, on the local clock, a deadline that is remaining
// away in cluster time may be relied on by a request first sent at sent.
//
// The request was applied after it was sent, so the deadline comes no earlier
// than sent + remaining; no wall clock is needed to know that.
func believe(sent, remaining time.Duration) time.Duration {
	return sent + remaining - remaining/100 - marginFixed
}

// tickEvery bounds how long a session sleeps. Timers stand still while the
// machine is suspended and the client's clock does not: the first tick after
// the wake-up sees what was lost.
const tickEvery = 250 * time.Millisecond

//go:build unix

package chaos

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic reads the machine's monotonic clock, which all of its processes
// share: readings in different processes can be compared.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// Every Unix has it; without it nothing that is recorded is true.
		panic("chaos: read CLOCK_MONOTONIC: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// clock counts from the beginning of a run, in whatever process.
type clock struct{ origin time.Duration }

func (c clock) now() time.Duration { return monotonic() - c.origin }

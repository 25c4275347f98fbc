package client

import (
	"time"

	"golang.org/x/sys/unix"
)

// now reads CLOCK_BOOTTIME: Go's own monotonic clock stops while the machine is
// suspended, so that a grant would stay valid for longer than the cluster keeps it.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had it since 2.6.39; without it no deadline could be kept.
		panic("client: read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

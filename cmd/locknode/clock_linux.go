package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// watchClock reads the clock by which run and its watchdog agree on a time. As the
// client's it counts the time in which the machine is suspended.
func watchClock() time.Duration { return readClock(unix.CLOCK_BOOTTIME) }

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// watchClock reads the clock that run and its watchdog share. Like the client's clock, it
// counts the time for which the machine is suspended.
func watchClock() time.Duration { return readClock(unix.CLOCK_BOOTTIME) }

//go:build unix && !linux

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// watchClock reads the clock by which run and its watchdog agree on a time.
func watchClock() time.Duration { return readClock(unix.CLOCK_MONOTONIC) }

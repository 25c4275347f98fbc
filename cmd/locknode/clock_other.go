//go:build unix && !linux

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// watchClock reads the clock that run and its watchdog share.
func watchClock() time.Duration { return readClock(unix.CLOCK_MONOTONIC) }

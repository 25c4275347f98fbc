//go:build !linux

package client

import "time"

var started = time.Now()

// now reads Go's monotonic clock, which may stop while the machine is
// suspended: a holder that sleeps on such a system is protected by its token.
func now() time.Duration { return time.Since(started) }

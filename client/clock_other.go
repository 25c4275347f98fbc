//go:build !linux

package client

import "time"

var started = time.Now()

// now reads Go's monotonic clock, which may stop while the machine is
// suspended: on such a system only the token protects against that.
func now() time.Duration { return time.Since(started) }

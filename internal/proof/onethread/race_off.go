//go:build !race

package onethread

// Race says that the race detector is on.
const Race = false

// UnderRace does nothing without the race detector.
func UnderRace() {}

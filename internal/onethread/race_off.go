//go:build !race

package onethread

// UnderRace does nothing without the race detector.
func UnderRace() {}

//go:build !race

package racedetector

// On says that the race detector is on.
const On = false

// OneThread does nothing without the race detector.
func OneThread() {}

// ComplainsOfRaft says that a change of a member's address is reported as a race.
func ComplainsOfRaft() bool { return false }

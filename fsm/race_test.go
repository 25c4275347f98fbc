//go:build race

package fsm

// underRace says that the race detector makes everything many times slower.
const underRace = true

//go:build !race

package integration

// raceDetector tells whether the tests, and so the program, are built with it.
const raceDetector = false

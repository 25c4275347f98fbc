//go:build race

package locktest_test

// raceDetector reports whether the tests are built with it: it allows 8,128 goroutines.
const raceDetector = true

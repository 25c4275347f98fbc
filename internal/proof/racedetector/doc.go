// Package racedetector is what tests have to know of the race detector: a crash in
// testing/synctest bubbles that they avoid, and a report about Raft that is known.
//
// Files: race_on.go has both; race_off.go does nothing; suppressions is for GORACE.
package racedetector

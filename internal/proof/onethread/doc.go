// Package onethread works around a crash of the race detector in testing/synctest bubbles.
//
// Files: race_on.go says what is worked around, and how; race_off.go does nothing.
package onethread

// Package onethread works around a crash of the race detector in testing/synctest bubbles.
//
// Files: race_on.go explains the crash and works around it; race_off.go does nothing.
package onethread

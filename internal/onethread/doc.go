// Package onethread keeps the race detector alive in testing/synctest bubbles.
package onethread

// Package stalls tells when this process was kept from running. It needs next to
// nothing for that, so the machine was busy with other things, and what was
// measured meanwhile says little.
//
// Objects: a [Log] has the stalls that its Watch has seen.
//
// Goroutines: none of its own; Watch runs on the caller's.
package stalls

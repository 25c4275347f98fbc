// Package stalls records when this process was kept from running although it needed hardly any
// CPU time. The machine was busy with other things then, and measurements of that time say
// little.
//
// Objects: a [Log] has the stalls that its Watch has seen.
//
// Goroutines: none of its own; Watch runs on the caller's.
//
// Files: stalls.go is all of it.
package stalls

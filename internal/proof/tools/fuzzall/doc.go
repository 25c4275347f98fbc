// Fuzzall runs every fuzz target of the module for a given time, two at a time,
// and prints what each of them has done.
//
//	go run ./internal/proof/tools/fuzzall -time 30s
//	go run ./internal/proof/tools/fuzzall -time 10m -run 'Frames|Answers'
//
// It fails if a target fails, and then names the file that holds the input; if
// one executes nothing, hangs, or does not stop; and if there are no targets: a
// run that has looked at nothing must not look like one that has found nothing.
//
// Targets are found in the source, in the files that the current platform
// builds. Each package is built once. A target gets one worker, so that a
// machine runs as many targets at once as -jobs says and no more.
//
// Files: main.go has the flags and the report; find.go finds targets; run.go runs one.
package main

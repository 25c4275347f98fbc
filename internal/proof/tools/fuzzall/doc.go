// Fuzzall runs every fuzz target of the module for a given time, two at a time,
// and prints the number of executions of each.
//
//	go run ./internal/proof/tools/fuzzall -time 30s
//	go run ./internal/proof/tools/fuzzall -time 10m -run 'Frames|Answers'
//
// It fails if a target fails, and then names the file with the input; if one
// executes nothing, hangs, or does not stop; and if there are no targets, because
// a run that has tested nothing must not look like one without a failure.
//
// Targets are found in the source, in the files that the current platform
// builds. Each package is built once. A target gets one worker, so that a
// machine runs as many targets at once as -jobs says and no more.
//
// Files: main.go has the flags and the report; find.go finds targets; run.go runs one.
package main

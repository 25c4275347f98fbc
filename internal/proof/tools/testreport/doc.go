// Testreport reads the output of go test -json, and prints a report.
//
//	go test -json ./... | go run ./internal/proof/tools/testreport
//
// While tests run it prints a line for each package that is done. At the end it prints
// the slowest tests, why tests were skipped, and last of all what each test that has
// failed has printed: so the end of a long log names the test, its file and its line.
// A test that was running when its package ended, as after a panic or a time limit,
// counts as failed.
//
// It exits with 1 if a test has failed, and if there was no input: a run in which
// nothing was tested must not look like a success. The exit code of go test is lost in
// a pipe, so use pipefail as well.
//
// Files: main.go reads and exits; report.go keeps and prints what was read.
package main

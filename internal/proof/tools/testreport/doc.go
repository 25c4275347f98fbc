// Testreport reads what go test -json prints, and tells a person about it.
//
//	go test -json ./... | go run ./internal/proof/tools/testreport
//
// While tests run it prints a line for each package that is done. At the end it prints
// the slowest tests, why tests were skipped, and last of all what each test that has
// failed has printed: so the end of a long log names the test, its file and its line.
// A test that was running when its package ended, as after a panic or a time limit,
// counts as failed.
//
// It exits with 1 if anything has failed, and if there was nothing to read: a run in
// which nothing was tested must not look like one in which all is well. The exit code
// of go test is lost in a pipe, so use pipefail as well.
//
// Files: main.go reads and exits; report.go keeps and prints what was read.
package main

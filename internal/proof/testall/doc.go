// Package testall decides which tests run.
//
// There are three amounts:
//
//   - go test -short ./... leaves out tests that need processes, or take long;
//   - go test ./... is to be run before each commit, and takes a few minutes;
//   - TEST_ALL=1 go test ./... (make test-all, and .ci/run) runs everything.
//
// A test that calls [Only] belongs to the last one. Such a test repeats what a cheaper
// test proves, or takes minutes for something that seldom breaks: it builds many
// programs, or runs for hours of virtual time. No test that is needed to find a fault
// in an ordinary change is only there.
//
// It is an environment variable and not a flag, because every package that ./... names
// would have to define the flag, and not a build tag, because all tests must always be
// compiled, vetted and linted. Go's test cache includes the variable: a result without
// it is not used for a run with it.
//
// Files: testall.go has the variable and the functions that read it; slice.go takes a part
// of a long list, a different one each day.
package testall

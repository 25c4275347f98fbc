// Package testall decides which tests run.
//
// There are three amounts:
//
//   - go test -short ./... leaves out what needs processes, or takes long;
//   - go test ./... is what a developer runs before each commit, in a few minutes;
//   - TEST_ALL=1 go test ./... (make test-all, and .ci/run) is everything.
//
// A test that calls [Only] belongs to the last one. Such a test repeats on a longer
// road what a cheaper test proves, or needs minutes for what seldom breaks: it builds
// many programs, or runs for hours of virtual time. Nothing is only there that is
// needed to find a fault in an ordinary change.
//
// It is an environment variable and not a flag, because a flag would have to be known
// to every package that ./... names, and not a build tag, because all tests must be
// compiled, vetted and linted by everybody. Go's test cache knows the variable: a
// result without it is not taken for one with it.
//
// Files: testall.go has the variable and what reads it; slice.go takes a part of a long
// list, another one each day.
package testall

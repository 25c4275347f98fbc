// Package testall decides which tests run, and how many at once.
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
// TEST_SEED=N has the random cases of a run come from N: .ci/run sets it to a number
// that the files of the checkout determine, so that what fails there fails again where
// the same files are tested, and other files are tested with other cases. Goroutines,
// processes and Go's fuzzing stay as random as they are.
//
// They are environment variables and not flags, because every package that ./... names
// would have to define the flag, and not a build tag, because all tests must always be
// compiled, vetted and linted. Go's test cache includes them: a result without
// one is not used for a run with it.
//
// Files: testall.go has the variable and the functions that read it; seed.go says
// what random cases come from, and takes a part of a long list, a different one each turn;
// atonce.go says how many tests of a package that mostly waits run at once.
package testall

package testall

import (
	"os"
	"testing"
)

// Variable is what has everything run, if it is set to anything.
const Variable = "TEST_ALL"

// On reports whether everything is to run.
func On() bool { return os.Getenv(Variable) != "" && !testing.Short() }

// Only skips a test that is run with everything only. The reason says what makes it
// long, and what proves the same without it.
func Only(t testing.TB, why string) {
	t.Helper()
	if !On() {
		t.Skipf("left to make test-all (%s=1): %s", Variable, why)
	}
}

// Pick returns the first number where everything is to run, and the second otherwise.
func Pick[T any](all, usual T) T {
	if On() {
		return all
	}
	return usual
}

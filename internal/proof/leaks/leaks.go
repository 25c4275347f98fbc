package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is for goroutines that nobody waits for and that end by themselves: memberlist's
// Shutdown does not wait for its probes, which take some hundred milliseconds, and some
// seconds if the peer does not exist. A busy machine takes longer.
const patience = time.Minute

// Run runs the tests, and returns the exit code for TestMain.
func Run(m *testing.M) (code int) {
	if code = m.Run(); code != 0 {
		return code
	}
	if err := Wait(patience); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Wait waits until no goroutine but those of the caller and of testing is left. It returns
// an error that shows the others after a time.
func Wait(most time.Duration) error {
	for deadline := time.Now().Add(most); ; {
		err := goleak.Find() // waits for half a second
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

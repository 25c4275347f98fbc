//go:build race

package racedetector

import (
	"os"
	"runtime"
	"strings"
)

// On says that the race detector is on.
const On = true

// OneThread is to be called before timers fire in a bubble. In Go 1.25 and 1.26 the
// race detector crashes, now and then, when two of a bubble's timers fire on two
// threads at once: https://go.dev/issue/78156. From here on the program's Go code
// therefore has one thread. That hides no race: what counts is which accesses
// synchronization puts in order, not which happen at the same moment.
func OneThread() {
	if runtime.GOMAXPROCS(0) > 1 {
		runtime.GOMAXPROCS(1)
	}
}

// ComplainsOfRaft says that a change of a member's address is reported as a race, and
// tests that change one have to be skipped.
//
// In raft v1.8.0, updateLastAppended reads the member's ID beside the write of ID and
// address. The ID is the same before and after, byte for byte and in length, so that
// what is read is right. The file suppressions keeps the detector from reporting it, but only
// the environment can say so, before the program begins: GORACE=suppressions=FILE.
// .ci/run and make race do.
func ComplainsOfRaft() bool {
	return !strings.Contains(os.Getenv("GORACE"), "suppressions=")
}

//go:build race

package onethread

import "runtime"

// UnderRace is to be called before timers fire in a bubble. In Go 1.25 and 1.26 the
// race detector crashes, now and then, when two of a bubble's timers fire on two
// threads at once: https://go.dev/issue/78156. From here on the program's Go code
// therefore has one thread. That hides no race: what counts is which accesses
// synchronization puts in order, not which happen at the same moment.
func UnderRace() {
	if runtime.GOMAXPROCS(0) > 1 {
		runtime.GOMAXPROCS(1)
	}
}

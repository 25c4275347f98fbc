//go:build race

package onethread

import "runtime"

// Race says that the race detector is on.
//
// It complains of raft v1.8.0 when the address of a member is changed in the
// configuration while entries are sent to it: updateLastAppended reads the member's ID
// beside the write of ID and address. The ID is the same before and after, byte for byte
// and in length, so that what is read is right. Tests in which addresses change under
// load leave out the detector.
const Race = true

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

//go:build unix

package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// group is the process group of a child, named so that it cannot be mistaken for
// another one.
//
// Its number alone is ours for as long as its leader has not been reaped or
// anything else of it is left: the kernel gives a number away again only when no
// process and no group has it. Who looks from outside can miss that moment. On
// Linux the leader's pidfd stands for the group whatever becomes of its number,
// if the kernel is 6.9 or newer. Elsewhere the number has to do, and nothing is
// sent any more once it was seen to be free; for another group to be hit, all
// numbers there are would have to be used up between two looks.
type group struct {
	id    int // its number, which is its leader's
	pidfd int // of its leader, -1 if there is none
}

// signal sends a signal to everything in the group. It fails with ESRCH if nothing
// is left.
func (g group) signal(s syscall.Signal) error {
	if g.pidfd >= 0 {
		err := signalPidfdGroup(g.pidfd, s)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		} // or it is an older kernel
	}
	return unix.Kill(-g.id, s)
}

// terminate asks everything in the group to end.
func (g group) terminate() {
	g.send(syscall.SIGTERM)
	g.send(syscall.SIGCONT) // or a stopped process would not hear it
}

// send is signal for those who expect that nobody may be left.
func (g group) send(s syscall.Signal) { _ = g.signal(s) }

// alive reports whether anything of the group runs, or is stopped. What has ended
// and waits for its parent to take note does not count: where process 1 of a
// container takes no note of anybody, that is for ever.
func (g group) alive() bool {
	if errors.Is(g.signal(0), unix.ESRCH) {
		return false
	}
	running, known := runningInGroup(g.id)
	return running || !known
}

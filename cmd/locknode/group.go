//go:build unix

package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// group is the process group of a child, identified so that no other group is signalled by
// mistake.
//
// The kernel reuses the number of a group only when no process and no group has it: not
// before its leader has been reaped and all other members have ended. A process outside the
// group can miss that moment. On Linux 6.9 and newer, the leader's pidfd identifies the group
// even if its number is used again. Elsewhere only the number is known, and no signal is sent
// once the number was found unused: to hit another group, the kernel would have to go
// through all numbers between two checks.
type group struct {
	id    int // the number of the group, which is its leader's process ID
	pidfd int // of the leader, -1 if there is none
}

// signal sends a signal to all processes of the group. It fails with ESRCH if none is left.
func (g group) signal(s syscall.Signal) error {
	if g.pidfd >= 0 {
		err := signalPidfdGroup(g.pidfd, s)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		} // an older kernel: use the number
	}
	return unix.Kill(-g.id, s)
}

// terminate sends TERM to all processes of the group.
func (g group) terminate() {
	g.send(syscall.SIGTERM)
	g.send(syscall.SIGCONT) // a stopped process handles TERM only when it continues
}

// send is signal without the error: the group may have ended.
func (g group) send(s syscall.Signal) { _ = g.signal(s) }

// alive reports whether a process of the group runs or is stopped. A zombie does not count:
// in a container whose process 1 reaps nothing, it stays for ever.
func (g group) alive() bool {
	if errors.Is(g.signal(0), unix.ESRCH) {
		return false
	}
	running, known := runningInGroup(g.id)
	return running || !known
}

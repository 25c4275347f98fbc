package main

import "syscall"

// childAttributes put the child into its own process group, in the foreground of
// the terminal if it is to have it, and have pidfd set if the kernel can. The
// child gets TERM from the kernel at the moment in which locknode dies without a
// chance to act, since nobody keeps its lock alive from then on; the watchdog tells
// the rest of its group.
//
// The kernel sends it again whenever the child gets another parent: first that is
// another thread of locknode, if one has not noticed yet that it was killed. So the
// child can get TERM two or three times within milliseconds. Nobody outside can
// choose otherwise; to leave it to the watchdog alone would leave a command running
// where both are killed, which is worse.
func childAttributes(terminal bool, tty int, pidfd *int) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, PidFD: pidfd}
	if terminal {
		attributes.Foreground, attributes.Ctty = true, tty
	}
	return attributes
}

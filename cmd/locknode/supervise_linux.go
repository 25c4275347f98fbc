package main

import "syscall"

// childAttributes put the child into its own process group, in the foreground of the
// terminal if the child is to have it, and set pidfd if the kernel can. When locknode is
// killed, the kernel sends TERM to the child, because nothing keeps its lock alive any more;
// the watchdog sends TERM to the rest of the group.
//
// The kernel sends TERM again whenever the child gets another parent. The first new parent
// can be another thread of locknode that has not exited yet, so the child can get TERM two
// or three times within milliseconds. That cannot be changed. The alternative, to leave TERM
// to the watchdog alone, is worse: if both were killed, the command would run on.
func childAttributes(terminal bool, tty int, pidfd *int) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, PidFD: pidfd}
	if terminal {
		attributes.Foreground, attributes.Ctty = true, tty
	}
	return attributes
}

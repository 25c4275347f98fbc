package main

import "syscall"

// childAttributes put the child into its own process group, in the foreground of
// the terminal if it is to have it. The child gets TERM when locknode dies
// without a chance to act, since nobody keeps its lock alive from then on.
func childAttributes(terminal bool, tty int) *syscall.SysProcAttr {
	if !terminal {
		return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Foreground: true, Ctty: tty}
}

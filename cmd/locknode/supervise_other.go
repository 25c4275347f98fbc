//go:build unix && !linux

package main

import "syscall"

// childAttributes put the child into its own process group, in the foreground of
// the terminal if the child is to have it.
func childAttributes(terminal bool, tty int, _ *int) *syscall.SysProcAttr {
	if !terminal {
		return &syscall.SysProcAttr{Setpgid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: tty}
}

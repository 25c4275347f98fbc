package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func signalPidfdGroup(int, syscall.Signal) error { return unix.ENOSYS }

// stateZombie is SZOMB of <sys/proc.h>: the process has ended and is not reaped.
const stateZombie = 5

// runningInGroup reports whether a process of the group has not ended.
func runningInGroup(id int) (running, known bool) {
	members, err := unix.SysctlKinfoProcSlice("kern.proc.pgrp", id)
	if err != nil {
		return false, false
	}
	for _, m := range members {
		if m.Proc.P_stat != stateZombie {
			return true, true
		}
	}
	return false, true
}

// terminateOrphans sends TERM to all processes of a group whose locknode is gone.
func (g group) terminateOrphans() { g.terminate() }

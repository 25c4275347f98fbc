//go:build unix && !linux && !darwin

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func signalPidfdGroup(int, syscall.Signal) error { return unix.ENOSYS }

// runningInGroup has no way to find out on this system.
func runningInGroup(int) (running, known bool) { return false, false }

// terminateOrphans sends TERM to all processes of a group whose locknode is gone.
func (g group) terminateOrphans() { g.terminate() }

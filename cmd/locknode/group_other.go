//go:build unix && !linux && !darwin

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func signalPidfdGroup(int, syscall.Signal) error { return unix.ENOSYS }

// runningInGroup does not know.
func runningInGroup(int) (running, known bool) { return false, false }

// terminateOrphans asks everything in the group to end whose locknode is gone.
func (g group) terminateOrphans() { g.terminate() }

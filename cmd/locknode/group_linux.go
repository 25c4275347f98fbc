package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func signalPidfdGroup(pidfd int, s syscall.Signal) error {
	return unix.PidfdSendSignal(pidfd, s, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
}

// runningInGroup reports whether a process of the group has not ended. known is false if
// /proc shows no processes.
func runningInGroup(id int) (running, known bool) {
	for pid := range processes {
		group, state, ok := processStat(pid)
		if !ok {
			continue // it has ended
		}
		known = true
		if group == id && state != 'Z' && state != 'X' {
			return true, true
		}
	}
	return false, known
}

// processes yields the IDs of all processes that /proc shows.
func processes(yield func(pid int) bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer func() { _ = proc.Close() }()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && !yield(pid) {
			return
		}
	}
}

// processStat returns the process group and the state of a process.
func processStat(pid int) (group int, state byte, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// pid (name) state parent group …, where the name may contain anything
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 || len(fields[0]) != 1 {
		return 0, 0, false
	}
	group, err = strconv.Atoi(string(fields[2]))
	return group, fields[0][0], err == nil
}

// terminateOrphans sends TERM to all processes of a group whose locknode is gone, except to
// the leader, which has TERM from the kernel.
func (g group) terminateOrphans() {
	for pid := range processes {
		if id, _, ok := processStat(pid); ok && id == g.id && pid != g.id {
			g.terminateMember(pid)
		}
	}
	g.send(syscall.SIGCONT)
}

// terminateMember sends TERM to a process if it is still in the group. The pidfd makes sure
// that the number has not gone to another process in between.
func (g group) terminateMember(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) {
			_ = unix.Kill(pid, syscall.SIGTERM)
		}
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if id, _, ok := processStat(pid); ok && id == g.id {
		_ = unix.PidfdSendSignal(fd, syscall.SIGTERM, nil, 0)
	}
}

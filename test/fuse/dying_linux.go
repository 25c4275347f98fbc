package faultfs

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dying reports whether a thread is gone or has been killed. The kernel tells a
// file system about every signal, and a Go program gets many; but only the one that
// kills ends an operation that hangs on a disk. Thread 0 is the kernel itself.
func dying(thread uint32) bool {
	if thread == 0 {
		return false
	}
	f, err := os.Open("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return os.IsNotExist(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	const kill = 1 << (syscall.SIGKILL - 1)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if pending, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil && pending&kill != 0 {
			return true
		}
	}
	return false
}

//go:build unix && !linux

package proc

import "syscall"

// attributes of a node's process: its own process group, so that Ctrl-C at a
// terminal does not stop it with this process.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

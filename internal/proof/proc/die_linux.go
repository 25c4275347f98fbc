package proc

import "syscall"

// attributes of a node's process: its own process group, so that Ctrl-C at a
// terminal does not stop it with this process, and death with its parent's thread.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

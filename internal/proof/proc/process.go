//go:build unix

package proc

import (
	"os"
	"os/exec"
	"runtime"
)

// process is one life of a node or a helper.
type process struct {
	pid    int
	handle *os.Process
	exited chan struct{} // closed when the process has been reaped
	state  *os.ProcessState
}

// launchProcess starts a process; whatever else cmd needs is set by the caller.
// enter, if it is not nil, is called before that on the thread that starts it. done
// is called when it has been reaped, or was never started.
func launchProcess(cmd *exec.Cmd, enter func() error, done func()) (*process, error) {
	cmd.SysProcAttr = attributes()
	started := make(chan error)
	p := &process{exited: make(chan struct{})}
	go p.run(cmd, enter, done, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run owns one process from its start until it has been reaped.
func (p *process) run(cmd *exec.Cmd, enter func() error, done func(), started chan<- error) {
	// The process is killed when the thread that started it exits (see attributes), so this
	// thread is kept, and exits at the end.
	runtime.LockOSThread()
	defer done()
	if enter != nil {
		if err := enter(); err != nil {
			started <- err
			return
		}
	}
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.handle, p.pid = cmd.Process, cmd.Process.Pid
	started <- nil
	_ = cmd.Wait() // its exit is read from the state
	p.state = cmd.ProcessState
	close(p.exited)
}

func (p *process) over() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

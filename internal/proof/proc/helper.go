//go:build unix

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// Helper is a process beside the nodes, such as a client that is to be paused.
// It is killed when this process ends, and its output is collected in a file.
//
// Its methods may be called from several goroutines.
type Helper struct {
	Name    string
	process *process
	logPath string

	mu    sync.Mutex // guards stdin
	stdin io.WriteCloser
}

// HelperOptions say what a helper is.
type HelperOptions struct {
	Name    string // for messages
	Binary  string
	Args    []string
	LogPath string       // the file that collects what it prints
	Stdout  io.Writer    // takes its standard output, without delay; nil: LogPath does
	Enter   func() error // as of Options; nil: nothing
}

// StartHelper starts a helper.
func StartHelper(o HelperOptions) (*Helper, error) {
	h := &Helper{Name: o.Name, logPath: o.LogPath}
	log, err := os.OpenFile(o.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	cmd := exec.Command(o.Binary, o.Args...)
	cmd.Env = cleanEnvironment(os.Environ())
	cmd.Stdout, cmd.Stderr = log, log
	if o.Stdout != nil {
		cmd.Stdout = o.Stdout
	}
	if h.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", o.Name, err), log.Close())
	}
	if h.process, err = launchProcess(cmd, o.Enter, func() { _ = log.Close() }); err != nil { // it has its own descriptor
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	return h, nil
}

// PID is its process ID.
func (h *Helper) PID() int { return h.process.pid }

// Running reports whether it has not ended; one that is paused has not.
func (h *Helper) Running() bool { return !h.process.over() }

// Exited is closed when it has ended and been reaped.
func (h *Helper) Exited() <-chan struct{} { return h.process.exited }

// Tell writes a line to its standard input.
func (h *Helper) Tell(line string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := fmt.Fprintln(h.stdin, line); err != nil {
		return fmt.Errorf("tell %s %q: %w", h.Name, line, err)
	}
	return nil
}

// Pause stops it where it stands (SIGSTOP).
func (h *Helper) Pause() error { return h.signal(syscall.SIGSTOP) }

// Resume lets it go on (SIGCONT).
func (h *Helper) Resume() error { return h.signal(syscall.SIGCONT) }

// Kill ends it with SIGKILL and waits until it has been reaped.
func (h *Helper) Kill() error {
	if err := h.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-h.process.exited
	return nil
}

func (h *Helper) signal(sig syscall.Signal) error {
	if h.process.over() {
		return fmt.Errorf("send %v to %s: it is not running", sig, h.Name)
	}
	if err := h.process.handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s: %w", sig, h.Name, err)
	}
	return nil
}

// Finish closes its standard input, which asks it to end, and waits until it has.
// When ctx ends first it may still be running.
func (h *Helper) Finish(ctx context.Context) error {
	h.mu.Lock()
	_ = h.stdin.Close() // says only that it was closed before
	h.mu.Unlock()
	select {
	case <-h.process.exited:
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s: %w; its last lines:\n%s", h.Name, context.Cause(ctx), tail(h.logPath))
	}
	if code := h.process.state.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %v; its last lines:\n%s", h.Name, h.process.state, tail(h.logPath))
	}
	return nil
}

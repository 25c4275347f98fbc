//go:build unix

package faultdisk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrUnavailable says that file systems cannot be mounted here: the kernel has no
// FUSE, or this user no right to it. The rest of the message says which. Go on
// without.
var ErrUnavailable = errors.New("faulty disks are not available here")

const (
	exitCannotMount = 3 // of faultfs

	answerLimit = 30 * time.Second // for one command
	closeLimit  = 10 * time.Second // for unmounting

	abandonLimit = 100 * time.Millisecond // for the same, when nothing has been shown yet
)

// Disk is a running faultfs. Its methods may be called from several goroutines.
type Disk struct {
	Root  string // what is below
	Mount string // where it is shown

	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stderr  bytes.Buffer  // to be read when the process has ended
	answers chan string   // closed at the end of the output
	exited  chan struct{} // closed when the process has been reaped

	mu   sync.Mutex // held while a command waits for its answer
	lost bool       // an answer did not come: the next one would belong to an earlier command

	closeOnce sync.Once
	closeErr  error
}

// Start runs the program and waits until root is shown at mount; both must exist.
// ctx bounds only the waiting. On an error nothing is left behind; ErrUnavailable
// means that no call will succeed here.
func Start(ctx context.Context, binary, root, mount string) (*Disk, error) {
	d := &Disk{Root: root, Mount: mount, answers: make(chan string), exited: make(chan struct{})}
	d.cmd = exec.Command(binary, "--root", root, "--mount", mount)
	d.cmd.Stderr = &d.stderr
	// Not in this process's group, so that Ctrl-C does not unmount a disk in use.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start faulty disk: %w", err)
	}
	d.stdin = stdin
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start faulty disk: %w", err)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start faulty disk: %w", err)
	}
	go d.listen(stdout)
	select {
	case line, ok := <-d.answers:
		if ok && line == "ready" {
			return d, nil
		}
		err = d.ended(line)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = d.close(abandonLimit) // what is wrong is known
	return nil, fmt.Errorf("start faulty disk at %s: %w", mount, err)
}

// listen reads the answers, and reaps the process.
func (d *Disk) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		d.answers <- lines.Text()
	}
	close(d.answers)
	_ = d.cmd.Wait() // how it ended is read from its state
	close(d.exited)
}

// ended returns why the process has ended, or what it printed in place of an answer.
func (d *Disk) ended(said string) error {
	if said != "" {
		return fmt.Errorf("faultfs says %q", said)
	}
	<-d.exited // its output has ended
	why := strings.TrimSpace(d.stderr.String())
	if d.cmd.ProcessState.ExitCode() == exitCannotMount {
		return fmt.Errorf("%w: %s", ErrUnavailable, why)
	}
	return fmt.Errorf("faultfs ended with %v: %s", d.cmd.ProcessState, why)
}

// Do gives a command, such as "fail fsync EIO 1", and waits until it has taken
// effect. It returns what the command says, JSON or nothing. `faultfs --help`
// lists the commands. An error that is not about the command itself means that the
// disk has to be closed.
func (d *Disk) Do(command string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer, err := d.ask(command)
	if err != nil {
		return "", fmt.Errorf("faulty disk %s: %s: %w", d.Mount, command, err)
	}
	return answer, nil
}

func (d *Disk) ask(command string) (string, error) {
	if strings.Contains(command, "\n") {
		return "", errors.New("the command has several lines: want one")
	}
	if d.lost {
		return "", errors.New("an earlier command was not answered")
	}
	if _, err := io.WriteString(d.stdin, command+"\n"); err != nil {
		return "", err
	}
	timer := time.NewTimer(answerLimit)
	defer timer.Stop()
	select {
	case line, ok := <-d.answers:
		if !ok {
			return "", d.ended("")
		}
		if why, is := strings.CutPrefix(line, "error: "); is {
			return "", errors.New(why)
		}
		rest, is := strings.CutPrefix(line, "ok")
		if !is {
			return "", d.ended(line)
		}
		return strings.TrimSpace(rest), nil
	case <-timer.C:
		d.lost = true
		return "", fmt.Errorf("not answered within %v", answerLimit)
	}
}

// Close ends all faults, lets go what hangs, and unmounts; what was written stays
// in Root. End the processes that use the disk before. A second call returns what
// the first did.
func (d *Disk) Close() error {
	d.closeOnce.Do(func() { d.closeErr = d.close(closeLimit) })
	return d.closeErr
}

func (d *Disk) close(limit time.Duration) error {
	_ = d.stdin.Close() // tells the process to end; fails if it has
	go func() {         // answers that nobody waits for
		for range d.answers {
			continue
		}
	}()
	var err error
	select {
	case <-d.exited:
	case <-time.After(limit):
		err = fmt.Errorf("faultfs did not unmount within %v", limit)
		_ = d.cmd.Process.Kill() // fails if it has ended by now
		<-d.exited
	}
	if err == nil && !d.cmd.ProcessState.Success() {
		err = d.ended("")
	}
	// A process that was killed leaves a mount behind that answers nothing.
	unmount(d.Mount)
	if err != nil {
		return fmt.Errorf("close faulty disk %s: %w", d.Mount, err)
	}
	return nil
}

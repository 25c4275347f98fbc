//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a command that runs under a lock, in a process group of its own.
//
// Job control: when locknode's standard input and output are a terminal, the
// group gets the terminal at once; otherwise it gets it when it asks for it
// (SIGTTIN, SIGTTOU). When a stop typed at the terminal has stopped the child,
// locknode stops as well, so that the shell is back, and goes on with the child
// when the shell says so. Stopped processes keep nothing alive: the lock is then
// lost after its TTL, and the watchdog ends the child.
type child struct {
	group
	tty      int  // descriptor of the session's terminal, -1 if it has none
	terminal bool // the child's group has the terminal, or had it when it stopped
	say      func(format string, args ...any)
	dog      *watchdog // nil: none

	changes chan unix.WaitStatus // stops, and at last its end
}

// ended says how a child ended.
type ended struct {
	status unix.WaitStatus
	lost   bool // the lock was lost before
	hung   bool // the watchdog has ended it
}

// code is the exit code for a child that was not told to end: its own, or
// 128+N where signal N killed it.
func (e ended) code() int {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal())
	}
	return e.status.ExitStatus()
}

// forwarded signals go to the child's group. Those that were ignored when
// locknode started, as under nohup, stay ignored for both.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
}

// notifyForwarded has the signals to be forwarded delivered to a channel.
func notifyForwarded(signals chan os.Signal) { notify(signals, forwarded) }

// startChild starts a command with locknode's own standard files. dog watches it
// from then on, and is the caller's to say farewell to.
func startChild(path string, args, env []string, say func(string, ...any), dog *watchdog) (*child, error) {
	c := &child{group: group{pidfd: -1}, tty: openTerminal(), say: say, dog: dog, changes: make(chan unix.WaitStatus)}
	c.terminal = c.foreground() && isTerminal(os.Stdin) && isTerminal(os.Stdout)
	cmd := &exec.Cmd{
		Path: path, Args: args, Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: childAttributes(c.terminal, c.tty, &c.pidfd),
	}
	started := make(chan error)
	go c.own(cmd, started)
	if err := <-started; err != nil {
		return nil, err
	}
	// From here on locknode may have to take the terminal back while another
	// group has it, which would stop it. Not earlier: the child would inherit it.
	signal.Ignore(syscall.SIGTTOU)
	return c, nil
}

// own starts the process and reports its changes until it has been reaped. The
// process is told when the thread that started it dies, so the thread is kept.
//
// It reaps everything else that is or becomes a child, too: as process 1 of a
// container locknode is given what others leave behind.
func (c *child) own(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	c.dog.tellTime()
	err := cmd.Start()
	running := err == nil
	if running {
		c.id = cmd.Process.Pid
		c.dog.tellGroup(c.group)
		_ = cmd.Process.Release() // waited for below, because Wait tells nothing of stops
	}
	started <- err
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD) && !running:
			return
		case err != nil:
			panic(fmt.Sprintf("wait for child %d: %v", c.id, err))
		case pid == c.id && running:
			running = status.Stopped()
			c.changes <- status
		default:
			c.dog.reaped(pid, status)
		}
	}
}

// supervise returns when the child has been reaped. It forwards signals, and
// when lost is closed it ends the child's group: with TERM, and with KILL if
// anything of it is left after killAfter.
func (c *child) supervise(signals <-chan os.Signal, lost <-chan struct{}, killAfter time.Duration) ended {
	var kill <-chan time.Time
	var deadline time.Time
	end := ended{}
	beats, stop := c.dog.beats()
	defer stop()
	died := c.dog.died()
	for {
		select {
		case <-beats:
			c.dog.tellTime()
		case <-died:
			if died = nil; !c.dog.acted() {
				c.say("the watchdog has ended (%s): if locknode is killed as well, the command runs on without the lock", c.dog.end())
			}
		case <-lost:
			lost, end.lost = nil, true
			c.dog.tellTime()
			c.terminate()
			deadline = time.Now().Add(killAfter)
			kill = time.After(killAfter)
			c.say("the lock is lost: TERM was sent to the command, KILL follows after %v", killAfter)
		case <-kill:
			c.send(syscall.SIGKILL)
			c.say("the command did not end within %v of TERM: KILL was sent", killAfter)
		case s := <-signals:
			if s == syscall.SIGCONT && c.terminal && c.foreground() {
				c.giveTerminal() // as it was before the job was stopped
			}
			c.send(s.(syscall.Signal))
			if s == syscall.SIGTERM {
				c.dog.tellWarned()
			}
		case status := <-c.changes:
			if status.Stopped() {
				c.stopped(status.StopSignal())
				continue
			}
			end.status = status
			c.reclaimTerminal()
			if end.lost {
				c.sweep(deadline)
			} else {
				end.lost = isClosed(lost)
			}
			return end
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sweepEvery is how often one looks for what is left of a group: there is nothing
// to wait on.
const sweepEvery = 5 * time.Millisecond

// sweep waits until nothing is left of the group, whose leader has been reaped,
// and kills what is left at the deadline.
func (c *child) sweep(deadline time.Time) {
	for c.alive() {
		if time.Now().After(deadline) {
			c.send(syscall.SIGKILL)
			return
		}
		time.Sleep(sweepEvery)
	}
}

// stopped is called when the child has stopped.
func (c *child) stopped(s syscall.Signal) {
	switch {
	case s == syscall.SIGSTOP:
		return // by somebody who will send SIGCONT; the lock is kept
	case s != syscall.SIGTSTP && c.foreground():
		c.giveTerminal() // which is what it wants
		c.send(syscall.SIGCONT)
		return
	case c.tty < 0 || orphaned():
		if s == syscall.SIGTSTP {
			c.send(syscall.SIGCONT) // there is no shell to do it later
		}
		return
	}
	had := c.terminal
	c.reclaimTerminal()
	c.terminal = had // to be given again
	c.say("stopped; while it is, the lock is not kept alive: it runs out after its TTL, and the command is ended")
	// The whole job, as Ctrl-Z does it. Not with SIGTSTP: Go does not give a signal
	// that it has once caught its default action back.
	_ = unix.Kill(0, syscall.SIGSTOP)
}

// Terminals.

// openTerminal opens the terminal of this session and never closes it.
func openTerminal() int {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1
	}
	return fd
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil
}

// foreground reports whether locknode's own group has the terminal.
func (c *child) foreground() bool {
	if c.tty < 0 {
		return false
	}
	group, err := unix.IoctlGetInt(c.tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func (c *child) giveTerminal() {
	if err := unix.IoctlSetPointerInt(c.tty, unix.TIOCSPGRP, c.id); err == nil {
		c.terminal = true
	}
}

// reclaimTerminal takes the terminal back if the child's group has it.
func (c *child) reclaimTerminal() {
	if c.tty < 0 {
		return
	}
	if group, err := unix.IoctlGetInt(c.tty, unix.TIOCGPGRP); err == nil && group == c.id {
		_ = unix.IoctlSetPointerInt(c.tty, unix.TIOCSPGRP, unix.Getpgrp())
	}
	c.terminal = false
}

// orphaned reports whether no shell of this session could continue us.
func orphaned() bool {
	own, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	parents, err := unix.Getsid(unix.Getppid())
	return err != nil || own != parents
}

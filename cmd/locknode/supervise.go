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
// Job control: if locknode's standard input and output are a terminal, the group
// gets the terminal at the start; otherwise when it asks for it (SIGTTIN, SIGTTOU).
// If Ctrl-Z has stopped the child, locknode stops as well, so that the shell gets
// the terminal back, and continues the child when the shell continues locknode.
// A stopped locknode sends no keep-alives: the lock is lost after its TTL, and the
// watchdog ends the child.
type child struct {
	group
	tty      int  // descriptor of the session's terminal, -1 if it has none
	terminal bool // the child's group has the terminal, or had it when it stopped
	say      func(format string, args ...any)
	dog      *watchdog // nil: none

	changes chan unix.WaitStatus // each stop, and last its end
}

// ended says how a child ended.
type ended struct {
	status unix.WaitStatus
	lost   bool // the lock was lost before
	hung   bool // the watchdog ended it
}

// code is the exit code of a child: its own, or 128+N if signal N killed it.
func (e ended) code() int {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal())
	}
	return e.status.ExitStatus()
}

// forwarded are the signals that are forwarded to the child's group. A signal that was
// ignored when locknode started, as under nohup, stays ignored for both.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
}

// notifyForwarded delivers the forwarded signals to a channel.
func notifyForwarded(signals chan os.Signal) { notify(signals, forwarded) }

// startChild starts a command with locknode's own standard files. From then on dog watches
// it; the caller has to end dog with farewell.
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
	// From now on locknode may take the terminal back while another group has it, for which
	// SIGTTOU would stop it. It is not ignored earlier, because the child would inherit that.
	signal.Ignore(syscall.SIGTTOU)
	return c, nil
}

// own starts the process and reports its changes until it has been reaped. It keeps its
// thread, because the kernel sends the child TERM when the thread that started it exits.
//
// It also reaps every other child: as process 1 of a container, locknode is the parent of
// all orphans.
func (c *child) own(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	c.dog.tellTime()
	err := cmd.Start()
	running := err == nil
	if running {
		c.id = cmd.Process.Pid
		c.dog.tellGroup(c.group)
		_ = cmd.Process.Release() // the loop below waits for it, because Wait does not report stops
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

// supervise forwards signals to the child's group, and returns when the child has been
// reaped. When lost is closed it ends the group: with TERM, and with KILL if a process of it
// is left after killAfter.
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
				c.say("the watchdog has ended (%s): if locknode is killed as well, the command will run on without the lock", c.dog.end())
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
				c.giveTerminal() // the child's group had it when the job was stopped
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

// sweepEvery is the pause between two looks at what is left of a group. Its processes are
// not all children of locknode, so it cannot wait for them.
const sweepEvery = 5 * time.Millisecond

// sweep waits until all processes of the group have ended, whose leader has been reaped. It
// kills those that are left at the deadline.
func (c *child) sweep(deadline time.Time) {
	for c.alive() {
		if time.Now().After(deadline) {
			c.send(syscall.SIGKILL)
			return
		}
		time.Sleep(sweepEvery)
	}
}

// stopped handles a stop of the child by signal s.
func (c *child) stopped(s syscall.Signal) {
	switch {
	case s == syscall.SIGSTOP:
		return // its sender will send SIGCONT; the lock is kept alive
	case s != syscall.SIGTSTP && c.foreground():
		c.giveTerminal() // it stopped because it does not have the terminal
		c.send(syscall.SIGCONT)
		return
	case c.tty < 0 || orphaned():
		if s == syscall.SIGTSTP {
			c.send(syscall.SIGCONT) // there is no shell that would continue it
		}
		return
	}
	had := c.terminal
	c.reclaimTerminal()
	c.terminal = had // the group gets it back on SIGCONT
	c.say("stopped; a stopped locknode does not keep the lock alive: it expires after its TTL, and the command is ended")
	// This stops the whole job, as Ctrl-Z does. SIGTSTP would not work: once Go has caught a
	// signal, it does not restore the default action.
	_ = unix.Kill(0, syscall.SIGSTOP)
}

// Terminals.

// openTerminal opens the terminal of this session. It stays open. Without a terminal it
// returns -1.
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

// orphaned reports whether locknode's parent is not in this session: then there is no shell
// that could continue a stopped job.
func orphaned() bool {
	own, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	parents, err := unix.Getsid(unix.Getppid())
	return err != nil || own != parents
}

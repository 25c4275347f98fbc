//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A watchdog ends the command of a locknode that cannot do so itself, because it was
// killed with KILL, is stopped, or hangs. Otherwise the command would still run when the
// next holder has the lock.
//
// The watchdog is a process of this executable in a session of its own, so that no
// terminal and no signal to a job reaches it. One end of a socket is the only
// descriptor that it inherits. Through the socket run sends lines:
//
//	until N    the lock is valid until the shared clock (watchClock) reads N
//	group N    the command's process group, with the leader's pidfd if there is one
//	warned N   run has sent TERM to the group already
//
// run sends a line every beat, from the loop that also handles signals and losses: as
// long as lines come, locknode works. The watchdog acts
//
//   - at once, if the socket is closed, because then locknode is gone;
//   - shortly before the lock expires, if lines have stopped coming;
//   - never, while lines come: run itself then handles a loss.
//
// It sends TERM, and then KILL after --kill-after or shortly before the lock expires,
// whichever is first. It sends KILL at once if the lock has expired, or if locknode is
// gone and had sent TERM already. (The latter happens if one run is within another:
// whatever ends the outer command sends the inner run TERM and later KILL, and may have
// no more time.) The watchdog exits after KILL, or when the group has ended. When the
// command has ended, run kills its watchdog, which is not needed any more.
//
// On Linux the kernel itself sends TERM to the group's leader when locknode is gone
// (supervise_linux.go), even if the watchdog is gone as well. The watchdog therefore
// does not send it to the leader: many programs exit at once at a second TERM, without
// cleaning up.

// watchdogMode is the first argument of a locknode that is a watchdog.
const watchdogMode = "__watchdog"

// rules are the times of a watchdog.
type rules struct {
	beat      time.Duration // between two lines
	margin    time.Duration // between the end of the group and that of the lock
	grace     time.Duration // between TERM and KILL, if lines have stopped coming
	killAfter time.Duration // between TERM and KILL at most
}

// missedBeats is how many lines must be missing before run counts as hung.
const missedBeats = 4

// rulesFor returns the rules for a TTL. Keep-alives are sent every third of it, so they
// extend the lock long before the watchdog would act on a lack of lines.
func rulesFor(ttl, killAfter time.Duration) rules {
	return rules{
		beat:      min(max(ttl/20, 25*time.Millisecond), 5*time.Second),
		margin:    min(max(ttl/10, 50*time.Millisecond), time.Second),
		grace:     min(killAfter, ttl/4),
		killAfter: killAfter,
	}
}

// watchdog is run's side of the socket.
type watchdog struct {
	rules
	certain func() time.Duration // how much longer the lock is valid; 0 or less: it is lost
	process *os.Process
	socket  int             // -1: closed
	ended   chan struct{}   // closed when the process has been reaped
	status  unix.WaitStatus // set before ended is closed
}

// startWatchdog starts the process. The goroutine that reaps children reports its end with
// reaped.
func startWatchdog(ttl, killAfter time.Duration, certain func() time.Duration) (*watchdog, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	self, err := ownExecutable()
	if err != nil {
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	cmd := &exec.Cmd{
		Path: self, Args: []string{"locknode", watchdogMode, ttl.String(), killAfter.String()},
		Dir:         "/",
		Env:         append(os.Environ(), "GOMAXPROCS=1"),
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		_ = unix.Close(ours)
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	return &watchdog{rules: rulesFor(ttl, killAfter), certain: certain, process: cmd.Process, socket: ours, ended: make(chan struct{})}, nil
}

// ownExecutable returns the path of this program. On Linux it is right even if the file was
// replaced meanwhile.
func ownExecutable() (string, error) {
	const linux = "/proc/self/exe"
	if _, err := os.Lstat(linux); err == nil {
		return linux, nil
	}
	return os.Executable()
}

// socketPair returns the two ends of a socket. Neither is inherited by other children.
func socketPair() (ours int, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds[0], os.NewFile(uintptr(fds[1]), "watchdog"), nil
}

// The methods below do nothing if there is no watchdog (nil).

// beats returns a channel that receives whenever a line is due.
func (w *watchdog) beats() (_ <-chan time.Time, stop func()) {
	if w == nil {
		return nil, func() {}
	}
	t := time.NewTicker(w.beat)
	return t.C, t.Stop
}

// died returns a channel that is closed when the watchdog has ended.
func (w *watchdog) died() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.ended
}

// reaped records the end of child pid, if that is the watchdog.
func (w *watchdog) reaped(pid int, status unix.WaitStatus) {
	if w != nil && pid == w.process.Pid && !status.Stopped() && !isClosed(w.ended) {
		w.status = status
		close(w.ended)
	}
}

// tellTime sends until when the lock is valid. The clock is read first, so that a pause in
// between makes the time earlier and never later.
func (w *watchdog) tellTime() {
	if w == nil {
		return
	}
	now := watchClock()
	until := time.Duration(0)
	if left := w.certain(); left > 0 {
		until = later(now, left)
	}
	w.send(fmt.Sprintf("until %d\n", until), -1)
}

func (w *watchdog) tellGroup(g group) {
	if w != nil {
		w.send(fmt.Sprintf("group %d\n", g.id), g.pidfd)
	}
}

// tellWarned sends that run has sent TERM to the group.
func (w *watchdog) tellWarned() {
	if w != nil {
		w.send("warned 1\n", -1)
	}
}

// send never blocks: a watchdog that does not read must not hang locknode. A watchdog that
// misses lines acts too early, and never too late.
func (w *watchdog) send(line string, fd int) {
	if w.socket < 0 {
		return
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	n, err := unix.SendmsgN(w.socket, []byte(line), rights, nil, unix.MSG_DONTWAIT)
	if err == nil && n < len(line) || errors.Is(err, unix.EPIPE) {
		w.hangUp() // the rest of a line cannot be sent later
	}
}

func (w *watchdog) hangUp() {
	_ = unix.Close(w.socket)
	w.socket = -1
}

// farewell kills the watchdog and waits until it has been reaped, for a second at most. It
// reports whether the watchdog had already ended the command.
func (w *watchdog) farewell() (acted bool) {
	if w == nil {
		return false
	}
	_ = w.process.Kill() // fails if it has ended already
	select {
	case <-w.ended:
		return w.acted()
	case <-time.After(time.Second): // the kernel ends it later
		return false
	}
}

// acted reports whether the watchdog ended the command. The watchdog must have ended.
func (w *watchdog) acted() bool { return w.status.Exited() && w.status.ExitStatus() == 0 }

// end says how a watchdog ended that did not act.
func (w *watchdog) end() string {
	if w.status.Signaled() {
		return w.status.Signal().String()
	}
	return "exit code " + strconv.Itoa(w.status.ExitStatus())
}

// later adds d to now, without overflow.
func later(now, d time.Duration) time.Duration {
	if sum := now + d; sum >= now {
		return sum
	}
	return 1<<63 - 1
}

func readClock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(fmt.Sprintf("read clock %d: %v", id, err)) // all supported systems have it
	}
	return time.Duration(ts.Nano())
}

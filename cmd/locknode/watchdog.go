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

// A watchdog ends a command whose locknode cannot do it any more: because it was
// killed with KILL, because it is stopped, or because it hangs. Otherwise the
// command would run on beside the next holder.
//
// It is a process of this executable in a session of its own, so that no terminal
// and no signal to a job reaches it. It has one end of a socket and nothing else
// that is open. Through the socket run sends lines:
//
//	until N    the lock is certain until the clock of both (watchClock) reads N
//	group N    the command's process group, with the leader's pidfd if there is one
//	warned N   run has sent the group TERM already
//
// A line comes every beat, from the loop that also acts on signals and losses: so
// lines say that locknode works. The watchdog acts
//
//   - when the socket is closed, because locknode is gone: at once;
//   - when lines have stopped coming: when the certain time is nearly over;
//   - never while lines come. What a loss means is run's own business then.
//
// It sends TERM and, after --kill-after but before the certain time is over, KILL;
// if that is over already, or locknode is gone and the group was warned, KILL at
// once. (So it is when one run is within another: what ends the outer command warns
// the inner run and then kills it, and may have no more time.) Then it ends, as it does when the group
// has. When the command has ended run kills its watchdog, which has nothing to do
// any more.
//
// On Linux the kernel itself sends TERM to the group's leader when locknode dies
// (supervise_linux.go), which also helps where the watchdog is gone. So it leaves
// the leader out then: to many programs a second TERM says that they shall not
// take their time.

// watchdogMode is the first argument of a locknode that is a watchdog.
const watchdogMode = "__watchdog"

// rules are the times of a watchdog.
type rules struct {
	beat      time.Duration // between two lines
	margin    time.Duration // the group is gone so long before the lock is uncertain
	grace     time.Duration // TERM comes so long before KILL, where time alone decides
	killAfter time.Duration // TERM comes at most so long before KILL
}

// missedBeats is how many lines may be missing before run counts as hung.
const missedBeats = 4

// rulesFor makes the rules of a TTL. Keep-alives, sent every third of it, move the
// end of the certain time long before the watchdog would act on time alone.
func rulesFor(ttl, killAfter time.Duration) rules {
	return rules{
		beat:      min(max(ttl/20, 25*time.Millisecond), 5*time.Second),
		margin:    min(max(ttl/10, 50*time.Millisecond), time.Second),
		grace:     min(killAfter, ttl/4),
		killAfter: killAfter,
	}
}

// watchdog is run's side.
type watchdog struct {
	rules
	certain func() time.Duration // how much longer the lock is certain; not positive: it is lost
	process *os.Process
	socket  int             // -1: not to be used any more
	ended   chan struct{}   // closed when it has been reaped
	status  unix.WaitStatus // once it has ended
}

// startWatchdog starts the process. Its end is noticed by whoever reaps children.
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

// ownExecutable is this program, also if its file was replaced meanwhile.
func ownExecutable() (string, error) {
	const linux = "/proc/self/exe"
	if _, err := os.Lstat(linux); err == nil {
		return linux, nil
	}
	return os.Executable()
}

// socketPair makes two ends that no child inherits by itself.
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

// The methods below do nothing where there is no watchdog.

// beats returns what says that the next line is due.
func (w *watchdog) beats() (_ <-chan time.Time, stop func()) {
	if w == nil {
		return nil, func() {}
	}
	t := time.NewTicker(w.beat)
	return t.C, t.Stop
}

// died returns what is closed at the watchdog's end.
func (w *watchdog) died() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.ended
}

// reaped notes the end of child pid, if that is the watchdog.
func (w *watchdog) reaped(pid int, status unix.WaitStatus) {
	if w != nil && pid == w.process.Pid && !status.Stopped() && !isClosed(w.ended) {
		w.status = status
		close(w.ended)
	}
}

// tellTime says how long the lock is certain. A pause within makes it less.
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

// tellWarned says that the group was sent TERM.
func (w *watchdog) tellWarned() {
	if w != nil {
		w.send("warned 1\n", -1)
	}
}

// send never waits: a watchdog that does not read must not hang its locknode. One
// that misses lines acts early rather than late.
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
		w.hangUp() // half a line cannot be completed
	}
}

func (w *watchdog) hangUp() {
	_ = unix.Close(w.socket)
	w.socket = -1
}

// farewell ends the watchdog, which has been reaped when it returns, and reports
// whether it was faster and has ended the command.
func (w *watchdog) farewell() (acted bool) {
	if w == nil {
		return false
	}
	_ = w.process.Kill() // or it has ended by itself
	select {
	case <-w.ended:
		return w.acted()
	case <-time.After(time.Second): // it cannot end yet, and will
		return false
	}
}

// acted reports whether a watchdog that has ended has ended the command.
func (w *watchdog) acted() bool { return w.status.Exited() && w.status.ExitStatus() == 0 }

// end says how a watchdog has ended that has not acted.
func (w *watchdog) end() string {
	if w.status.Signaled() {
		return w.status.Signal().String()
	}
	return "exit code " + strconv.Itoa(w.status.ExitStatus())
}

// later adds durations of which the second may be any.
func later(now, d time.Duration) time.Duration {
	if sum := now + d; sum >= now {
		return sum
	}
	return 1<<63 - 1
}

func readClock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(fmt.Sprintf("read clock %d: %v", id, err)) // all systems have it
	}
	return time.Duration(ts.Nano())
}

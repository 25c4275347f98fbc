//go:build unix

package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The watchdog's own side: see watchdog.go.

// watchdogSocket is the watchdog's descriptor of the socket.
const watchdogSocket = 3

// watchdogMain runs a watchdog and returns its exit code.
func watchdogMain(args []string) int {
	closeInherited()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	// Another name, so that killall locknode does not kill the watchdog as well. Only Linux
	// has the file.
	_ = os.WriteFile("/proc/self/comm", []byte("lock-watchdog"), 0)
	r, err := watchdogRules(args)
	if err != nil {
		return exitUsage
	}
	socket, err := watchdogConn()
	if err != nil {
		return exitUsage
	}
	lines := make(chan line)
	go readWatchdogLines(socket, lines)
	(&watch{rules: r, now: watchClock, lines: lines}).run()
	return 0
}

func watchdogRules(args []string) (rules, error) {
	if len(args) != 2 {
		return rules{}, errors.New("arguments: must be TTL and kill-after")
	}
	ttl, err := time.ParseDuration(args[0])
	killAfter, err2 := time.ParseDuration(args[1])
	return rulesFor(ttl, killAfter), errors.Join(err, err2)
}

// closeInherited closes the descriptors that locknode inherited from its parent, because
// somebody may wait for their end. It keeps those that this process opened itself, which
// have the close-on-exec flag.
func closeInherited() {
	dir := "/dev/fd"
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		dir = "/proc/self/fd"
	}
	names, err := filepath.Glob(dir + "/*")
	if err != nil {
		return
	}
	for _, name := range names {
		fd, err := strconv.Atoi(filepath.Base(name))
		if err != nil || fd <= watchdogSocket {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

func watchdogConn() (*net.UnixConn, error) {
	f := os.NewFile(watchdogSocket, "socket")
	if f == nil {
		return nil, os.ErrInvalid
	}
	defer func() { _ = f.Close() }()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, os.ErrInvalid
	}
	return socket, nil
}

// line is a line from the socket.
type line struct {
	verb  string
	value int64
	pidfd int // sent with the line, -1 if none was
}

// readWatchdogLines reads lines until the socket is closed, and then closes lines. It skips
// lines that it cannot parse.
func readWatchdogLines(socket *net.UnixConn, lines chan<- line) {
	defer close(lines)
	r := &rightsReader{socket: socket, pidfd: -1}
	for s := bufio.NewScanner(r); s.Scan(); {
		verb, rest, _ := strings.Cut(s.Text(), " ")
		value, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			continue
		}
		l := line{verb, value, -1}
		if verb == "group" {
			l.pidfd = r.pidfd
		}
		lines <- l
	}
}

// rightsReader reads a socket and keeps the last descriptor that was sent with the bytes.
type rightsReader struct {
	socket *net.UnixConn
	pidfd  int
}

func (r *rightsReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.socket.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, err
	}
	if n == 0 && oobn == 0 {
		return 0, net.ErrClosed
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, nil //nolint:nilerr // without the descriptor, the number of the group is used
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) > 0 {
			r.pidfd = fds[0]
		}
	}
	return n, nil
}

// watchedGroup is the command's process group as the watchdog uses it.
type watchedGroup interface {
	alive() bool
	send(s syscall.Signal)
	terminate()
	terminateOrphans()
}

// watch decides what a watchdog does, and when. It has no goroutine.
type watch struct {
	rules
	now   func() time.Duration // on the shared clock
	lines <-chan line

	group  watchedGroup  // nil: not known yet
	until  time.Duration // the lock is valid until then
	warned bool          // run has sent TERM to the group
	missed int           // beats without a line since the last one
}

// lookEvery is the pause between two checks whether the group has ended.
const lookEvery = 20 * time.Millisecond

// run returns when locknode is gone or hangs, and the group has been ended.
func (w *watch) run() {
	timer := time.NewTimer(w.beat)
	defer timer.Stop()
	for {
		select {
		case l, open := <-w.lines:
			if !open {
				w.finish(true)
				return
			}
			w.missed = 0
			w.take(l)
		case <-timer.C:
			// Beats are counted instead of measured: if the machine or this process was
			// stopped for a while, run still gets the time to send a line.
			w.missed++
		}
		if w.missed >= missedBeats && w.group != nil && w.now() >= w.until-w.margin-w.grace {
			w.finish(false)
			return
		}
		timer.Reset(w.beat)
	}
}

func (w *watch) take(l line) {
	switch l.verb {
	case "until":
		w.until = time.Duration(l.value)
	case "group":
		w.group = group{id: int(l.value), pidfd: l.pidfd}
	case "warned":
		w.warned = true
	}
}

// finish ends the group. orphaned says that locknode is gone.
func (w *watch) finish(orphaned bool) {
	if w.group == nil {
		return // nothing was started
	}
	now := w.now()
	end := min(later(now, w.killAfter), w.until-w.margin)
	if orphaned && w.warned {
		end = now
	}
	if now < end {
		if orphaned {
			w.group.terminateOrphans()
		} else {
			w.group.terminate()
		}
	}
	for w.now() < end {
		if !w.group.alive() {
			return
		}
		time.Sleep(min(lookEvery, end-w.now()))
	}
	// A process that forks while the signal is sent can leave a child, so KILL is repeated.
	for range killTries {
		w.group.send(syscall.SIGKILL)
		time.Sleep(lookEvery)
		if !w.group.alive() {
			return
		}
	}
}

// killTries bounds how often KILL is sent to a process that the kernel does not let end.
const killTries = 100

// hiddenMain runs a watchdog if this process was started as one.
func hiddenMain(args []string) (code int, hidden bool) {
	if len(args) > 1 && args[1] == watchdogMode {
		return watchdogMain(args[2:]), true
	}
	return 0, false
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchdogOf returns the process ID of the watchdog of a command.
func watchdogOf(t *testing.T, r *running) (pid string) {
	t.Helper()
	eventually(t, "it has a watchdog", func() bool {
		pid = findWatchdog(r.cmd.Process.Pid)
		return pid != ""
	})
	return pid
}

func findWatchdog(parent int) (pid string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		stat, _ := os.ReadFile(dir + "/stat")
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(parent) && strings.Contains(string(cmdline), "\x00"+watchdogMode+"\x00") {
			return filepath.Base(dir)
		}
	}
	return ""
}

// pids returns the numbers of the next n lines that begin with "pid".
func (r *running) pids(n int) (pids []string) {
	r.t.Helper()
	for range n {
		pids = append(pids, strings.TrimPrefix(r.await("pid "), "pid "))
	}
	return pids
}

// wilful is a command whose processes all ignore TERM: a shell, its child, and a grandchild
// whose parent has exited.
const wilful = `trap '' TERM; echo pid $$
	sh -c 'echo pid $$; while :; do sleep 0.05; done' &
	sh -c 'sh -c "echo pid \$\$; while :; do sleep 0.05; done" & exit' &
	while :; do sleep 0.05; done`

// Whatever happens to run, its command is gone when the next holder has the lock.
func TestNothingOfACommandRunsBesideTheNextHolder(t *testing.T) {
	for name, strike := range map[string]func(r *running, pids []string){
		"killed":  func(r *running, _ []string) { r.signal(syscall.SIGKILL) },
		"stopped": func(r *running, _ []string) { r.signal(syscall.SIGSTOP) },
		"killed while the command is stopped": func(r *running, pids []string) {
			for _, pid := range pids {
				n, _ := strconv.Atoi(pid)
				_ = syscall.Kill(n, syscall.SIGSTOP)
			}
			r.signal(syscall.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lock := "watched/" + strings.ReplaceAll(name, " ", "-")
			r := startLocknode(t, "run", "--ttl", "4s", lock, "--", "/bin/sh", "-c", wilful)
			pids := r.pids(3)
			watchdog := watchdogOf(t, r)
			c := testClient(t)
			strike(r, pids)
			g, err := c.Lock(within(t, generous), lock)
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				if alive(pid) {
					t.Errorf("process %s of the command is alive beside the next holder, token %d", pid, g.Token())
				}
			}
			if err := g.Unlock(); err != nil {
				t.Error(err)
			}
			eventually(t, "the watchdog has ended as well", func() bool { return !alive(watchdog) })
		})
	}
}

// The same with a run within the command: the inner command must be gone in time as well.
func TestNothingOfARunWithinACommandRunsBesideTheNextHolder(t *testing.T) {
	t.Parallel()
	self := command(t, "locknode").Path
	for name, script := range map[string]string{
		"as the command":  `exec "$0" run --ttl 1m --kill-after 1m watched/inner/$$ -- sh -c "$1"`,
		"below a command": `"$0" run --ttl 1m --kill-after 1m watched/inner/$$ -- sh -c "$1"; exit`,
	} {
		lock := "watched/outer/" + strings.ReplaceAll(name, " ", "-")
		r := startLocknode(t, "run", "--ttl", "4s", lock, "--", "/bin/sh", "-c", script, self, wilful)
		pids := r.pids(3)
		c := testClient(t)
		r.signal(syscall.SIGKILL)
		g, err := c.Lock(within(t, generous), lock)
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			if alive(pid) {
				t.Errorf("%s: process %s is alive beside the next holder, token %d", name, pid, g.Token())
			}
		}
		if err := g.Unlock(); err != nil {
			t.Error(err)
		}
	}
}

func TestStoppedRunThatGoesOnFindsItsCommandEnded(t *testing.T) {
	t.Parallel()
	r := startLocknode(t, "run", "--ttl", "1s", "watched/goes-on", "--", "/bin/sh", "-c", wilful)
	r.pids(3)
	watchdog := watchdogOf(t, r)
	r.signal(syscall.SIGSTOP)
	eventually(t, "the watchdog has ended", func() bool { return !alive(watchdog) })
	r.signal(syscall.SIGCONT)
	r.await("lock") // the message says that it was lost, or had nearly expired
	if code := r.wait(); code != exitLost {
		t.Errorf("exit code: got %d, want %d", code, exitLost)
	}
}

// listens is a script that prints its name whenever it has caught TERM, and runs on.
const listens = `trap "echo $0 caught" TERM; echo pid $$; while :; do sleep 0.02; done`

// listeners is a script that runs listens twice: as the leader of the group and as another
// process.
const listeners = `sh -c "$1" other & ` + `set -- "$1"; eval "$1"`

// listening returns the command that runs listeners.
func listening() []string { return []string{"/bin/sh", "-c", listeners, "leader", listens} }

// Many programs exit at once at a second TERM, so the watchdog sends TERM once to each
// process but the leader. The leader gets TERM from the kernel, which may send it several
// times, see supervise_linux.go.
func TestEverybodyIsToldWhenRunIsKilled(t *testing.T) {
	t.Parallel()
	longer(t, 500*time.Millisecond, func(untilKilled time.Duration) string {
		cmd := command(t, "supervise", append([]string{untilKilled.String()}, listening()...)...)
		cmd.Env = append(cmd.Env, certainFor+"=1m")
		r := start(t, cmd)
		r.pids(2)
		watchdogOf(t, r)
		r.signal(syscall.SIGKILL)
		caught := map[string]int{}
		for line := range r.lines { // until all processes have ended
			if who, ok := strings.CutSuffix(line, " caught"); ok {
				caught[who]++
			}
		}
		if caught["other"] > 1 {
			t.Errorf("TERM was caught %v times, want once by the other", caught)
		}
		if caught["leader"] == 0 || caught["other"] == 0 {
			return fmt.Sprintf("TERM was caught %v times, want once by the other and at least once by the leader", caught)
		}
		return ""
	})
}

func TestTheWatchdogTellsTheLeaderNothingThatTheKernelTells(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sh", listening()[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r := start(t, cmd)
	r.pids(2)
	g := group{id: cmd.Process.Pid, pidfd: -1}
	defer g.send(syscall.SIGKILL)
	g.terminateOrphans()
	for heard := 0; heard < 2; heard++ { // the second comes after all of the first
		if line := r.await("caught"); line != "other caught" {
			t.Errorf("got %q, want that only the other one has caught TERM", line)
		}
		if heard == 0 {
			g.terminateOrphans()
		}
	}
	g.send(syscall.SIGKILL)
	for line := range r.lines {
		if strings.HasSuffix(line, " caught") {
			t.Errorf("got %q, want that TERM was caught twice by the other one and by nobody else", line)
		}
	}
}

func TestEndOfTheCommandLeavesNoWatchdog(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	r := startLocknode(t, "run", "watched/end", "--", "/bin/sh", "-c", `echo waiting; while [ ! -e `+gate+` ]; do sleep 0.02; done; exit 3`)
	r.await("waiting")
	watchdog := watchdogOf(t, r)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 3 {
		t.Errorf("exit code: got %d, want the command's 3", code)
	}
	if _, err := os.Stat("/proc/" + watchdog); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the watchdog is there after the end: %v", err)
	}
	// The watchdog leaves processes alone that the command leaves behind on purpose.
	r = startLocknode(t, "run", "watched/left", "--", "/bin/sh", "-c", `sleep 30 >/dev/null 2>&1 & echo pid $!`)
	left := r.pids(1)[0]
	if code := r.wait(); code != 0 || !alive(left) {
		t.Errorf("exit code %d, left process alive: %v, want 0 and it alive", code, alive(left))
	}
	n, _ := strconv.Atoi(left)
	_ = syscall.Kill(n, syscall.SIGKILL)
}

func TestWatchdogHoldsNothingOfTheUsers(t *testing.T) {
	t.Parallel()
	extra, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = extra.Close() }()
	cmd := command(t, "locknode", "run", "watched/open", "--", "/bin/sh", "-c", `echo waiting >&3; sleep 60`)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","))
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = t.TempDir()
	r := start(t, cmd)
	_ = w.Close()
	if _, err := extra.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	watchdog := watchdogOf(t, r)
	eventually(t, "it has begun", func() bool {
		comm, _ := os.ReadFile("/proc/" + watchdog + "/comm")
		return string(comm) == "lock-watchdog\n"
	})
	fds, _ := filepath.Glob("/proc/" + watchdog + "/fd/*")
	if len(fds) < 4 {
		t.Fatalf("its descriptors: got %q, want the standard ones and a socket", fds)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && (strings.HasPrefix(to, "pipe:") || filepath.Base(fd) < "3" && to != "/dev/null") {
			t.Errorf("descriptor %s is %s", filepath.Base(fd), to)
		}
	}
	if dir, err := os.Readlink("/proc/" + watchdog + "/cwd"); dir != "/" {
		t.Errorf("its directory: got %q, %v, want /", dir, err)
	}
	n, _ := strconv.Atoi(watchdog)
	if session, err := unix.Getsid(n); session != n {
		t.Errorf("its session: got %d, %v, want its own", session, err)
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
		if err := syscall.Kill(n, s); err != nil || !alive(watchdog) {
			t.Errorf("%v to the watchdog: %v, alive: %v", s, err, alive(watchdog))
		}
	}
	r.signal(syscall.SIGTERM)
	r.wait()
}

func TestWatchdogLeavesOtherGroupsAlone(t *testing.T) {
	t.Parallel()
	// One process leaves the group, and the watchdog must leave it alone.
	cmd := command(t, "supervise", "0s", "/bin/sh", "-c", `setsid sh -c 'echo pid $$; exec sleep 60' & echo pid $$; sleep 60`)
	cmd.Env = append(cmd.Env, certainFor+"=1m")
	r := start(t, cmd)
	pids := r.pids(2)
	watchdog := watchdogOf(t, r)
	r.signal(syscall.SIGKILL)
	eventually(t, "the watchdog has ended", func() bool { return !alive(watchdog) })
	left := 0
	for _, pid := range pids {
		if alive(pid) {
			left++
			n, _ := strconv.Atoi(pid)
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
	if left != 1 {
		t.Errorf("%d of the two processes are left, want the one that left the group", left)
	}
}

func TestEndOfTheWatchdogIsTold(t *testing.T) {
	t.Parallel()
	r := startLocknode(t, "run", "watched/alone", "--", "/bin/sh", "-c", `echo waiting; sleep 60`)
	r.await("waiting")
	n, _ := strconv.Atoi(watchdogOf(t, r))
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("the watchdog has ended (killed)")
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("exit code: got %d, want that of TERM", code)
	}
}

func TestRunCanDoWithoutAWatchdog(t *testing.T) {
	t.Parallel()
	r := startLocknode(t, "run", "--no-watchdog", "watched/not", "--", "/bin/sh", "-c", `echo waiting; sleep 60`)
	r.await("waiting")
	if pid := findWatchdog(r.cmd.Process.Pid); pid != "" {
		t.Errorf("there is a watchdog, %s", pid)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
}

// A pidfd identifies the group that it was made for, even if another group has its number.
func TestGroupWhoseNumberIsUsedAgainIsNotHit(t *testing.T) {
	g, reap := zombie(t)
	reap()
	if err := unix.PidfdSendSignal(g.pidfd, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP); !errors.Is(err, unix.ESRCH) {
		t.Skipf("NOT TESTED: this kernel does not signal groups by pidfd: %v", err)
	}
	for range 200 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(g.id-1)), 0); err != nil {
			t.Skipf("NOT TESTED: process IDs cannot be chosen here: %v", err)
		}
		other := exec.Command("/bin/sleep", "60")
		other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		same := other.Process.Pid == g.id
		if same {
			if g.alive() {
				t.Error("the other group is taken for the first one")
			}
			g.send(syscall.SIGKILL)
			if err := other.Process.Signal(syscall.SIGTERM); err != nil {
				t.Errorf("TERM to the other group: %v", err)
			}
		} else {
			_ = other.Process.Kill()
		}
		err := other.Wait()
		if same {
			if want := "signal: terminated"; fmt.Sprint(err) != want {
				t.Errorf("the other group ended with %v, want %q", err, want)
			}
			return
		}
	}
	t.Skip("NOT TESTED: another process always took the number first")
}

//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// The variable makes the test binary act as another program, so that tests can run
// processes without building anything: as "locknode", or as "supervise", which is
// `locknode run` without a cluster.
const actAs = "TEST_ACT_AS"

// generous bounds the wait for a condition that must become true. It is long, because the
// machine may be busy with other things.
const generous = 2 * time.Minute

func TestMain(m *testing.M) {
	if code, hidden := hiddenMain(os.Args); hidden {
		os.Exit(code)
	}
	switch os.Getenv(actAs) {
	case "locknode":
		main()
	case "supervise":
		os.Exit(superviseMain(os.Args[1:]))
	default:
		testall.AtOnce(4) // they mostly wait for processes
		code := m.Run()
		closeShared()
		os.Exit(code)
	}
}

// canLose is the variable that tells superviseMain to take the end of descriptor 3 as the
// loss of the lock.
const canLose = "TEST_CAN_LOSE"

// superviseMain runs a command as if under a lock.
func superviseMain(args []string) int {
	killAfter, err := time.ParseDuration(args[0])
	if err != nil {
		panic(err)
	}
	lost := make(chan struct{})
	if os.Getenv(canLose) != "" {
		pipe := os.NewFile(3, "lost")
		syscall.CloseOnExec(3)
		go func() {
			_, _ = pipe.Read(make([]byte, 1))
			close(lost)
		}()
	}
	signals := make(chan os.Signal, 16)
	notifyForwarded(signals)
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "locknode: "+format+"\n", args...) }
	dog := superviseWatchdog(killAfter)
	defer dog.farewell()
	c, err := startChild(args[1], args[1:], os.Environ(), say, dog)
	if err != nil {
		panic(err)
	}
	end := c.supervise(signals, lost, killAfter)
	if end.lost {
		return exitLost
	}
	return end.code()
}

// certainFor is the variable that tells superviseMain to start a watchdog, and how long the
// lock is valid from each moment on, unless superviseMain hangs.
const certainFor = "TEST_CERTAIN_FOR"

func superviseWatchdog(killAfter time.Duration) *watchdog {
	text := os.Getenv(certainFor)
	if text == "" {
		return nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	dog, err := startWatchdog(ttl, killAfter, func() time.Duration { return ttl })
	if err != nil {
		panic(err)
	}
	return dog
}

// command makes a command of the test binary in one of its roles.
func command(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	c.Env = append(cleanTestEnvironment(), actAs+"="+role)
	if role == "locknode" { // on a busy machine it may take long to find the cluster
		c.Env = append(c.Env, "LOCKNODE_CONNECT_TIMEOUT=1m")
	}
	return c
}

func cleanTestEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LOCKNODE_") {
			env = append(env, kv)
		}
	}
	return env
}

// within returns a context that ends after d, with a cause that names the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("%s: not done within %v", t.Name(), d))
	t.Cleanup(cancel)
	return ctx
}

// running is a command whose output is read line by line.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	seen  []string
}

// start starts a command, which is killed at the end of the test.
func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if cmd.Stderr == nil {
		cmd.Stderr = w
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	r := &running{t: t, cmd: cmd, lines: make(chan string, 1000)}
	go readLines(out, r.lines)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return r
}

// readLines returns when all writers have closed the other end.
func readLines(f *os.File, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(f); s.Scan(); {
		lines <- s.Text()
	}
	_ = f.Close()
}

// await returns the first line from now on that contains text.
func (r *running) await(text string) string {
	r.t.Helper()
	deadline := time.After(generous)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("%q ended without %q; it printed %q", r.cmd.Args, text, r.seen)
			}
			r.seen = append(r.seen, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-deadline:
			r.t.Fatalf("%q did not print %q; it printed %q", r.cmd.Args, text, r.seen)
		}
	}
}

// wait returns the exit code, or -1 if a signal killed the command.
func (r *running) wait() int {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
		case <-time.After(generous):
			_ = r.cmd.Process.Kill()
		}
	}()
	_ = r.cmd.Wait()
	close(done)
	return r.cmd.ProcessState.ExitCode()
}

func (r *running) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("send %v: %v", s, err)
	}
}

// alive reports whether a process exists and is not a zombie.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(generous); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// timely tries something up to six times, and fails the test if each try takes too long. A
// machine that is busy with other things delays one or two tries; a bug delays them all.
func timely(t *testing.T, try func() (took, most time.Duration)) {
	t.Helper()
	var late []time.Duration
	for range 6 {
		took, most := try()
		if took <= most || t.Failed() {
			return
		}
		if late = append(late, took); len(late) == 6 {
			t.Errorf("took %v, want %v at most once", late, most)
		}
	}
}

// longer tries something with longer and longer time limits, from first on to 64 times that,
// and fails the test if the problem is the same with the last one. A machine that is busy
// with other things needs more time; what is broken does not come right with it.
func longer(t *testing.T, first time.Duration, try func(limit time.Duration) (problem string)) {
	t.Helper()
	for limit := first; ; limit *= 4 {
		switch problem := try(limit); {
		case problem == "" || t.Failed():
			return
		case limit >= 64*first:
			t.Errorf("with a limit of %v: %s", limit, problem)
			return
		}
	}
}

// awaitInGroup waits until a program of that name runs in a process group.
func awaitInGroup(t *testing.T, group, name string) {
	t.Helper()
	eventually(t, name+" runs in group "+group, func() bool {
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range stats {
			stat, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			// pid (name) state parent group …
			_, rest, _ := strings.Cut(string(stat), " (")
			program, rest, _ := strings.Cut(rest, ") ")
			if f := strings.Fields(rest); program == name && len(f) > 2 && f[2] == group {
				return true
			}
		}
		return false
	})
}

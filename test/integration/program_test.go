//go:build unix

package integration

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Exit codes on which scripts rely.
const (
	exitUnavailable = 69
	exitNotAcquired = 75
)

// command is a run of the locknode program.
type command struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr output
	exited         chan struct{}
}

// output collects what is printed while the process still runs.
type output struct {
	mu     sync.Mutex // guards buffer
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// launch starts a process that ends with the test.
func launch(t *testing.T, cmd *exec.Cmd) *command {
	t.Helper()
	c := &command{cmd: cmd, exited: make(chan struct{})}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	c.stdin = stdin
	cmd.Stdout, cmd.Stderr = &c.stdout, &c.stderr
	cmd.WaitDelay = 5 * time.Second // grandchildren may keep the pipes open
	must(t, cmd.Start())
	go func() {
		_ = cmd.Wait() // the exit code says it
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails for one that has ended
		<-c.exited
	})
	return c
}

// locknode starts the program with these endpoints.
func locknode(t *testing.T, endpoints []string, args ...string) *command {
	t.Helper()
	cmd := exec.Command(program, args...)
	// With the race detector every command would wait for a second before it ends. On a busy
	// machine it may take longer to find the cluster.
	cmd.Env = cleanEnvironment("LOCKNODE_ENDPOINTS="+strings.Join(endpoints, ","), "GORACE=atexit_sleep_ms=0", "LOCKNODE_CONNECT_TIMEOUT=1m")
	return launch(t, cmd)
}

// wait waits for the end of the process and returns its exit code.
func (c *command) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-c.exited:
	case <-time.After(patience):
		t.Fatalf("%q does not end; it printed %q and %q", c.cmd.Args, c.stdout.String(), c.stderr.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// ends fails the test unless the process ends with this exit code.
func (c *command) ends(t *testing.T, want int) *command {
	t.Helper()
	if got := c.wait(t); got != want {
		t.Fatalf("%q: exit code %d, want %d; it printed %q and %q", c.cmd.Args[1:], got, want, c.stdout.String(), c.stderr.String())
	}
	return c
}

// into reads the JSON that the process has printed.
func into[T any](t *testing.T, c *command) (v T) {
	t.Helper()
	c.ends(t, 0)
	if err := json.Unmarshal([]byte(c.stdout.String()), &v); err != nil {
		t.Fatalf("%q: it printed %q: %v", c.cmd.Args[1:], c.stdout.String(), err)
	}
	return v
}

// signal sends a signal to the process alone.
func (c *command) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	must(t, c.cmd.Process.Signal(sig))
}

// What the program and the HTTP API print, under the same names.
type (
	grantView struct {
		Name      string `json:"name"`
		Token     uint64 `json:"token"`
		ExpiresIn string `json:"expires_in"`
	}
	lockView struct {
		Name    string       `json:"name"`
		Held    bool         `json:"held"`
		Holders []holderView `json:"holders"`
		Waiters int          `json:"waiters"`
		Age     string       `json:"age"`
	}
	holderView struct {
		Token     uint64 `json:"token"`
		Holder    string `json:"holder"`
		Remaining string `json:"remaining"`
		Value     string `json:"value"`
	}
	pageView struct {
		Locks []lockView `json:"locks"`
		Next  string     `json:"next"`
	}
	errorView struct {
		Error struct {
			Code    string       `json:"code"`
			Message string       `json:"message"`
			Holders []holderView `json:"holders"`
		} `json:"error"`
	}
)

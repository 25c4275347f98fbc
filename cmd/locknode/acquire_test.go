//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
)

// Tests of acquire: its wait, and each way in which the wait can end.

func TestAcquireWaitsInTheQueueIfWaitIsSet(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	held, err := c.Lock(within(t, generous), "queue")
	if err != nil {
		t.Fatal(err)
	}
	if o := locknode(t, "acquire", "queue", "--wait", "1s"); o.code != exitNotAcquired || !strings.Contains(o.stderr, "timed out") {
		t.Errorf("acquire after a wait that timed out: got %+v, want exit code 75", o)
	}
	o := locknode(t, "acquire", "queue", "--wait", "1s", "-o", "json")
	var failure struct{ Error document.Error }
	if err := json.Unmarshal([]byte(o.stderr), &failure); err != nil || failure.Error.Code != "timeout" ||
		len(failure.Error.Holders) != 1 || failure.Error.Holders[0].Holder != "test" || !strings.Contains(failure.Error.Message, `held by "test"`) {
		t.Errorf("the same as JSON: got %+v, %v, want the holder named", o, err)
	}
	r := startLocknode(t, "acquire", "queue", "--wait", "1m")
	awaitWaiters(t, c, "queue", 1)
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	r.await("queue: acquired, token")
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

// If the client ends a wait by itself, its error has no holders.
func TestEndOfAWaitNamesTheHolderInAnyCase(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "named")
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, generous)
	ended := nameHolders(ctx, c, fmt.Errorf("acquire: %w", &client.TimeoutError{Lock: "named"}))
	if holders := holdersOf(ended); len(holders) != 1 || holders[0].Token != g.Token() || !errors.Is(ended, client.ErrTimeout) {
		t.Errorf("got %v, want a wait that is over and token %d", ended, g.Token())
	}
	for _, other := range []error{&client.BusyError{Lock: "named"}, context.Canceled} {
		if got := nameHolders(ctx, c, other); !errors.Is(got, other) || len(holdersOf(got)) > 0 {
			t.Errorf("of %v: got %v, want it as it is", other, got)
		}
	}
}

func TestLongestWaitIsLong(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	if _, err := c.Lock(within(t, generous), "longest"); err != nil {
		t.Fatal(err)
	}
	r := startLocknode(t, "run", "-w", "2562047h47m16.854775807s", "longest", "--", "/bin/true")
	awaitWaiters(t, c, "longest", 1)
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("exit code: got %d, want that of TERM", code)
	}
}

func TestInterruptedAcquireLeavesNoWaiterBehind(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	if _, err := c.Lock(within(t, generous), "interrupted"); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		for _, args := range [][]string{{"acquire", "interrupted", "--wait", "1m"}, {"run", "interrupted", "--", "/bin/echo", "ran"}} {
			if signal.Ignored(sig) {
				continue // it stays ignored
			}
			r := startLocknode(t, args...)
			awaitWaiters(t, c, "interrupted", 1)
			r.signal(sig)
			if code := r.wait(); code != exitSignal+int(sig) {
				t.Errorf("%s, %v: exit code %d, want %d", args[0], sig, code, exitSignal+int(sig))
			}
			info, err := c.Get(within(t, generous), "interrupted")
			if err != nil || info.Waiters != 0 {
				t.Errorf("%s, %v: after its end: got %+v, %v, want an empty queue", args[0], sig, info, err)
			}
		}
	}
}

// If a signal and the grant come at the same time, the token is printed or the lock is free.
func TestAcquireInterruptedAtItsGrantPrintsTheTokenOrLeavesTheLockFree(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	printed := 0
	for try := range 12 {
		g, err := c.Lock(within(t, generous), "raced")
		if err != nil {
			t.Fatal(err)
		}
		r := startLocknode(t, "acquire", "raced", "--wait", "1m", "--ttl", "10m")
		awaitWaiters(t, c, "raced", 1)
		unlocked := make(chan error)
		go func() { unlocked <- g.Unlock() }()
		time.Sleep(time.Duration(try%6) * time.Millisecond) // before, at and after the grant
		r.signal(syscall.SIGTERM)
		if err := <-unlocked; err != nil {
			t.Fatal(err)
		}
		var token uint64
		for line := range r.lines {
			_, _ = fmt.Sscanf(line, "raced: acquired, token %d,", &token)
		}
		code := r.wait()
		info, err := c.Get(within(t, generous), "raced")
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case token == 0 && (info.Held() || info.Waiters > 0):
			t.Fatalf("no token was printed (exit code %d), and the lock is %+v", code, info)
		case token != 0 && (code != 0 || !info.Held() || info.Holders[0].Token != token):
			t.Fatalf("token %d was printed (exit code %d), and the lock is %+v", token, code, info)
		case token != 0:
			printed++
			if err := c.Detached().Release(within(t, generous), "raced", token); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d of 12 tokens were printed", printed)
}

func TestKilledAcquireLeavesTheLine(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	if _, err := c.Lock(within(t, generous), "killed"); err != nil {
		t.Fatal(err)
	}
	r := startLocknode(t, "acquire", "killed", "--wait", "10m", "--ttl", "10m")
	awaitWaiters(t, c, "killed", 1)
	r.signal(syscall.SIGKILL)
	awaitWaiters(t, c, "killed", 0) // long before its wait is over
}

// The test runs the loop in the text of `acquire --help`.
func TestLoopOfTheHelpGetsTheLock(t *testing.T) {
	t.Parallel()
	var loop string
	for line := range strings.Lines((&app{}).acquireCommand().Example) {
		if strings.Contains(line, "until ") {
			loop = strings.TrimSpace(line)
		}
	}
	if !strings.Contains(loop, "locknode acquire orders/42 --request-id") {
		t.Fatalf("the loop: got %q", loop)
	}
	d := testClient(t).Detached()
	g, err := d.Acquire(within(t, generous), "loop/42", 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	cmd := command(t, "locknode")
	if err := os.Symlink(cmd.Path, filepath.Join(bin, "locknode")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "uuidgen"), []byte("#!/bin/sh\necho loop-$$\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Path = "/bin/sh"
	cmd.Args = []string{"sh", "-c", strings.Replace(loop, "orders/42", "loop/42", 1)}
	r := start(t, cmd)
	r.await(`held by "test"`)
	r.await(`held by "test"`)
	if err := d.Release(within(t, generous), "loop/42", g.Token); err != nil {
		t.Fatal(err)
	}
	r.await("loop/42: acquired, token ")
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

func TestRetryWithTheSameRequestIDGetsTheSameGrant(t *testing.T) {
	t.Parallel()
	args := []string{"acquire", "retried", "--request-id", "8a9d2f0e-once", "-o", "json"}
	first := into[document.Grant](t, locknode(t, args...))
	second := into[document.Grant](t, locknode(t, args...))
	if first.Token == 0 || second.Token != first.Token {
		t.Errorf("got tokens %d and %d, want the same", first.Token, second.Token)
	}
	body := `{"name":"retried","ttl":"30s","request_id":"8a9d2f0e-once"}`
	res, err := http.Post("http://"+sharedCluster(t).Nodes()[0].HTTP()+"/v1/acquire", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var third document.Grant
	if err := json.NewDecoder(res.Body).Decode(&third); err != nil || third.Token != first.Token {
		t.Errorf("over HTTP: got %s, %+v, %v, want token %d", res.Status, third, err, first.Token)
	}
}

//go:build unix

package main

import (
	"fmt"
	"github.com/locknode/locknode/internal/document"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunEndsWithTheChildsExitCode(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 76": 76, "kill -9 $$": 137, "kill -15 $$": 143} {
		o := locknode(t, "run", "run/codes", "--", "/bin/sh", "-c", script)
		if o.code != want || o.stderr != "" {
			t.Errorf("run %q: got %+v, want exit code %d and no message", script, o, want)
		}
	}
	if l := lockState(t, "run/codes"); l.Held {
		t.Errorf("after the last command: got %+v, want it free", l)
	}
}

func TestRunChecksTheCommandBeforeItAcquires(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := []string{"127.0.0.1:1"} // a request to the cluster would end with 69
	for name, want := range map[string]int{
		"/does/not/exist": exitNotFound, "no-such-program-anywhere": exitNotFound, text: exitNotExecuted, dir: exitNotExecuted,
	} {
		if o := locknodeAt(t, nobody, "run", "--connect-timeout", "1ms", "a", "--", name); o.code != want || !strings.Contains(o.stderr, name) {
			t.Errorf("run %s: got %+v, want exit code %d", name, o, want)
		}
	}
	// Only the kernel can find out that this is no program, after the lock was acquired.
	if err := os.WriteFile(text, []byte{0x7f, 'E', 'L', 'F', 0, 0, 0, 0}, 0o700); err != nil {
		t.Fatal(err)
	}
	if o := locknode(t, "run", "run/format", "--", text); o.code != exitNotExecuted {
		t.Errorf("run of a file that is no program: got %+v, want exit code %d", o, exitNotExecuted)
	}
	if l := lockState(t, "run/format"); l.Held {
		t.Errorf("after the failed start: got %+v, want it free", l)
	}
}

func TestRunGivesTheChildItsLock(t *testing.T) {
	t.Parallel()
	cmd := command(t, "locknode", "run", "run/env", "--value", "hello", "--holder", "me", "--", "/bin/sh", "-c",
		`echo "name $LOCKNODE_NAME token $LOCKNODE_FENCING_TOKEN"; cat; read x`)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","), "LOCKNODE_NAME=outer", "LOCKNODE_FENCING_TOKEN=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, cmd)
	line := r.await("name run/env token ")
	l := lockState(t, "run/env")
	if !l.Held || l.Holders[0].Holder != "me" || *l.Holders[0].Value != "hello" || line != fmt.Sprintf("name run/env token %d", l.Holders[0].Token) {
		t.Errorf("the child printed %q, the cluster says %+v", line, l)
	}
	if _, err := in.Write([]byte("through\n")); err != nil {
		t.Fatal(err)
	}
	r.await("through")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	r.wait()
	if l := lockState(t, "run/env"); l.Held {
		t.Errorf("after the command: got %+v, want it free", l)
	}
}

func TestRunKeepsItsLockForLongerThanItsTTL(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	r := startLocknode(t, "run", "--ttl", "2s", "run/long", "--", "/bin/sh", "-c",
		`echo token $LOCKNODE_FENCING_TOKEN; while [ ! -e `+gate+` ]; do sleep 0.05; done`)
	token := strings.TrimPrefix(r.await("token"), "token ")
	c := testClient(t)
	for began, looks := time.Now(), 0; time.Since(began) < 5*time.Second; looks++ {
		info, err := c.Get(within(t, generous), "run/long")
		if err != nil || len(info.Holders) != 1 || fmt.Sprint(info.Holders[0].Token) != token {
			t.Fatalf("look %d, after %v: got %+v, %v, want it held with token %s", looks, time.Since(began), info, err, token)
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

func TestRunThatDoesNotWaitSaysWhoHoldsIt(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	if _, err := c.Lock(within(t, generous), "run/busy"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"-n"}, 75, `"test"`},
		{[]string{"-w", "1s"}, 75, `timed out: held by "test" (token `},
		{[]string{"-w", "0s"}, 75, `"test"`},
		{[]string{"-n", "-E", "9"}, 9, `"test"`},
		{[]string{"-w", "1s", "-E", "0"}, 0, "timed out"},
	} {
		o := locknode(t, append(append([]string{"run"}, x.args...), "run/busy", "--", "/bin/echo", "ran")...)
		for range 5 { // on a busy machine the second may pass before the cluster has answered who holds it
			if strings.Contains(o.stderr, x.text) || o.code != x.want && o.code != exitUnavailable {
				break
			}
			o = locknode(t, append(append([]string{"run"}, x.args...), "run/busy", "--", "/bin/echo", "ran")...)
		}
		if o.code != x.want || !strings.Contains(o.stderr, x.text) || o.stdout != "" {
			t.Errorf("run %q: got %+v, want exit code %d and %q", x.args, o, x.want, x.text)
		}
	}
}

func TestRunWaitsItsTurn(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "run/turn")
	if err != nil {
		t.Fatal(err)
	}
	r := startLocknode(t, "run", "run/turn", "--", "/bin/echo", "my turn")
	awaitWaiters(t, c, "run/turn", 1)
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	r.await("my turn")
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

func TestRunInterruptedInTheQueueLeavesNoWaiterBehind(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	if _, err := c.Lock(within(t, generous), "run/gone"); err != nil {
		t.Fatal(err)
	}
	r := startLocknode(t, "run", "run/gone", "--", "/bin/echo", "ran")
	awaitWaiters(t, c, "run/gone", 1)
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 143 {
		t.Errorf("exit code: got %d, want 143", code)
	}
	awaitWaiters(t, c, "run/gone", 0)
}

func TestRunHoldsTheLockUntilASignalledChildHasEnded(t *testing.T) {
	t.Parallel()
	// After TERM the child runs on until the test opens the gate.
	gate := filepath.Join(t.TempDir(), "gate")
	r := startLocknode(t, "run", "run/term", "--", "/bin/sh", "-c",
		`trap 'echo caught; while [ ! -e `+gate+` ]; do sleep 0.02; done; exit 5' TERM; echo waiting; while :; do sleep 0.02; done`)
	r.await("waiting")
	r.signal(syscall.SIGTERM)
	r.await("caught")
	if l := lockState(t, "run/term"); !l.Held {
		t.Error("the lock was released before the child had ended")
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 5 {
		t.Errorf("exit code: got %d, want the child's 5", code)
	}
	if l := lockState(t, "run/term"); l.Held {
		t.Errorf("after the end: got %+v, want it free", l)
	}
}

func TestRunEndsTheChildWhenTheLockIsLost(t *testing.T) {
	t.Parallel()
	r := startLocknode(t, "run", "--kill-after", "200ms", "run/lost", "--", "/bin/sh", "-c", `trap '' TERM; echo waiting; while :; do sleep 0.02; done`)
	r.await("waiting")
	locknode(t, "force-release", "run/lost", "--reason", "ticket 4711").succeeds(t)
	r.await("the lock is lost")
	r.await("KILL was sent")
	r.await("ticket 4711")
	if code := r.wait(); code != exitLost {
		t.Errorf("exit code: got %d, want %d", code, exitLost)
	}
}

func TestRunWithinARunDoesNotWaitForItsLock(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	self := command(t, "locknode").Path
	for name, script := range map[string]string{
		"run":              `"$0" run nested/a -- echo ran`,
		"run of several":   `"$0" run nested/c nested/a -- echo ran`,
		"run for a time":   `"$0" run -w 1m nested/a -- echo ran`,
		"acquire":          `"$0" acquire nested/a --wait 1m`,
		"run in between":   `"$0" run nested/b -- "$0" run nested/a -- echo ran`,
		"name that splits": `"$0" run 'nested/"b' -- "$0" run nested/a -- echo ran`,
	} {
		o := locknode(t, "run", "nested/a", "--", "/bin/sh", "-c", script, self)
		if o.code != exitUsage || !strings.Contains(o.stderr, "surrounding `locknode run`, token ") || o.stdout != "" {
			t.Errorf("%s: got %+v, want exit code 64 and why", name, o)
		}
	}
	for name, x := range map[string]struct {
		script string
		want   int
	}{
		"that does not wait":         {`"$0" run -n nested/a -- echo ran`, exitNotAcquired},
		"acquire that does not wait": {`"$0" acquire nested/a`, exitNotAcquired},
		"of another lock":            {`"$0" run nested/b -- echo ran`, 0},
		"whose lock was lost":        {`trap '' TERM; "$0" force-release nested/a --reason x && "$0" run -w 10s nested/a -- echo ran`, exitLost},
	} {
		o := locknode(t, "run", "nested/a", "--", "/bin/sh", "-c", x.script, self)
		if o.code != x.want || strings.Contains(o.stderr, "surrounding") {
			t.Errorf("run within a run %s: got %+v, want exit code %d", name, o, x.want)
		}
	}
	awaitLocked(t, c, "nested/a", false)
}

func TestRunTakesSeveralLocksOrNone(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "run/several/b")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"run/several/c", "run/several/b", "run/several/a", "run/several/a"}
	args := append(append([]string{"run", "-n"}, names...), "--", "/bin/sh", "-c", `echo "$LOCKNODE_NAME"; echo "$LOCKNODE_FENCING_TOKEN"`)
	if o := locknode(t, args...); o.code != exitNotAcquired {
		t.Errorf("with one of them held: got %+v, want exit code 75", o)
	}
	for _, name := range []string{"run/several/a", "run/several/c"} {
		if held, err := c.IsLocked(within(t, generous), name); held || err != nil {
			t.Errorf("%s after that: held %v, %v, want it free", name, held, err)
		}
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(locknode(t, args...).succeeds(t).stdout), "\n")
	if len(lines) != 6 || strings.Join(lines[:3], " ") != "run/several/a run/several/b run/several/c" {
		t.Errorf("the child's variables: got %q, want three names and their tokens", lines)
	}
}

func TestRunThatIsKilledFreesTheLockAfterItsTTL(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	timely(t, func() (took, most time.Duration) {
		r := startLocknode(t, "run", "--ttl", "2s", "run/killed", "--", "/bin/sh", "-c", "echo waiting; sleep 60")
		r.await("waiting")
		r.signal(syscall.SIGKILL)
		killed := time.Now()
		g, err := c.Lock(within(t, generous), "run/killed")
		if err != nil {
			t.Fatal(err)
		}
		took = time.Since(killed)
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		return took, 3500 * time.Millisecond // its TTL and 1.5 s
	})
}

func TestRunKeepsItsLockWhenTheLeaderIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster of processes")
	}
	t.Parallel()
	cluster := startCluster(t, clusterOptions())
	ctx := within(t, generous)
	followers, err := cluster.Followers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leader, err := cluster.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(t.TempDir(), "gate")
	r := start(t, command(t, "locknode", "run", "kept", "--endpoints", followers[0].API(), "--", "/bin/sh", "-c",
		`echo token $LOCKNODE_FENCING_TOKEN; while [ ! -e `+gate+` ]; do sleep 0.05; done`))
	token := strings.TrimPrefix(r.await("token"), "token ")
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	endpoints := []string{followers[1].API()}
	l := into[document.Lock](t, locknodeAt(t, endpoints, "get", "kept", "-o", "json"))
	if !l.Held || fmt.Sprint(l.Holders[0].Token) != token {
		t.Errorf("after the kill: got %+v, want it held with token %s", l, token)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if l := into[document.Lock](t, locknodeAt(t, endpoints, "get", "kept", "-o", "json")); l.Held {
		t.Errorf("after the command: got %+v, want it free", l)
	}
}

func TestRunKeepsItsLockWhenLeadershipMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster of processes")
	}
	t.Parallel()
	cluster := startCluster(t, clusterOptions())
	gate := filepath.Join(t.TempDir(), "gate")
	cmd := command(t, "locknode", "run", "--ttl", "2s", "moved", "--", "/bin/sh", "-c",
		`echo token $LOCKNODE_FENCING_TOKEN; while [ ! -e `+gate+` ]; do sleep 0.05; done`)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(cluster.Endpoints(), ","))
	r := start(t, cmd)
	token := strings.TrimPrefix(r.await("token"), "token ")
	eventually(t, "leadership moves", func() bool { return locknodeAt(t, cluster.Endpoints(), "transfer-leadership").code == 0 })
	// The client only sends keep-alives. The old leader still runs and refuses them, and the
	// client has to find the new leader before the TTL has passed.
	for moved := time.Now(); time.Since(moved) < 4*time.Second; {
		l := into[document.Lock](t, locknodeAt(t, cluster.Endpoints(), "get", "moved", "-o", "json"))
		if !l.Held || fmt.Sprint(l.Holders[0].Token) != token {
			t.Fatalf("%v after leadership moved: got %+v, want it held with token %s", time.Since(moved), l, token)
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

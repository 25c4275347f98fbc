//go:build unix

package main

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// supervised runs a shell script under supervision. lose makes it lose the lock.
func supervised(t *testing.T, killAfter, script string) (r *running, lose func()) {
	t.Helper()
	cmd, lose := losable(t, command(t, "supervise", killAfter, "/bin/sh", "-c", script))
	return start(t, cmd), lose
}

// losable returns the command with a pipe added: lose makes it lose the lock.
func losable(t *testing.T, cmd *exec.Cmd) (_ *exec.Cmd, lose func()) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, canLose+"=1")
	cmd.ExtraFiles = []*os.File{read}
	t.Cleanup(func() {
		_ = read.Close()
		_ = write.Close()
	})
	return cmd, func() { _ = write.Close() }
}

func TestExitCodeIsTheChildsOwn(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":        0,
		"exit 3":        3,
		"exit 75":       75,
		"kill -TERM $$": 128 + 15,
		"kill -KILL $$": 128 + 9,
		"kill -SEGV $$": 128 + 11,
	} {
		r, _ := supervised(t, "1s", script)
		if got := r.wait(); got != want {
			t.Errorf("exit code of %q: got %d, want %d", script, got, want)
		}
	}
}

func TestSignalsReachTheWholeGroup(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT,
		"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if signal.Ignored(sig) {
				t.Skipf("%v was ignored when the tests were started, and stays ignored", sig)
			}
			// The trap runs only after the foreground sleep has ended, so the signal must
			// have reached the sleep as well.
			r, _ := supervised(t, "1s", `trap 'echo caught; exit 42' `+name+`; echo pid $$; sleep 60`)
			awaitInGroup(t, strings.TrimPrefix(r.await("pid"), "pid "), "sleep")
			r.signal(sig)
			r.await("caught")
			if got := r.wait(); got != 42 {
				t.Errorf("exit code: got %d, want 42", got)
			}
		})
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	cmd := command(t, "supervise", "1s", "/bin/sh", "-c", "echo waiting; read x; echo done $x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Like nohup: a shell ignores the signal and then executes the command.
	cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	r := start(t, cmd)
	r.await("waiting")
	r.signal(syscall.SIGHUP)
	if _, err := in.Write([]byte("well\n")); err != nil {
		t.Fatal(err)
	}
	r.await("done well")
	if got := r.wait(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestStandardInputIsTheChilds(t *testing.T) {
	t.Parallel()
	cmd := command(t, "supervise", "1s", "/bin/cat")
	cmd.Stdin = strings.NewReader("one\ntwo\n")
	r := start(t, cmd)
	r.await("two")
	if got := r.wait(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestLossEndsAChildThatHandlesTERM(t *testing.T) {
	t.Parallel()
	r, lose := supervised(t, "1m", `trap 'echo caught; exit 0' TERM; echo pid $$; sleep 60`)
	awaitInGroup(t, strings.TrimPrefix(r.await("pid"), "pid "), "sleep")
	lose()
	var printed []string // by the child and by supervise, in any order
	for line := range r.lines {
		printed = append(printed, line)
	}
	if all := strings.Join(printed, "\n"); !strings.Contains(all, "caught") || !strings.Contains(all, "the lock is lost") {
		t.Errorf("got %q, want that the child caught TERM, and a message about the loss", printed)
	}
	if got := r.wait(); got != exitLost {
		t.Errorf("exit code: got %d, want %d although the child ended with 0", got, exitLost)
	}
}

func TestLossKillsAChildThatIgnoresTERM(t *testing.T) {
	t.Parallel()
	r, lose := supervised(t, "200ms", `trap '' TERM; sleep 60 & echo pid $!; wait; sleep 60`)
	pid := strings.TrimPrefix(r.await("pid"), "pid ")
	lose()
	r.await("KILL was sent")
	if got := r.wait(); got != exitLost {
		t.Errorf("exit code: got %d, want %d", got, exitLost)
	}
	eventually(t, "the child's child is gone", func() bool { return !alive(pid) })
}

func TestLossKillsWhatTheChildLeavesBehind(t *testing.T) {
	t.Parallel()
	// The child ends at TERM, but its own child ignores TERM.
	r, lose := supervised(t, "300ms", `(trap '' TERM; echo pid $(exec sh -c 'echo $PPID'); sleep 60; sleep 60) & echo waiting; wait`)
	pid := strings.TrimPrefix(r.await("pid"), "pid ")
	lose()
	lost := time.Now()
	if got := r.wait(); got != exitLost {
		t.Errorf("exit code: got %d, want %d", got, exitLost)
	}
	if took := time.Since(lost); took < 300*time.Millisecond {
		t.Errorf("ended %v after the loss, want --kill-after before the rest of the group is killed", took)
	}
	eventually(t, "what was left is gone", func() bool { return !alive(pid) })
}

func TestLossReachesAStoppedChild(t *testing.T) {
	t.Parallel()
	r, lose := supervised(t, "1m", `trap 'echo caught; exit 0' TERM; echo pid $$; while :; do sleep 0.05; done`)
	pid := strings.TrimPrefix(r.await("pid"), "pid ")
	if err := exec.Command("kill", "-STOP", pid).Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child has stopped", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	lose()
	r.await("caught")
	if got := r.wait(); got != exitLost {
		t.Errorf("exit code: got %d, want %d", got, exitLost)
	}
}

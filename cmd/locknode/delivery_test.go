//go:build unix

package main

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The tests below give commands a standard output to which writes fail.

// withoutReader is a pipe whose reading end is closed.
func withoutReader(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// full is a device that is always full.
func full(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// locknodeInto runs locknode with another standard output.
func locknodeInto(t *testing.T, stdout *os.File, args ...string) outcome {
	t.Helper()
	cmd := command(t, "locknode", args...)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","))
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	_ = cmd.Run() // the exit code has the result
	code := cmd.ProcessState.ExitCode()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		code = exitSignal + int(status.Signal())
	}
	return outcome{code, "", stderr.String()}
}

func TestLockWhoseTokenCannotBeWrittenIsReleased(t *testing.T) {
	t.Parallel()
	for name, stdout := range map[string]*os.File{"full": full(t), "unread": withoutReader(t)} {
		for _, more := range [][]string{{}, {"-o", "json"}, {"--wait", "10s"}} {
			lock := "delivery/" + name
			o := locknodeInto(t, stdout, append([]string{"acquire", lock, "--ttl", "10m"}, more...)...)
			if o.code != exitOutput || !strings.Contains(o.stderr, "released again") {
				t.Errorf("acquire %q into %s: got %+v, want exit code %d and a message about the release", more, name, o, exitOutput)
			}
			if l := lockState(t, lock); l.Held {
				t.Errorf("acquire %q into %s: the lock stays held: %+v", more, name, l)
			}
		}
	}
}

func TestResultsThatCannotBeWrittenAreNoSuccess(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"ls"}, {"get", "a"}, {"status"}, {"members", "-o", "json"}, {"version"}, {"serve", "--print-config"}} {
		o := locknodeInto(t, full(t), args...)
		if o.code != exitOutput || !strings.Contains(o.stderr, "write the result") {
			t.Errorf("locknode %q into a full disk: got %+v, want exit code %d and the reason", args, o, exitOutput)
		}
		// As in `locknode ls | head -1`: that is not an error to report.
		if o := locknodeInto(t, withoutReader(t), args...); o.code != exitSignal+int(syscall.SIGPIPE) || o.stderr != "" {
			t.Errorf("locknode %q into a pipe without a reader: got %+v, want exit code 141 and no message", args, o)
		}
	}
}

func TestRunLeavesTheSignalOfBrokenPipesToItsChild(t *testing.T) {
	t.Parallel()
	o := locknodeInto(t, withoutReader(t), "run", "delivery/run", "--", "/bin/sh", "-c", "while echo on; do :; done")
	if o.code != exitSignal+int(syscall.SIGPIPE) {
		t.Errorf("run of a command that writes into a pipe without a reader: got %+v, want exit code 141", o)
	}
}

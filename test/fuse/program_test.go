//go:build linux

package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a passthrough must pass through.
func TestFilesAreThoseOfTheRoot(t *testing.T) {
	t.Parallel()
	d := mount(t)
	must(t, os.WriteFile(d.root+"/below", []byte("from below"), 0o640))
	if got := content(t, d.path("below")); got != "from below" {
		t.Errorf("what was there: got %q", got)
	}
	want := map[string]string{"below": "from below", "dir/": "", "dir/sub/": ""}
	must(t, os.MkdirAll(d.path("dir/sub"), 0o750))
	for i := range 600 { // more than one answer to a listing
		name := fmt.Sprintf("dir/a-rather-long-name-%03d", i)
		must(t, os.WriteFile(d.path(name), []byte(name), 0o600))
		want[name] = name
	}
	must(t, os.Symlink("below", d.path("soft")))
	must(t, os.Link(d.path("below"), d.path("hard")))
	must(t, os.Rename(d.path("dir/sub"), d.path("moved")))
	must(t, os.Chmod(d.path("below"), 0o604))
	then := time.Unix(1e9, 5e6)
	must(t, os.Chtimes(d.path("below"), then, then))
	delete(want, "dir/sub/")
	want["moved/"], want["hard"], want["soft"] = "", want["below"], want["below"]
	for where, dir := range map[string]string{"mount": d.dir, "root": d.root} {
		if diff := differences(treeOf(t, dir), want); diff != "" {
			t.Errorf("in the %s: %s", where, diff)
		}
		info, err := os.Stat(dir + "/hard")
		must(t, err)
		if info.Mode() != 0o604 || !info.ModTime().Equal(then) || info.Sys().(*syscall.Stat_t).Nlink != 2 {
			t.Errorf("in the %s: mode %v, time %v, %d links; want 0604, %v, 2", where, info.Mode(), info.ModTime(), info.Sys().(*syscall.Stat_t).Nlink, then)
		}
	}
	if err := os.Remove(d.path("dir")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove a directory that is not empty: got %v", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, d.path("below"), unix.AT_FDCWD, d.path("soft"), unix.RENAME_NOREPLACE); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("rename without replacing: got %v", err)
	}
	must(t, os.RemoveAll(d.path("dir")))
	var st unix.Statfs_t
	must(t, unix.Statfs(d.dir, &st))
	if st.Blocks == 0 || st.Bfree == 0 {
		t.Errorf("statfs: %d blocks, %d free", st.Blocks, st.Bfree)
	}
}

func TestLocksAreThoseOfTheKernel(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	var fds [2]int
	for i := range fds {
		fd, err := unix.Open(d.path("a"), unix.O_RDWR, 0)
		must(t, err)
		defer func() { _ = unix.Close(fd) }()
		fds[i] = fd
	}
	must(t, unix.Flock(fds[0], unix.LOCK_EX|unix.LOCK_NB))
	if err := unix.Flock(fds[1], unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second flock: got %v, want EWOULDBLOCK", err)
	}
}

// However it ends, the mount is gone, what hung has ended, and the code is 0.
func TestEndUnmounts(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(d *disk) error{
		"end of input": func(d *disk) error { return d.stdin.Close() },
		"SIGTERM":      func(d *disk) error { return d.cmd.Process.Signal(syscall.SIGTERM) },
		"quit": func(d *disk) error {
			d.do("quit")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := prepare(t)
			cmd, out := hanging(t, d)
			must(t, end(d))
			must(t, d.cmd.Wait())
			must(t, cmd.Wait())
			if !strings.Contains(out.String(), "done <nil>") {
				t.Errorf("what hung says %q, want it done", out.String())
			}
			if left := treeOf(t, d.dir); len(left) != 0 {
				t.Errorf("the mount point has %v, want nothing", left)
			}
			if got := content(t, d.root+"/a"); got != "content" {
				t.Errorf("the root has %q, want %q", got, "content")
			}
		})
	}
}

// A file that is open does not keep the mount.
func TestEndUnmountsAlsoWhatIsInUse(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	f, err := os.Open(d.path("a"))
	must(t, err)
	d.do("quit")
	must(t, d.cmd.Wait())
	if left := treeOf(t, d.dir); len(left) != 0 {
		t.Errorf("the mount point has %v, want nothing", left)
	}
	if _, err := f.Read(make([]byte, 1)); err == nil {
		t.Error("a file is read from a file system that is gone")
	}
	_ = f.Close() // what it says does not matter
}

func TestWrongFlagsAreExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--mount", dir}, exitUsage, "--root"},
		{[]string{"--root", dir}, exitUsage, "--mount"},
		{[]string{"--root", dir, "--mount", dir, "more"}, exitUsage, `"more"`},
		{[]string{"--root", dir, "--mount", dir, "--undo-limit", "0"}, exitUsage, "--undo-limit is 0"},
		{[]string{"--nonsense"}, exitUsage, "nonsense"},
		{[]string{"--help"}, exitOK, "powerloss [torn SEED]"},
		{[]string{"--root", dir, "--mount", dir}, exitFailed, "must not be in one another"},
		{[]string{"--root", dir + "/none", "--mount", dir}, exitFailed, "no such file"},
	} {
		var out, errs bytes.Buffer
		if code := Run(c.args, strings.NewReader(""), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: got %d and %q, want %d and %q", c.args, code, errs.String(), c.code, c.says)
		}
	}
}

// In a user namespace without root there is no right to mount.
func TestWithoutTheRightToMountTheCodeIs3(t *testing.T) {
	t.Parallel()
	root, dir := t.TempDir(), t.TempDir()
	cmd := role("faultfs", "--root", root, "--mount", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	cmd.Env = append(cmd.Env, "PATH=/nowhere")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Skipf("cannot start a process without rights here: %v", err)
	}
	if exit.ExitCode() != exitCannotMount || !strings.Contains(string(out), "cannot mount here") {
		t.Errorf("got %d and %q, want %d and a sentence", exit.ExitCode(), out, exitCannotMount)
	}
}

func TestWrongCommandsAreExplainedAndChangeNothing(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	for line, says := range map[string]string{
		"":                    "want a command",
		"fial":                `command is "fial"`,
		"fail":                "want OP ERRNO",
		"fail writ EIO":       `operation is "writ": allowed are read, write`,
		"fail write EFOO":     `error is "EFOO": allowed are EIO, ENOSPC, EROFS`,
		"fail write EIO 0":    `count is "0"`,
		"fail write EIO x":    `count is "x"`,
		"hang":                "want OP",
		"hang fsync x":        `after is "x"`,
		"hang fsync -1":       "after is -1",
		"slow fsync":          "want OP DURATION",
		"slow fsync 5":        `duration is "5"`,
		"slow fsync -1s":      "0 to 1m0s are allowed",
		"slow fsync 2m":       "0 to 1m0s are allowed",
		"lie":                 "want on or off",
		"lie maybe":           `lie is "maybe"`,
		"powerloss torn":      "want none, or torn SEED",
		"powerloss torn -1":   `seed is "-1"`,
		"stats all":           "want none",
		"quit now":            "want none",
		"flip a 9999999999":   "beyond the end",
		"flip a/b 0":          "not a directory",
		"release everything!": "want none",
	} {
		if got := d.ask("%s", line); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, says) {
			t.Errorf("%q: got %q, want an error that says %q", line, got, says)
		}
	}
	for op, err := range tryAll(t, d) {
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

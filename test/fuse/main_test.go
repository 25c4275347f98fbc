//go:build linux

package faultfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// actAs tells this binary, in the environment, to be something else than a test.
const actAs = "FAULTFS_TEST_ROLE"

// patience is how long something is waited for that is bound to come.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "":
		os.Exit(m.Run())
	case "faultfs":
		os.Exit(Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case "fsync":
		os.Exit(fsyncer(os.Args[1]))
	}
	fmt.Fprintf(os.Stderr, "%s: no such role\n", os.Getenv(actAs))
	os.Exit(2)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func resize(id uint64, size int) *fuse.SetAttrIn {
	in := &fuse.SetAttrIn{}
	in.NodeId, in.Valid, in.Size = id, fuse.FATTR_SIZE, uint64(size)
	return in
}

// disk is the program, mounted.
type disk struct {
	t       *testing.T
	root    string // below
	dir     string // the mount
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

// role is this binary as something else.
func role(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), actAs+"="+name)
	return cmd
}

// mount starts the program on a new directory, and skips the test where it cannot
// be mounted. It ends with the test.
func mount(t *testing.T, args ...string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{t: t, root: filepath.Join(dir, "root"), dir: filepath.Join(dir, "mount")}
	must(t, os.Mkdir(d.root, 0o755))
	must(t, os.Mkdir(d.dir, 0o755))
	d.start(args...)
	t.Cleanup(func() {
		_ = d.stdin.Close() // may have been closed by the test
		if err := d.cmd.Wait(); err != nil && !strings.Contains(err.Error(), "Wait was already called") {
			t.Errorf("faultfs ended with %v", err)
		}
	})
	return d
}

func (d *disk) start(args ...string) {
	d.t.Helper()
	var stderr strings.Builder
	d.cmd = role("faultfs", append([]string{"--root", d.root, "--mount", d.dir}, args...)...)
	d.cmd.Stderr = &stderr
	var err error
	d.stdin, err = d.cmd.StdinPipe()
	must(d.t, err)
	stdout, err := d.cmd.StdoutPipe()
	must(d.t, err)
	must(d.t, d.cmd.Start())
	d.answers = bufio.NewScanner(stdout)
	if d.answers.Scan() && d.answers.Text() == "ready" {
		return
	}
	err = d.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitCannotMount {
		d.t.Skip(stderr.String())
	}
	d.t.Fatalf("faultfs: %v: %s", err, stderr.String())
}

// ask gives a command and returns the answer.
func (d *disk) ask(format string, args ...any) string {
	d.t.Helper()
	_, err := fmt.Fprintf(d.stdin, format+"\n", args...)
	must(d.t, err)
	if !d.answers.Scan() {
		d.t.Fatalf("no answer to %q: %v", fmt.Sprintf(format, args...), d.answers.Err())
	}
	return d.answers.Text()
}

// do gives a command that must be carried out.
func (d *disk) do(format string, args ...any) string {
	d.t.Helper()
	answer := d.ask(format, args...)
	rest, ok := strings.CutPrefix(answer, "ok")
	if !ok {
		d.t.Fatalf("%q: got %q, want ok", fmt.Sprintf(format, args...), answer)
	}
	return strings.TrimSpace(rest)
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

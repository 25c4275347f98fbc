//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"
)

func TestHangupEndsTheProgramUnlessItReloads(t *testing.T) {
	for name, c := range map[string]struct {
		reloads bool
		signals []os.Signal
		want    syscall.Signal
	}{
		"a command":         {false, []os.Signal{syscall.SIGHUP, syscall.SIGTERM}, syscall.SIGHUP},
		"a node":            {true, []os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM}, syscall.SIGTERM},
		"a node, many, INT": {true, []os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP, syscall.SIGINT}, syscall.SIGINT},
	} {
		signals := make(chan os.Signal)
		ctx := signalContext(signals, func() bool { return c.reloads })
		for _, s := range c.signals {
			signals <- s
		}
		<-ctx.Done()
		if got := context.Cause(ctx); !errors.Is(got, signalled{int(c.want)}) {
			t.Errorf("%s: ended by %v, want %v", name, got, c.want)
		}
		close(signals)
	}
}

func TestOnlyServeReloads(t *testing.T) {
	root := (&app{}).root()
	for _, args := range [][]string{{"serve", "--data-dir", "d"}, {"-o", "json", "serve"}, {"--output=json", "serve", "--fast"}} {
		if !reloads(root, args) {
			t.Errorf("%q does not reload", args)
		}
	}
	for _, args := range [][]string{nil, {"dev"}, {"run", "a", "--", "serve"}, {"acquire", "serve"}, {"nonsense"}, {"--nonsense", "serve"}} {
		if reloads(root, args) {
			t.Errorf("%q reloads", args)
		}
	}
}

func TestReloadTakesUpWhatItCanAndNothingOfAFaultyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "locknode.yaml")
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.String("config", "", "")
	addSettingFlags(flags)
	if err := flags.Parse([]string{"--config", file, "--data-dir", "d"}); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log_level: info\nzone: here\n")
	unset := func(string) (string, bool) { return "", false }
	_, all, err := resolve(flags, unset)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	level := &slog.LevelVar{}
	r := &reloader{flags: flags, lookup: unset, level: level, current: all, log: newLogger(&out, level, "text")}
	for _, c := range []struct {
		text  string
		level slog.Level
		want  []string
	}{
		{"log_level: debug\nzone: here\n", slog.LevelDebug, []string{`msg="configuration reloaded" changed=[log_level]`}},
		{"log_level: debug\nzone: here\n", slog.LevelDebug, []string{`msg="configuration reloaded" changed=[]`}},
		{"log_level: loud\nzone: here\n", slog.LevelDebug, []string{"is not reloaded", "loud"}},
		{"log_level: warn\nlisten: 10.0.0.1:7400\n", slog.LevelDebug, []string{"is not reloaded", "insecure"}},
		{"log_level: error\nzone: there\n", slog.LevelError, []string{`msg="configuration reloaded" changed=[log_level]`, "settings=[zone]"}},
		{"log_level: info\nzone: here\n", slog.LevelInfo, []string{`msg="configuration reloaded" changed=[log_level]`}},
	} {
		out.Reset()
		write(c.text)
		r.reload(t.Context())
		if level.Level() != c.level {
			t.Errorf("after %q: level %v, want %v", c.text, level.Level(), c.level)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("after %q: logged %q, want %q in it", c.text, out.String(), want)
			}
		}
	}
}

// TestHangupReloadsAndNeverEndsANode sends SIGHUP as logrotate and ExecReload do.
func TestHangupReloadsAndNeverEndsANode(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	t.Parallel()
	file := filepath.Join(t.TempDir(), "locknode.yaml")
	write := func(text string) {
		t.Helper()
		base := "node_id: n1\nlisten: 127.0.0.1:0\nbootstrap_expect: 1\nfast: true\ndata_dir: " + filepath.Join(filepath.Dir(file), "data") + "\n"
		if err := os.WriteFile(file, []byte(base+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("zone: here\n")
	r := start(t, command(t, "locknode", "serve", "--config", file))
	r.await("msg=ready")
	write("log_level: debug\nzone: here\n")
	r.signal(syscall.SIGHUP)
	r.await(`msg="configuration reloaded" changed=[log_level]`)

	write("log_level: loud\n")
	r.signal(syscall.SIGHUP)
	r.await("configuration is not reloaded")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	r.await("configuration is not reloaded")

	write("log_level: info\nzone: there\n")
	r.signal(syscall.SIGHUP)
	r.await(`msg="configuration reloaded" changed=[log_level]`)
	r.await("settings=[zone]")
	r.signal(syscall.SIGHUP)
	r.await(`msg="configuration reloaded" changed=[]`)

	r.signal(syscall.SIGTERM)
	r.await("stopping")
	if code := r.wait(); code != 0 {
		t.Errorf("after TERM: exit code %d, want 0", code)
	}
	r = start(t, underNohup(t, command(t, "locknode", "serve", "--config", file)))
	r.await("msg=ready")
	r.signal(syscall.SIGHUP)
	r.await(`msg="configuration reloaded" changed=[]`)
	r.signal(syscall.SIGTERM)
	r.wait()
}

// underNohup makes a command start with SIGHUP ignored.
func underNohup(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = sh
	return cmd
}

// A command that was started with nohup must go on after SIGHUP.
func TestIgnoredHangupStaysIgnored(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "nohup")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"acquire", "nohup", "--wait", "1m"}, {"run", "nohup", "--", "/bin/echo", "acquired"}} {
		cmd := underNohup(t, command(t, "locknode", args...))
		cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+sharedCluster(t).Endpoints()[0])
		r := start(t, cmd)
		awaitWaiters(t, c, "nohup", 1)
		r.signal(syscall.SIGHUP)
		r.signal(syscall.SIGHUP)
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		r.await("acquired")
		if code := r.wait(); code != 0 {
			t.Errorf("%q: exit code %d, want 0", args, code)
		}
		if args[0] == "acquire" {
			if _, err := c.ForceRelease(within(t, generous), "nohup", 0, "the test goes on"); err != nil {
				t.Fatal(err)
			}
			if g, err = c.Lock(within(t, generous), "nohup"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

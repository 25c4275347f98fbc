//go:build unix

package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// output collects what a helper prints while it runs.
type output struct {
	mu     sync.Mutex
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

// startHelper starts a shell that does what script says.
func startHelper(t *testing.T, script string) (*Helper, *output) {
	t.Helper()
	out := &output{}
	h, err := StartHelper(HelperOptions{
		Name: "helper", LogPath: filepath.Join(t.TempDir(), "helper.log"), Stdout: out, Binary: "/bin/sh", Args: []string{"-c", script},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.Running() {
			_ = h.Kill() // fails only for one that has ended by now
		}
	})
	return h, out
}

func prints(t *testing.T, out *output, text string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it printed %q, want %q", out.String(), text)
		}
	}
}

func TestHelperIsToldAndEndsWithItsInput(t *testing.T) {
	t.Setenv("LOCKNODE_LISTEN", "10.0.0.1:1")
	h, out := startHelper(t, `while read -r line; do echo "heard $line$LOCKNODE_LISTEN"; done; echo over`)
	for _, line := range []string{"one", "two"} {
		if err := h.Tell(line); err != nil {
			t.Fatal(err)
		}
		prints(t, out, "heard "+line+"\n")
	}
	for range 2 {
		if err := h.Finish(within(t, 10*time.Second)); err != nil {
			t.Errorf("Finish: %v", err)
		}
	}
	prints(t, out, "over")
	if h.Running() {
		t.Error("it runs after Finish")
	}
	if err := h.Tell("three"); err == nil {
		t.Error("Tell after the end: want an error")
	}
}

func TestPausedHelperDoesNothingUntilItGoesOn(t *testing.T) {
	h, out := startHelper(t, `read -r line; echo "heard $line"; cat`)
	if err := h.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := h.Tell("one"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.Finish(ctx); !errors.Is(err, context.DeadlineExceeded) || out.String() != "" {
		t.Errorf("while it is paused: Finish says %v, it printed %q", err, out.String())
	}
	if err := h.Resume(); err != nil {
		t.Fatal(err)
	}
	prints(t, out, "heard one")
	if err := h.Finish(within(t, 10*time.Second)); err != nil {
		t.Errorf("Finish: %v", err)
	}
}

func TestHelperThatFailsIsReportedWithItsLastWords(t *testing.T) {
	h, _ := startHelper(t, `echo "out of paper" >&2; exit 3`)
	if err := h.Finish(within(t, 10*time.Second)); err == nil || !strings.Contains(err.Error(), "out of paper") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Finish: got %v, want how and why it ended", err)
	}
	if h.Pause() == nil || h.Kill() == nil {
		t.Error("signals to a process that has ended: want errors")
	}
}

func TestKilledHelperIsReaped(t *testing.T) {
	h, _ := startHelper(t, `exec sleep 100`)
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if h.Running() || alive(h.PID()) {
		t.Error("Kill returned before it was gone")
	}
	if _, err := StartHelper(HelperOptions{Name: "nobody", LogPath: filepath.Join(t.TempDir(), "log"), Binary: "/nothing/here"}); err == nil {
		t.Error("StartHelper without a program: want an error")
	}
}

func TestNodesArePreparedBeforeTheyStart(t *testing.T) {
	var prepared []string
	prepare := func(n *Node) error {
		if n.Running() || n.PID() != 0 {
			t.Errorf("node %s runs before it was prepared", n.ID)
		}
		prepared = append(prepared, n.ID+" "+n.API())
		return nil
	}
	c := startCluster(t, Options{Nodes: 2, Prepare: prepare})
	if _, err := c.Add(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range c.Nodes() {
		want = append(want, n.ID+" "+n.API())
	}
	if got := strings.Join(prepared, ", "); got != strings.Join(want, ", ") {
		t.Errorf("prepared were %s, want %s", got, strings.Join(want, ", "))
	}
	bad := errors.New("no such disk")
	if _, err := Start(within(t, 10*time.Second), Options{Nodes: 1, Dir: t.TempDir(), Prepare: func(*Node) error { return bad }}); !errors.Is(err, bad) {
		t.Errorf("Start: got %v, want what Prepare said", err)
	}
}

func TestNodesAreStartedWhereTheyAreToBe(t *testing.T) {
	entered := make(chan string, 10)
	c := startCluster(t, Options{Nodes: 2, Host: func(id string) (string, error) { return "127.0.0." + id[1:], nil },
		Enter: func(id string) error { entered <- id; return nil }})
	for i, n := range c.Nodes() {
		if got, want := n.API(), fmt.Sprintf("127.0.0.%d:", i+1); !strings.HasPrefix(got, want) {
			t.Errorf("node %s is at %s, want %s", n.ID, got, want)
		}
		if got := <-entered; got != n.ID {
			t.Errorf("entered for %s, want %s", got, n.ID)
		}
	}
	nowhere := errors.New("no such place")
	for _, o := range []Options{{Host: func(string) (string, error) { return "", nowhere }}, {Enter: func(string) error { return nowhere }}} {
		o.Nodes, o.Dir = 1, t.TempDir()
		if _, err := Start(within(t, 10*time.Second), o); !errors.Is(err, nowhere) {
			t.Errorf("Start: got %v, want why not", err)
		}
	}
}

func TestDiscardedNodeIsGoneAndItsNameIsFree(t *testing.T) {
	c := startCluster(t, Options{Nodes: 2})
	n, err := c.Add(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Discard(n); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Dir); n.Running() || !errors.Is(err, os.ErrNotExist) || len(c.Nodes()) != 2 || c.Node("n3") != nil {
		t.Errorf("after Discard: running %v, directory %v, %d nodes", n.Running(), err, len(c.Nodes()))
	}
	if err := c.Discard(c.Node("n1")); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Add(within(t, 10*time.Second)); err != nil || again.ID != "n1" {
		t.Errorf("Add: got %v, %v, want the first ID that is free", again, err)
	}
}

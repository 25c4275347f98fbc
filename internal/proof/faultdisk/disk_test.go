//go:build unix

package faultdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// actAs makes this binary a faultfs that mounts nothing, and behaves as it says.
const actAs = "LOCKNODE_TEST_FAULTFS"

func TestMain(m *testing.M) {
	if role := os.Getenv(actAs); role != "" {
		os.Exit(play(role))
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func play(role string) int {
	switch role {
	case "cannot mount":
		fmt.Fprintln(os.Stderr, "faultfs: cannot mount here: no device")
		return exitCannotMount
	case "talkative":
		fmt.Println("hello")
		return 0
	case "slow":
		time.Sleep(time.Hour)
	}
	fmt.Println("ready")
	for {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return 0
		}
		switch line {
		case "stats":
			fmt.Println(`ok {"n":1}`)
		case "clear":
			fmt.Println("ok")
		case "die":
			fmt.Fprintln(os.Stderr, "out of order")
			return 1
		default:
			fmt.Println("error: there is no " + line)
		}
	}
}

func start(t *testing.T, role string) (*Disk, error) {
	t.Helper()
	t.Setenv(actAs, role)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return Start(ctx, os.Args[0], t.TempDir(), t.TempDir())
}

func TestCommandsAreAnswered(t *testing.T) {
	d, err := start(t, "faultfs")
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"stats": `{"n":1}`, "clear": ""} {
		if got, err := d.Do(command); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", command, got, err, want)
		}
	}
	for command, says := range map[string]string{"nonsense": "nonsense: there is no nonsense", "clear\nclear": "several lines"} {
		if _, err := d.Do(command); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want an error that says %q", command, err, says)
		}
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Do("clear"); err == nil {
		t.Error("a command after Close succeeds")
	}
}

func TestEndOfTheProcessIsExplained(t *testing.T) {
	d, err := start(t, "faultfs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Do("die"); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("got %v, want what it printed", err)
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("Close: got %v, want what it printed", err)
	}
}

func TestWhatCannotMountIsUnavailable(t *testing.T) {
	if _, err := start(t, "cannot mount"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no device") {
		t.Errorf("got %v, want ErrUnavailable and the reason", err)
	}
	if _, err := start(t, "talkative"); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("another program: got %v, want an error", err)
	}
	if _, err := Start(t.Context(), "/nowhere/faultfs", "/", "/"); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("no program: got %v, want an error", err)
	}
}

func TestWaitingForTheMountEndsWithItsContext(t *testing.T) {
	t.Setenv(actAs, "slow")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, os.Args[0], t.TempDir(), t.TempDir()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

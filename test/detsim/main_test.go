package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestRunsAreIdenticalWithTheOverlay runs the samples in processes of their own:
// with the overlay and one seed all do the same, with another seed something
// else, and without the overlay no two do the same.
func TestRunsAreIdenticalWithTheOverlay(t *testing.T) {
	testall.Only(t, "builds the standard library anew")
	const runs = 10
	version, root, err := goEnv()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, err := write(dir, version, filepath.Join(root, "src", "runtime"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	with := filepath.Join(dir, "samples")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", file, "-o", with, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	first := samples(ctx, t, with, 1, repeatVariable+"=1")
	if len(first) < 6 {
		t.Fatalf("samples = %q, want three of each", first)
	}
	for i := range runs - 1 {
		if got := samples(ctx, t, with, 1, repeatVariable+"=1"); !slices.Equal(got, first) {
			t.Errorf("run %d with the overlay differs from the first:\n%s\n%s", i+2, strings.Join(got, "\n"), strings.Join(first, "\n"))
		}
	}
	if other := samples(ctx, t, with, 2, repeatVariable+"=1"); common(other, first) > 0 {
		t.Errorf("seed 2 gives what seed 1 does:\n%s\n%s", strings.Join(other, "\n"), strings.Join(first, "\n"))
	}
	without, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	first = samples(ctx, t, without, 1)
	for range 3 {
		if got := samples(ctx, t, without, 1); common(got, first) > 0 {
			t.Errorf("two runs without the overlay have something in common:\n%s\n%s", strings.Join(got, "\n"), strings.Join(first, "\n"))
		}
	}
}

// samples runs a test binary and returns the lines of its samples.
func samples(ctx context.Context, t *testing.T, binary string, seed uint64, more ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^TestSample", "-test.timeout", "2m")
	cmd.Env = slices.Concat(os.Environ(), environment(seed), []string{sampleVariable + "=1"}, more)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s with seed %d: %v\n%s", binary, seed, err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, samplePrefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// common counts the lines that are in both.
func common(a, b []string) int {
	n := 0
	for _, line := range a {
		if slices.Contains(b, line) {
			n++
		}
	}
	return n
}

// fakeRuntime is a directory with files that have all the anchors of the edits.
func fakeRuntime(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range edits {
		var b strings.Builder
		for _, edit := range e.edits {
			b.WriteString(edit.Anchor)
		}
		if err := os.WriteFile(filepath.Join(dir, e.file), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// knowFake makes a version known for the time of a test.
func knowFake(t *testing.T, version, source string) {
	t.Helper()
	known[version] = make(map[string]string)
	t.Cleanup(func() { delete(known, version) })
	for _, e := range edits {
		s, err := sum(filepath.Join(source, e.file))
		if err != nil {
			t.Fatal(err)
		}
		known[version][e.file] = s
	}
}

func TestUnknownGoIsRefused(t *testing.T) {
	source := fakeRuntime(t)
	out := filepath.Join(t.TempDir(), "out")
	_, err := write(out, "go1.99.1", source)
	if err == nil {
		t.Fatal("write for go1.99.1: no error")
	}
	for _, want := range []string{"go1.99.1 is not known", "go1.26.8", `"select.go": "`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("write for go1.99.1 = %v, want it to say %q", err, want)
		}
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

func TestChangedRuntimeIsRefused(t *testing.T) {
	source := fakeRuntime(t)
	knowFake(t, "go1.99.1", source)
	if _, err := write(t.TempDir(), "go1.99.1", source); err != nil {
		t.Fatalf("write: %v", err)
	}
	for _, e := range edits {
		path := filepath.Join(source, e.file)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(slices.Clip(before), '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := write(t.TempDir(), "go1.99.1", source); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("write with another %s = %v, want an error that names it", e.file, err)
		}
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMissingAndDoubleAnchorsAreRefused(t *testing.T) {
	for _, e := range edits {
		for _, edit := range e.edits {
			for _, with := range []string{"", edit.Anchor + edit.Anchor} {
				source := fakeRuntime(t)
				path := filepath.Join(source, e.file)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, bytes.Replace(b, []byte(edit.Anchor), []byte(with), 1), 0o644); err != nil {
					t.Fatal(err)
				}
				knowFake(t, "go1.99.1", source)
				if _, err := write(t.TempDir(), "go1.99.1", source); err == nil || !strings.Contains(err.Error(), "anchor is found") {
					t.Errorf("write with %d bytes for the anchor %q = %v, want an error", len(with), edit.Anchor, err)
				}
			}
		}
	}
}

func TestSeedOutOfRangeIsRefused(t *testing.T) {
	var out bytes.Buffer
	for _, args := range [][]string{{"-seed", "1152921504606846976"}, {"-seed", "-1"}, {"-seed", "x"}, {"-what"}} {
		if code, err := run(args, &out, &out); code != 2 {
			t.Errorf("run(%q) = %d, %v, want 2", args, code, err)
		}
	}
}

func TestCommandIsReadByAShellAsItIsRun(t *testing.T) {
	command := testCommand("/a dir/it's/overlay.json", 7)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf '%s\\n' "+quote(command)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); !slices.Equal(got, command) {
		t.Errorf("a shell reads %q, want %q", got, command)
	}
}

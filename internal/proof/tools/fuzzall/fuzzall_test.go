package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/testall"
)

// module makes a module of these files.
func module(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files["go.mod"] = "module example.org/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const goodTarget = `package m

import "testing"

func FuzzGood(f *testing.F) {
	f.Add([]byte("seed"))
	f.Fuzz(func(t *testing.T, b []byte) {})
}

func helper(f *testing.F) {} // not a target
`

const badTarget = `package sub_test

import "testing"

func FuzzBad(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && b[0] == 'x' {
			t.Fatal("met an x")
		}
	})
}
`

func TestFailingTargetIsReportedWithItsInput(t *testing.T) {
	testall.Only(t, "builds and fuzzes a module")
	dir := module(t, map[string]string{"m_test.go": goodTarget, "sub/sub_test.go": badTarget})
	var out strings.Builder
	err := fuzzAll(t.Context(), []string{"-C", dir, "-time", "20s", "-minimize", "1s", "-run", "Bad"}, &out)
	if err == nil {
		t.Fatalf("a target that fails was not noticed:\n%s", &out)
	}
	inputs, _ := filepath.Glob(filepath.Join(dir, "sub/testdata/fuzz/FuzzBad/*"))
	if len(inputs) != 1 || !strings.Contains(err.Error(), filepath.Base(inputs[0])) {
		t.Errorf("error %q does not name the input %q", err, inputs)
	}
	for _, want := range []string{"met an x", "1 failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in the output:\n%s", want, &out)
		}
	}
	// Now it is part of the corpus, and fails as such.
	err = fuzzAll(t.Context(), []string{"-C", dir, "-time", "2s", "-run", "Bad"}, &out)
	if err == nil || !strings.Contains(err.Error(), filepath.Base(inputs[0])) {
		t.Errorf("error of a corpus that fails: %v", err)
	}
}

func TestGoodTargetsAreCounted(t *testing.T) {
	testall.Only(t, "builds and fuzzes a module")
	dir := module(t, map[string]string{"m_test.go": goodTarget})
	var out strings.Builder
	if err := fuzzAll(t.Context(), []string{"-C", dir, "-time", "1s"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "1 targets, ") || !strings.Contains(out.String(), "| FuzzGood |") {
		t.Errorf("output:\n%s", &out)
	}
}

func TestHangingTargetIsEnded(t *testing.T) {
	testall.Only(t, "builds and fuzzes a module")
	dir := module(t, map[string]string{"m_test.go": `package m

import (
	"testing"
	"time"
)

func FuzzHangs(f *testing.F) {
	f.Add([]byte("seed"))
	f.Fuzz(func(t *testing.T, b []byte) { time.Sleep(time.Hour) })
}
`})
	var out strings.Builder
	err := fuzzAll(t.Context(), []string{"-C", dir, "-time", "1s", "-grace", "2s"}, &out)
	if err == nil || !strings.Contains(err.Error(), "FuzzHangs: does not stop") {
		t.Errorf("a target that hangs: %v\n%.2000s", err, &out)
	}
}

func TestNoTargetsIsAnError(t *testing.T) {
	dir := module(t, map[string]string{"m.go": "package m\n"})
	var out strings.Builder
	for _, args := range [][]string{{"-C", dir}, {"-C", dir, "./none/..."}} {
		if err := fuzzAll(t.Context(), args, &out); err == nil {
			t.Errorf("%q found nothing to run and returned no error", args)
		}
	}
	for _, args := range [][]string{{"-time", "0"}, {"-jobs", "0"}, {"-slice", "-1"}, {"-run", "("}} {
		if err := fuzzAll(t.Context(), args, &out); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestTargetThatExecutesNothingFails(t *testing.T) {
	out := result{output: "fuzz: elapsed: 0s, gathering baseline coverage: 0/1 completed\nPASS\n"}
	if out.read(); out.executions != 0 {
		t.Errorf("read %d executions where there were none", out.executions)
	}
	out = result{output: "fuzz: elapsed: 3s, execs: 10 (3/sec), new interesting: 1 (total: 2)\n" +
		"fuzz: elapsed: 6s, execs: 52 (14/sec), new interesting: 4 (total: 9)\nPASS\n"}
	if out.read(); out.executions != 52 || out.fresh != 4 || out.corpus != 9 {
		t.Errorf("read %+v", out)
	}
}

func TestTheEndOfTheTimeIsNoFailure(t *testing.T) {
	const ran = "fuzz: elapsed: 20s, execs: 18094 (838/sec), new interesting: 47 (total: 71)\n"
	const end = "--- FAIL: FuzzX (20.06s)\n    context deadline exceeded\nFAIL\n"
	for output, want := range map[string]bool{
		ran + end: true,
		end:       false, // it has executed nothing
		ran + "--- FAIL: FuzzX (1.02s)\n    --- FAIL: FuzzX (0.00s)\n        x_test.go:3: context deadline exceeded\n" +
			"    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n": false,
		ran + "--- FAIL: FuzzX (20.06s)\n    context deadline exceeded\n    x_test.go:3: wrong\nFAIL\n": false,
	} {
		r := result{target: target{pkg: &pkg{}}, output: output}
		r.read()
		if got := r.onlyOver(); got != want {
			t.Errorf("%q: got %v, want %v", output, got, want)
		}
	}
}

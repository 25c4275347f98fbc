package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/testall"
)

// reported runs the tests of a module and returns what is told of them.
func reported(t *testing.T, files map[string]string, args ...string) (string, error) {
	t.Helper()
	testall.Only(t, "builds and tests a module")
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-vet=off", "-json"}, append(args, "./...")...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	events, _ := cmd.Output() // it fails where a test does
	var out strings.Builder
	err := run(strings.NewReader(string(events)), &out)
	return out.String(), err
}

const tests = `package m

import "testing"

func TestGood(t *testing.T) { t.Log("nobody wants to know") }

func TestLeftOut(t *testing.T) { t.Skip("no time: today") }
`

func TestSuccessIsToldInAFewLines(t *testing.T) {
	out, err := reported(t, map[string]string{"m_test.go": tests})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"ok   example.com/m ", "skipped: 1 × no time: today\n", "2 tests in 1 packages, 1 skipped\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("without %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "nobody wants to know") {
		t.Errorf("tells what a good test printed:\n%s", out)
	}
}

func TestFailuresAreTheEndOfTheReport(t *testing.T) {
	for name, c := range map[string]struct {
		text, failed string
		last         []string // in this order, after everything that is well
	}{
		"a test": {
			`func TestBad(t *testing.T) { t.Error("two and two") }`, "example.com/m/bad TestBad",
			[]string{"FAILED: example.com/m/bad TestBad\n", "bad_test.go:5: two and two\n"},
		},
		"a subtest": {
			`func TestBad(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("two and two") }) }`, "example.com/m/bad TestBad/sub",
			[]string{"FAILED: example.com/m/bad TestBad/sub\n", "bad_test.go:5: two and two\n"},
		},
		"a panic": {
			`func TestBad(t *testing.T) { panic("two and two") }`, "example.com/m/bad TestBad",
			[]string{"FAILED: example.com/m/bad TestBad\n", "panic: two and two", "bad_test.go:5"},
		},
		"the time limit": {
			`func TestBad(t *testing.T) { select {} }`, "example.com/m/bad TestBad",
			[]string{"FAILED: example.com/m/bad TestBad\n", "test timed out after 1s", "bad_test.go:5"},
		},
		"what does not compile": {
			`func TestBad(t *testing.T) { two }`, "example.com/m/bad",
			[]string{"FAILED: example.com/m/bad\n", "bad_test.go:5"},
		},
		"the end of the process": {
			`func TestBad(t *testing.T) { println("two and two"); syscall.Exit(3) }`, "example.com/m/bad TestBad",
			[]string{"FAILED: example.com/m/bad TestBad\n", "two and two"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := "package m\n\nimport \"testing\"\n\n" + c.text + "\n"
			if strings.Contains(text, "syscall.") {
				text = strings.Replace(text, `"testing"`, `("syscall"; "testing")`, 1)
			}
			out, err := reported(t, map[string]string{"m_test.go": tests, "bad/bad_test.go": text, "zgood/m_test.go": tests}, "-timeout", "1s")
			if err == nil || !strings.Contains(err.Error(), c.failed) {
				t.Errorf("got %v, want that %q failed", err, c.failed)
			}
			rest := out[strings.LastIndex(out, "tests in 3 packages"):]
			for _, want := range c.last {
				var ok bool
				if _, rest, ok = strings.Cut(rest, want); !ok {
					t.Errorf("without %q after all else:\n%s", want, out)
					break
				}
			}
		})
	}
}

func TestATestWithoutAnEndHasFailed(t *testing.T) {
	var out strings.Builder
	err := run(strings.NewReader(`{"Action":"pass","Package":"a","Elapsed":1}
{"Action":"run","Package":"b","Test":"TestCut"}
{"Action":"output","Package":"b","Test":"TestCut","Output":"two and two\n"}
`), &out)
	if err == nil || !strings.Contains(err.Error(), "b TestCut") || !strings.HasSuffix(out.String(), "FAILED: b TestCut\ntwo and two\n") {
		t.Errorf("got %v and %q, want that TestCut has failed", err, &out)
	}
}

func TestNothingIsNoSuccess(t *testing.T) {
	var out strings.Builder
	if err := run(strings.NewReader("go: warning: no packages\n"), &out); err == nil || !strings.Contains(out.String(), "go: warning") {
		t.Errorf("got %v and %q, want an error and what go said", err, &out)
	}
}

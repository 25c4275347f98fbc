package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// verdict is what a test did with a mutant.
type verdict int

const (
	caught   verdict = iota // the test failed in time
	survived                // the test passed
	hung                    // the test did not end in time
)

// outcome is the result of one mutant with one of its catchers.
type outcome struct {
	mutant  *mutant
	catcher catcher
	verdict verdict
	test    string        // that failed
	took    time.Duration // the test's running time, without building
	output  string        // of the test
}

// runner builds and runs tests in a module.
type runner struct {
	root    string        // of the module
	work    string        // a directory of its own
	timeout time.Duration // of one test's running time
	plain   map[string]string
}

// baseline runs a catcher without a mutant. It must pass, because otherwise its failure with
// a mutant would mean nothing.
func (r *runner) baseline(ctx context.Context, c catcher) (time.Duration, error) {
	binary, ok := r.plain[c.pkg]
	if !ok {
		binary = filepath.Join(r.work, fmt.Sprintf("plain%d.test", len(r.plain)))
		if err := r.build(ctx, c.pkg, binary); err != nil {
			return 0, err
		}
		if r.plain == nil {
			r.plain = make(map[string]string)
		}
		r.plain[c.pkg] = binary
	}
	o, err := r.run(ctx, c, binary)
	if err != nil {
		return 0, err
	}
	if o.verdict != survived {
		return 0, fmt.Errorf("%s does not pass without a mutant:\n%s", c, tail(o.output))
	}
	return o.took, nil
}

// try builds the test with the mutant and runs it.
func (r *runner) try(ctx context.Context, m *mutant, c catcher) (outcome, error) {
	set, err := m.overlay(r.root)
	if err != nil {
		return outcome{}, err
	}
	dir := filepath.Join(r.work, m.name)
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := set.Write(dir)
	if err != nil {
		return outcome{}, err
	}
	binary := filepath.Join(dir, "mutant.test")
	if err := r.build(ctx, c.pkg, binary, "-overlay", file); err != nil {
		return outcome{}, fmt.Errorf("mutant %s: %w", m.name, err)
	}
	o, err := r.run(ctx, c, binary)
	o.mutant = m
	if err != nil {
		err = fmt.Errorf("mutant %s: %w", m.name, err)
	}
	return o, err
}

func (r *runner) build(ctx context.Context, pkg, binary string, flags ...string) error {
	args := append([]string{"test", "-c", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = r.root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// grace is how long a test may take to end after its timeout.
const grace = 10 * time.Second

// run runs a test binary. A mutant is caught only if a test ran and failed; anything else
// that goes wrong is an error.
func (r *runner) run(ctx context.Context, c catcher, binary string) (outcome, error) {
	o := outcome{catcher: c}
	ctx, cancel := context.WithTimeout(ctx, r.timeout+grace)
	defer cancel()
	args := append([]string{"-test.run", c.run, "-test.v", "-test.failfast", "-test.timeout", r.timeout.String()}, strings.Fields(c.args)...)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = filepath.Join(r.root, c.pkg)
	cmd.WaitDelay = grace
	// Files that the test leaves in TMPDIR are removed with work. A catcher may be a test of
	// make test-all, which needs the variable.
	cmd.Env = append(os.Environ(), "TMPDIR="+r.work, testall.Variable+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	o.took, o.output = time.Since(began), out.String()
	var exit *exec.ExitError
	switch {
	case !strings.Contains(o.output, "=== RUN "):
		return o, fmt.Errorf("%s: %w\n%s", c, errors.Join(errNoTest, err), tail(o.output))
	case strings.Contains(o.output, "panic: test timed out after ") || errors.Is(ctx.Err(), context.DeadlineExceeded):
		o.verdict = hung
	case ctx.Err() != nil:
		return o, ctx.Err()
	case err == nil && !strings.Contains(o.output, "--- PASS: "):
		return o, fmt.Errorf("%s: no test passed, all were skipped:\n%s", c, tail(o.output))
	case err == nil:
		o.verdict = survived
	case errors.As(err, &exit):
		o.verdict, o.test = caught, failed(o.output)
	default:
		return o, fmt.Errorf("%s: %w", c, err)
	}
	return o, nil
}

var (
	failPattern = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	runPattern  = regexp.MustCompile(`(?m)^=== RUN\s+(\S+)`)
)

// failed returns the test that failed, from the output of -test.v. If the process crashed,
// that is the last test that was started.
func failed(output string) string {
	if m := failPattern.FindStringSubmatch(output); m != nil {
		return m[1]
	}
	if all := runPattern.FindAllStringSubmatch(output, -1); all != nil {
		return all[len(all)-1][1]
	}
	return ""
}

// tail returns the end of a test's output.
func tail(output string) string {
	const lines = 40
	all := strings.SplitAfter(output, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

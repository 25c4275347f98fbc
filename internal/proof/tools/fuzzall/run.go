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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// result is what a target has done.
type result struct {
	target
	executions int
	fresh      int // inputs found that reach something new
	corpus     int // inputs known: seeds, the repository's corpus, and the cache's
	took       time.Duration
	err        error
	output     string // what it said; shown if it failed
}

// runner runs targets.
type runner struct {
	time     time.Duration // of fuzzing, each
	minimize time.Duration // spent on making an input smaller, each
	grace    time.Duration // beyond time, after which a target hangs
	cache    string        // where inputs that were found are kept between runs
	bin      string        // where test binaries are built
}

// build makes the test binary of a package.
func (r *runner) build(ctx context.Context, p *pkg) error {
	p.binary = filepath.Join(r.bin, strings.ReplaceAll(p.ImportPath, "/", "_")+".test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=Fuzz", "-o", p.binary, ".") // -fuzz: with instrumentation
	build.Dir = p.Dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build tests of %s: %w\n%s", p.ImportPath, err, out)
	}
	return nil
}

// run fuzzes one target.
func (r *runner) run(ctx context.Context, t target) result {
	out := result{target: t}
	ctx, cancel := context.WithTimeoutCause(ctx, r.time+r.grace, errHangs)
	defer cancel()
	fuzz := exec.CommandContext(ctx, t.pkg.binary,
		"-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+r.time.String(), "-test.fuzzminimizetime="+r.minimize.String(),
		"-test.parallel=1", "-test.fuzzcachedir="+filepath.Join(r.cache, t.pkg.ImportPath))
	fuzz.Dir = t.pkg.Dir // where its corpus lies
	var said bytes.Buffer
	fuzz.Stdout, fuzz.Stderr = &said, &said
	fuzz.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	fuzz.Cancel = func() error { return syscall.Kill(-fuzz.Process.Pid, syscall.SIGKILL) } // its worker as well
	fuzz.WaitDelay = 5 * time.Second
	begun := time.Now()
	err := fuzz.Run()
	out.took, out.output = time.Since(begun), said.String()
	if fuzz.Process != nil {
		_ = syscall.Kill(-fuzz.Process.Pid, syscall.SIGKILL) // what may be left
	}
	out.read()
	switch {
	case ctx.Err() != nil:
		out.err = context.Cause(ctx)
	case err != nil && out.onlyOver():
	case err != nil:
		out.err = err
		if path := out.reproducer(); path != "" {
			out.err = fmt.Errorf("failed on %s", path)
		}
	case out.executions == 0:
		out.err = errNothing
	}
	return out
}

// onlyOver reports whether all that has failed is the end of the time: Go before 1.27 at
// times takes that for an error of the target (golang/go#75804).
func (out *result) onlyOver() bool {
	return out.executions > 0 && out.reproducer() == "" && over.MatchString(out.output)
}

var (
	errHangs   = errors.New("does not stop")
	errNothing = errors.New("executed nothing")

	progress = regexp.MustCompile(`(?m)^fuzz: elapsed: .* execs: (\d+) .*new interesting: (\d+) \(total: (\d+)\)`)
	over     = regexp.MustCompile(`(?m)^--- FAIL: \S+ \(\S+\)\n    context deadline exceeded\nFAIL\n?\z`)
	written  = regexp.MustCompile(`Failing input written to (\S+)`)
	seed     = regexp.MustCompile(`failure while testing seed corpus entry: (\S+)`)
)

// read takes the figures of the last line of progress.
func (out *result) read() {
	all := progress.FindAllStringSubmatch(out.output, -1)
	if len(all) == 0 {
		return
	}
	last := all[len(all)-1]
	out.executions, _ = strconv.Atoi(last[1]) // digits only
	out.fresh, _ = strconv.Atoi(last[2])
	out.corpus, _ = strconv.Atoi(last[3])
}

// reproducer is the file that holds the input that failed.
func (out *result) reproducer() string {
	if m := written.FindStringSubmatch(out.output); m != nil {
		return filepath.Join(out.pkg.Dir, m[1])
	}
	if m := seed.FindStringSubmatch(out.output); m != nil {
		return filepath.Join(out.pkg.Dir, "testdata", "fuzz", m[1])
	}
	return ""
}

// again is the command that runs the input that failed.
func (out *result) again() string {
	run := out.name
	if path := out.reproducer(); path != "" {
		run += "/" + filepath.Base(path)
	}
	return fmt.Sprintf("go test %s -run '^%s$'", out.pkg.ImportPath, run)
}

// defaultCache is where `go test -fuzz` keeps its inputs, too.
func defaultCache(ctx context.Context) (string, error) {
	dir, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", withStderr(err))
	}
	path := filepath.Join(strings.TrimSpace(string(dir)), "fuzz")
	return path, os.MkdirAll(path, 0o777)
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// errSurvived means that a test did not catch a deliberate bug.
var errSurvived = errors.New("not caught")

// errNoTest means that the test of a mutant does not exist or was skipped.
var errNoTest = errors.New("no test was run")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if code := exitCode(err); code != 0 {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(code)
	}
}

func exitCode(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errSurvived):
		return 1
	}
	return 2
}

// settings are the values of the flags.
type settings struct {
	run      *regexp.Regexp
	list     bool
	markdown bool
	verbose  bool
	slice    int
	simulate string
	timeout  time.Duration
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("run", "", "only mutants whose name matches the `regexp`")
	flags.BoolVar(&s.list, "list", false, "print the mutants and run nothing")
	flags.BoolVar(&s.markdown, "markdown", false, "print the table for docs/testing.md; with -list: without times")
	flags.BoolVar(&s.verbose, "v", false, "print the end of each test's output")
	flags.IntVar(&s.slice, "slice", 0, "only `n` mutants, different ones each day (or by TEST_SEED); 0: all")
	flags.StringVar(&s.simulate, "simulate", "", "run the simulation with this `profile` instead of the tests")
	flags.DurationVar(&s.timeout, "timeout", time.Minute, "the `time` that one test may run")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("argument: is %q, must be a flag", flags.Arg(0))
	case s.slice < 0:
		return s, fmt.Errorf("-slice: is %d, must be 0 or more", s.slice)
	case s.timeout <= 0:
		return s, fmt.Errorf("-timeout: is %s, must be more than 0", s.timeout)
	}
	var err error
	if s.run, err = regexp.Compile(*pattern); err != nil {
		return s, fmt.Errorf("-run: %w", err)
	}
	return s, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if err := check(root, all()); err != nil {
		return err
	}
	chosen := slices.DeleteFunc(all(), func(m mutant) bool { return !s.run.MatchString(m.name) })
	if len(chosen) == 0 {
		return fmt.Errorf("-run: is %q, which matches no mutant", s.run)
	}
	if s.simulate != "" {
		for i := range chosen {
			chosen[i].caught = []catcher{simulated(s.simulate, 1000)}
		}
	}
	chosen = testall.Slice(chosen, s.slice, testall.Turn())
	switch {
	case s.list && s.markdown:
		return printRows(stdout, chosen)
	case s.list:
		return printList(stdout, chosen)
	}
	return tryAll(ctx, root, chosen, s, stdout)
}

// all returns the mutants of all packages.
func all() []mutant {
	return slices.Concat(
		tableMutants, fsmMutants, shareMutants, clientMutants, nodeMutants, guardMutants, logMutants, frameMutants,
		identityMutants, limitMutants, memoryMutants, queueMutants, strangerMutants, gossipMutants, peopleMutants,
		levelMutants, rightsTableMutants, rightsNodeMutants, rightsClientMutants, certMutants, secureMutants, gossipKeyMutants,
		simulationMutants, programMutants, wordMutants, auditMutants,
	)
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	path := strings.TrimSpace(string(out))
	if path == "" || path == os.DevNull {
		return "", errors.New("not in a module: run it in the repository")
	}
	return filepath.Dir(path), nil
}

// tryAll runs each test without and with its mutant, and reports the outcome.
func tryAll(ctx context.Context, root string, list []mutant, s settings, w io.Writer) error {
	work, err := os.MkdirTemp("", "locknode-mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	r := &runner{root: root, work: work, timeout: s.timeout}
	report := newReport(w, list, s.markdown)
	healthy := make(map[catcher]bool)
	for i := range list {
		m := &list[i]
		for _, c := range m.caught {
			if !healthy[c] && s.simulate == "" { // the simulation would run through all its seeds
				if _, err := r.baseline(ctx, c); err != nil {
					return err
				}
				healthy[c] = true
			}
			o, err := r.try(ctx, m, c)
			if err != nil {
				return err
			}
			report.add(o)
			if s.verbose || o.verdict != caught {
				_, _ = fmt.Fprintln(w, tail(o.output))
			}
		}
	}
	return report.end()
}

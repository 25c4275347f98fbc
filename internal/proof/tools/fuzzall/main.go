package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fuzzAll(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	time, minimize, grace time.Duration
	jobs, slice           int
	run                   *regexp.Regexp
	dir                   string
	packages              []string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("fuzzall", flag.ContinueOnError)
	flags.DurationVar(&o.time, "time", 30*time.Second, "how long to fuzz each target")
	flags.DurationVar(&o.minimize, "minimize", 2*time.Second, "how long to make an input smaller that fails or reaches something new")
	flags.DurationVar(&o.grace, "grace", 2*time.Minute, "how long after its time a target may take to stop")
	flags.IntVar(&o.jobs, "jobs", 2, "how many targets to run at once")
	flags.IntVar(&o.slice, "slice", 0, "only `n` targets, other ones each day (or by TEST_SEED); 0: all")
	flags.StringVar(&o.dir, "C", ".", "directory of the module")
	pattern := flags.String("run", "", "only targets whose name matches this regular expression")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.packages = flags.Args()
	if len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	switch {
	case o.time <= 0:
		return o, fmt.Errorf("-time: is %v, must be more than 0", o.time)
	case o.jobs < 1:
		return o, fmt.Errorf("-jobs: is %d, must be 1 or more", o.jobs)
	case o.slice < 0:
		return o, fmt.Errorf("-slice: is %d, must be 0 or more", o.slice)
	}
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return o, fmt.Errorf("run %q: %w", *pattern, err)
	}
	return o, nil
}

// fuzzAll runs the targets and returns an error that counts what is wrong.
func fuzzAll(ctx context.Context, args []string, w io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	targets, err := find(ctx, o.dir, o.packages)
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t target) bool { return !o.run.MatchString(t.name) })
	if len(targets) == 0 {
		return fmt.Errorf("no fuzz target in %s matches %q", strings.Join(o.packages, " "), o.run)
	}
	targets = testall.Slice(targets, o.slice, testall.Turn())
	r := &runner{time: o.time, minimize: o.minimize, grace: o.grace}
	if r.cache, err = defaultCache(ctx); err != nil {
		return err
	}
	if r.bin, err = os.MkdirTemp("", "fuzzall-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.bin) }()
	for _, t := range targets {
		if t.pkg.binary == "" {
			if err := r.build(ctx, t.pkg); err != nil {
				return err
			}
		}
	}
	_, _ = fmt.Fprintf(w, "%d targets, %v each, %d at a time\n", len(targets), o.time, o.jobs)
	results := r.all(ctx, targets, o.jobs, w)
	return report(w, results)
}

// all runs the targets, jobs at a time.
func (r *runner) all(ctx context.Context, targets []target, jobs int, w io.Writer) []result {
	results := make([]result, len(targets))
	next := make(chan int)
	var mu sync.Mutex // guards w
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(func() {
			for i := range next {
				out := r.run(ctx, targets[i])
				results[i] = out
				mu.Lock()
				_, _ = fmt.Fprintf(w, "%-28s %10d executions  %s\n", out.name, out.executions, cmp.Or(errText(out.err), "ok"))
				mu.Unlock()
			}
		})
	}
	for i := range targets {
		next <- i
	}
	close(next)
	wg.Wait()
	return results
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return "FAIL: " + err.Error()
}

// report prints the table, which is Markdown, and what has failed said.
func report(w io.Writer, results []result) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "\n| target\t| package\t| executions\t| per second\t| inputs\t| new\t|")
	_, _ = fmt.Fprintln(table, "|---\t|---\t|---:\t|---:\t|---:\t|---:\t|")
	total := 0
	var failed []result
	for _, out := range results {
		total += out.executions
		if out.err != nil {
			failed = append(failed, out)
		}
		_, _ = fmt.Fprintf(table, "| %s\t| %s\t| %d\t| %.0f\t| %d\t| %d\t|\n", out.name, short(out.pkg.ImportPath),
			out.executions, float64(out.executions)/max(out.took.Seconds(), 1), out.corpus, out.fresh)
	}
	_ = table.Flush() // to a strings.Builder
	_, _ = fmt.Fprintf(w, "%s\n%d targets, %d executions, %d failed\n", b.String(), len(results), total, len(failed))
	var errs []error
	for _, out := range failed {
		if out.output != "" {
			_, _ = fmt.Fprintf(w, "\n--- %s (%s)\n%s\n", out.name, out.pkg.ImportPath, tail(out.output, 20_000))
		}
		errs = append(errs, fmt.Errorf("%s: %w\n  %s", out.name, out.err, out.again()))
	}
	return errors.Join(errs...)
}

// short is an import path without the module.
func short(path string) string {
	if parts := strings.SplitN(path, "/", 4); len(parts) == 4 && strings.Contains(parts[0], ".") {
		return parts[3]
	}
	return path
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

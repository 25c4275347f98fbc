package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// document is where -write puts the results: this program runs in bench/.
const document = "../docs/performance.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command returns the exit code: 1 if an answer was wrong or a measurement failed, 2 if the flags are wrong.
func command(ctx context.Context, args []string, out, progress io.Writer) int {
	p, skipped, write, err := parse(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(progress, "bench: %v\n", err)
		return 2
	}
	for _, line := range skipped {
		fmt.Fprintln(progress, line)
	}
	if err := compare(ctx, p, strings.Join(skipped, "; "), write, out); err != nil {
		fmt.Fprintf(progress, "bench: %v\n", err)
		return 1
	}
	return 0
}

// parse reads the flags.
func parse(args []string, progress io.Writer) (p *plan, skipped []string, write bool, err error) {
	p = &plan{progress: progress}
	all, loads := systems(), workloads()
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	f.IntVar(&p.rounds, "rounds", 5, "how often everything is measured")
	f.DurationVar(&p.duration, "duration", 3*time.Second, "how long each measurement takes")
	f.DurationVar(&p.warmup, "warmup", time.Second, "how long the load runs before each measurement")
	named := f.String("systems", "all", "a list with commas of "+joinNames(all, func(s *system) string { return s.name }))
	loaded := f.String("workloads", "all", "a list with commas of "+joinNames(loads, func(w workload) string { return w.name })+", or without the number")
	f.BoolVar(&write, "write", false, "write the table and plots into "+document)
	if err := f.Parse(args); err != nil {
		return nil, nil, false, err
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("arguments: are %q, must be none", f.Args()))
	}
	if p.rounds < 1 || p.rounds > 1000 {
		errs = append(errs, fmt.Errorf("-rounds: is %d, must be 1 to 1000", p.rounds))
	}
	if p.duration < 100*time.Millisecond || p.warmup < 0 {
		errs = append(errs, fmt.Errorf("-duration and -warmup: are %v and %v, must be at least 100ms and at least 0", p.duration, p.warmup))
	}
	p.systems, skipped, err = pickSystems(all, *named)
	errs = append(errs, err)
	p.workloads, err = pickWorkloads(loads, *loaded)
	return p, skipped, write, errors.Join(append(errs, err)...)
}

// compare measures, prints, and writes the document if that is asked for and nothing was wrong.
func compare(ctx context.Context, p *plan, skipped string, write bool, out io.Writer) (err error) {
	if p.dir, err = os.MkdirTemp("", "locknode-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	r, err := p.run(ctx)
	if r == nil {
		return err
	}
	fmt.Fprint(out, text(r.table()))
	for _, line := range r.remarks() {
		fmt.Fprintln(out, line)
	}
	if err != nil || !write {
		return err
	}
	return r.write(document, skipped)
}

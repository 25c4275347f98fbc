//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/internal/proof/chaos"
	"github.com/locknode/locknode/internal/proof/netns"
)

type chaosOptions struct {
	chaos.Options
	list     bool
	keep     bool
	jsonFile string
	htmlFile string

	inside bool // a network namespace of its own

	drill     string
	adds      int
	unguarded bool
}

const drillGuardedSet = "guarded-set"

func (a *app) chaosCommand() *cobra.Command {
	var o chaosOptions
	c := &cobra.Command{
		Use:     "chaos",
		Short:   "break a cluster on purpose and check that its promises hold",
		GroupID: groupCluster,
		Long: `Chaos starts a cluster of real processes on real disks, runs clients against it, and
injects faults: it kills nodes with kill -9 (one, the leader, or all at once), and more;
--list-faults lists all kinds. It records the requests of clients, the answers, and how
long each grant was valid, and checks the record: no two clients held a lock at once,
tokens grew, nothing ended early, nothing acknowledged was lost.

After each fault it measures the recovery: how long it took until the slowest of several
probing clients had acquired and released a lock. The time counts from the fault if a
majority of the nodes survived it, otherwise from when a majority listens again.

The exit code is 0 only if every promise held and every recovery was within its bound.
The seed determines which faults come and in which order; how processes and clients are
scheduled in between is left to the machine. Ctrl-C stops the run and prints the report
so far.`,
		Example: `  locknode chaos
  locknode chaos --faults kill-leader,kill-one,kill-all --cycles 500
  locknode chaos --duration 10m --seed 7 --html report.html --json report.json`,
		Args: arguments(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := chaosFlags(c); err != nil {
				return err
			}
			if !c.Flags().Changed("seed") {
				o.Seed = rand.Uint64N(1_000_000)
			}
			if o.list {
				return a.listFaults()
			}
			if o.drill != "" {
				return a.chaosDrill(c.Context(), o)
			}
			return a.chaos(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Faults, "faults", []string{"all"}, "kinds of faults, or all")
	f.BoolVar(&o.list, "list-faults", false, "list the kinds of faults and exit")
	addDuration(f, &o.Duration, "duration", "", time.Minute, "how long to run; a fault that is in progress is completed")
	f.IntVar(&o.Cycles, "cycles", 0, "stop after this many faults, instead of after --duration")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the schedule of faults (default: a random one, which is printed)")
	f.IntVar(&o.Nodes, "nodes", 3, "number of nodes in the cluster")
	f.IntVar(&o.Clients, "clients", 2, "number of client processes, each with two clients and a dozen goroutines")
	f.StringVar(&o.Dir, "dir", "", "directory for data, logs and histories, on the disk to use (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the directory even if every promise held")
	f.StringVar(&o.jsonFile, "json", "", "write the report as JSON to this file")
	f.StringVar(&o.htmlFile, "html", "", "write the report as a web page to this file")
	addDuration(f, &o.Timing, "timing", "", 0, "heartbeat and election timeout of the nodes (default: theirs)")
	f.StringVar(&o.LogStore, "log-store", "", "store of the Raft log of the nodes: wal or boltdb (default: theirs)")
	f.StringVar(&o.Faultfs, "faultfs", "", "path of the program faultfs, which provides disks that can be broken (default: beside locknode, or in the PATH)")
	f.BoolVar(&o.Netns, "netns", false, "run nodes and clients in network namespaces of their own, and break the network there instead of with proxies (Linux, root)")
	f.BoolVar(&o.inside, "inside-netns", false, "this process is in a network namespace of its own")
	addDuration(f, &o.RecoveryBound, "recovery-bound", "", time.Second, "how long a recovery may take; some kinds of faults have a longer bound of their own")
	f.StringVar(&o.drill, "drill", "", "run a drill instead of faults: "+drillGuardedSet)
	f.IntVar(&o.adds, "adds", 100_000, "drill: how many numbers to add")
	f.BoolVar(&o.unguarded, "unguarded", false, "drill: let the resource accept every token, to see what is lost without them")
	if err := f.MarkHidden("inside-netns"); err != nil {
		panic(err) // there is no such flag
	}
	c.AddCommand(chaosWorkerCommand())
	return c
}

// chaosFlags refuses flags that would be ignored.
func chaosFlags(c *cobra.Command) error {
	ofFaults := []string{
		"faults", "duration", "cycles", "seed", "clients", "json", "html", "timing", "log-store", "faultfs", "netns", "recovery-bound",
	}
	return cmp.Or(
		apart(c, "cycles", "duration"),
		apart(c, "list-faults", append(ofFaults, "drill", "nodes", "dir", "keep")...),
		apart(c, "drill", ofFaults...),
		onlyWith(c, "drill", "adds", "unguarded"),
		notEmpty(c, "faults", "drill"),
	)
}

// chaosWorkerCommand is a client process of chaos.
func chaosWorkerCommand() *cobra.Command {
	var drill bool
	c := &cobra.Command{
		Use:    "worker CONFIG",
		Short:  "run as a client process of locknode chaos",
		Hidden: true,
		Args:   arguments(1, 1, "CONFIG"),
		RunE: func(_ *cobra.Command, args []string) error {
			if drill {
				return chaos.RunDrillWorker(args[0], os.Stdout)
			}
			return chaos.RunWorker(args[0], os.Stdin, os.Stdout)
		},
	}
	c.Flags().BoolVar(&drill, "drill", false, "run as a client process of the drill")
	return c
}

// chaosDrill runs the drill, which shows what tokens are for.
func (a *app) chaosDrill(ctx context.Context, o chaosOptions) error {
	if o.drill != drillGuardedSet {
		return usageError("--drill: is %q, must be %s", o.drill, drillGuardedSet)
	}
	line := a.progressLine("%d pauses, %d numbers added")
	drill := chaos.DrillOptions{Nodes: o.Nodes, Dir: o.Dir, Adds: o.adds, Unguarded: o.unguarded, Progress: line.show}
	if err := drill.Validate(); err != nil {
		return usageError("chaos: %w", err)
	}
	if err := makeDir(o.Dir); err != nil {
		return err
	}
	r, err := chaos.RunDrill(ctx, drill)
	line.clear()
	if err != nil {
		return fmt.Errorf("chaos: %w", err)
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		err = r.WriteText(a.result())
	}
	if !r.OK() {
		return errors.Join(err, &exitError{exitOther, fmt.Errorf("chaos: %d numbers were lost; logs are in %s", r.Lost, r.Dir)})
	}
	return errors.Join(err, a.leave(r.Dir, o))
}

// makeDir creates the directory given by --dir. For "" it does nothing: the run then makes
// a temporary one.
func makeDir(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("chaos: %w", err)
	}
	return nil
}

// leave removes the directory if it is a temporary one, and otherwise says where it is.
func (a *app) leave(dir string, o chaosOptions) error {
	if o.Dir == "" && !o.keep {
		return os.RemoveAll(dir)
	}
	a.say("data, logs and histories are in %s", dir)
	return nil
}

func (a *app) listFaults() error {
	var rows [][]string
	for _, k := range chaos.Kinds() {
		rows = append(rows, []string{k.Name, k.Family, k.About})
	}
	return a.table([]string{"FAULT", "FAMILY", "WHAT IT DOES"}, rows)
}

func (a *app) chaos(ctx context.Context, o chaosOptions) error {
	if err := o.Validate(); err != nil {
		return usageError("chaos: %w", err)
	}
	if o.Netns && !o.inside {
		err := netns.Available()
		if err == nil {
			return a.chaosInNetns(ctx)
		}
		a.say("no network namespaces here, so proxies are used: %v", err)
		o.Netns = false
	}
	if err := makeDir(o.Dir); err != nil {
		return err
	}
	line := a.progressLine("%d faults, %d operations")
	o.Progress = line.show
	a.say("seed %d", o.Seed)
	r, err := chaos.Run(ctx, o.Options)
	line.clear()
	if r == nil {
		return err
	}
	err = errors.Join(err, a.printChaos(r), writeReports(r, o))
	if !r.OK() {
		return errors.Join(err, &exitError{exitOther, errors.New("chaos: a promise was broken or a recovery was late: see the report")})
	}
	if err != nil {
		return err
	}
	return a.leave(r.Dir, o)
}

// chaosInNetns runs this command line again in a network namespace.
func (a *app) chaosInNetns(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("chaos: %w", err)
	}
	runtime.LockOSThread() // the process is killed when the thread that started it exits
	defer runtime.UnlockOSThread()
	cmd := netns.Command(self, append(slices.Clone(os.Args[1:]), "--inside-netns")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("chaos in a network namespace: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // fails if the signal has reached it as well, and it has exited
	defer stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return &exitError{code: exit.ExitCode()} // it has printed its own error
	}
	return nil
}

func (a *app) printChaos(r *chaos.Result) error {
	if a.json {
		return a.printJSON(r)
	}
	return r.WriteText(a.result())
}

// writeReports writes the files that were asked for.
func writeReports(r *chaos.Result, o chaosOptions) error {
	var errs []error
	if o.jsonFile != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(o.jsonFile, append(b, '\n'), 0o600)
		}
		errs = append(errs, err)
	}
	if o.htmlFile != "" {
		var b bytes.Buffer
		err := r.WriteHTML(&b)
		if err == nil {
			err = os.WriteFile(o.htmlFile, b.Bytes(), 0o600)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// progressLine shows the progress of a long run: on a terminal in one line that is
// overwritten, elsewhere in a new line every ten seconds.
type progressLine struct {
	a        *app
	counts   string // a format for faults and operations
	terminal bool
	last     time.Time
	width    int
}

const progressEvery = 10 * time.Second

func (a *app) progressLine(counts string) *progressLine {
	return &progressLine{a: a, counts: counts, terminal: onTerminal(a.stderr), last: time.Now()}
}

func (l *progressLine) show(p chaos.Progress) {
	left := "time left unknown"
	if p.Left >= 0 {
		left = p.Left.Round(time.Second).String() + " left"
	}
	text := fmt.Sprintf(l.counts+", %d violations, %s: %s", p.Faults, p.Operations, p.Violations, left, p.Doing)
	switch {
	case l.terminal:
		fmt.Fprintf(l.a.stderr, "\r%s%s", text, strings.Repeat(" ", max(0, l.width-len(text))))
		l.width = len(text)
	case time.Since(l.last) >= progressEvery:
		l.last = time.Now()
		fmt.Fprintln(l.a.stderr, text)
	}
}

// clear erases the line on a terminal.
func (l *progressLine) clear() {
	if l.terminal {
		fmt.Fprintf(l.a.stderr, "\r%s\r", strings.Repeat(" ", l.width))
	}
}

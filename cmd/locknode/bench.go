//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

type benchOptions struct {
	workload         string
	workers, clients int
	duration, warmup time.Duration
	endpoints        []string
	nodes            int
	data, logStore   string
	tls              bool // the cluster that bench starts requires TLS
	pairs            int  // with tls: measurements of plain text and TLS in turns; 0: TLS alone
}

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:     "bench",
		Short:   "measure how many locks a second a cluster grants",
		GroupID: groupCluster,
		Long: `Bench measures a cluster of real processes through the public Go client. By default it
starts a cluster of its own, with default settings on free loopback ports, and removes it
at the end; the load then comes from the machine that also runs the cluster. --endpoints
measures a cluster that already runs.

Workloads:
  uncontended  each worker acquires and releases a lock of its own; a cycle is both
  handoff      all workers acquire and release the same lock; a cycle is both
  try          each worker tries a lock that is held, and is refused
  read         each worker asks, linearizably, whether a held lock is locked
  failover     as uncontended, while the leader is killed with kill -9 again and again;
               reports the longest gap without a finished cycle after each kill

A latency is that of one cycle; for handoff it includes the wait in the queue. Cycles
during --warmup are not counted.

With --tls the cluster that bench starts requires TLS. --pairs 5 starts one in plain text
beside it, measures both in turns, each five times, and prints how they compare: what
else the machine does then meets both alike.`,
		Example: `  locknode bench
  locknode bench --workload handoff --workers 16 --duration 10s -o json
  locknode bench --workload failover --workers 4 --duration 30s
  locknode bench --tls --pairs 5`,
		Args: arguments(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cmp.Or(apart(c, "endpoints", "nodes", "data", "log-store", "tls"), notEmpty(c, "endpoints")); err != nil {
				return err
			}
			if len(o.endpoints) > 0 {
				if err := a.tlsEnvironment(c); err != nil {
					return err
				}
			}
			return a.bench(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.workload, "workload", "uncontended", "what to measure: "+strings.Join(workloadNames(), ", "))
	c.Flags().IntVar(&o.workers, "workers", 64, "number of goroutines that run the workload at the same time")
	addDuration(c.Flags(), &o.duration, "duration", "", 10*time.Second, "how long to measure")
	addDuration(c.Flags(), &o.warmup, "warmup", "", time.Second, "how long to run before the measurement starts")
	c.Flags().IntVar(&o.clients, "clients", 1, "number of clients, each with a session and a connection, that the workers share")
	c.Flags().StringSliceVar(&o.endpoints, "endpoints", nil, "API addresses of the cluster to measure (default: start one)")
	a.tlsFlags(c)
	c.Flags().BoolVar(&o.tls, "tls", false, "have the cluster that bench starts require TLS, with certificates made for it")
	c.Flags().IntVar(&o.pairs, "pairs", 0, "with --tls: measure plain text and TLS in turns, this many times each, and compare them")
	c.Flags().IntVar(&o.nodes, "nodes", 3, "number of nodes in the cluster that bench starts")
	c.Flags().StringVar(&o.data, "data", "", "data directory of the cluster that bench starts, on the disk to measure (default: a temporary one)")
	c.Flags().StringVar(&o.logStore, "log-store", "wal", "store of the Raft log in the cluster that bench starts: wal or boltdb")
	return c
}

// workload is one kind of load. A step is the unit that is counted and timed.
type workload struct {
	name    string
	unit    string
	prepare func(ctx context.Context, b *bench) error // nil: nothing to prepare
	step    func(ctx context.Context, b *bench, worker int, c *client.Client) error
}

const heldLock = "bench/held"

var workloads = []workload{
	{"uncontended", "cycles", nil, stepOwnLock},
	{"handoff", "cycles", nil, func(ctx context.Context, _ *bench, _ int, c *client.Client) error {
		return lockAndUnlock(ctx, c, "bench/handoff")
	}},
	{"try", "tries", holdLock, func(ctx context.Context, _ *bench, _ int, c *client.Client) error {
		g, err := c.TryLock(ctx, heldLock)
		if errors.Is(err, client.ErrBusy) {
			return nil
		}
		if err == nil {
			return errors.Join(errors.New("a held lock was granted again"), g.Unlock())
		}
		return err
	}},
	{"read", "reads", holdLock, func(ctx context.Context, _ *bench, _ int, c *client.Client) error {
		locked, err := c.IsLocked(ctx, heldLock)
		if err == nil && !locked {
			return errors.New("a held lock was reported free")
		}
		return err
	}},
	{"failover", "cycles", nil, stepOwnLock},
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

func stepOwnLock(ctx context.Context, b *bench, worker int, c *client.Client) error {
	return lockAndUnlock(ctx, c, b.names[worker])
}

func lockAndUnlock(ctx context.Context, c *client.Client, name string) error {
	g, err := c.Lock(ctx, name)
	if err != nil {
		return err
	}
	return g.Unlock()
}

// holdLock acquires the lock with a client that does nothing else.
func holdLock(ctx context.Context, b *bench) error {
	c, err := client.Dial(ctx, b.endpoints, append(b.security, client.Holder("bench"))...)
	if err != nil {
		return err
	}
	b.dialed = append(b.dialed, c) // closed with the others, used by no worker
	_, err = c.TryLock(ctx, heldLock)
	return err
}

func (o *benchOptions) validate() (workload, error) {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == o.workload })
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if i < 0 {
		bad("--workload: is %q, must be %s", o.workload, either(workloadNames()))
	}
	if o.workers < 1 || o.workers > 100_000 {
		bad("--workers: is %d, must be 1 to 100000", o.workers)
	}
	if o.clients < 1 || o.clients > 1000 {
		bad("--clients: is %d, must be 1 to 1000", o.clients)
	}
	if o.duration <= 0 || o.warmup < 0 {
		bad("--duration and --warmup: are %v and %v, must be more than 0 and at least 0", o.duration, o.warmup)
	}
	if o.nodes < 1 || o.nodes > 9 {
		bad("--nodes: is %d, must be 1 to 9", o.nodes)
	}
	if o.workload == "failover" && (len(o.endpoints) > 0 || o.nodes < 3) {
		bad("--workload: is failover, which kills nodes and needs a cluster of its own: leave out --endpoints, and --nodes must be at least 3")
	}
	if o.pairs < 0 || o.pairs > 100 || o.pairs > 0 && (!o.tls || o.workload == "failover" || o.data != "") {
		bad("--pairs: is %d, must be 0 to 100, with --tls, and with neither --data nor --workload failover", o.pairs)
	}
	if len(faults) > 0 {
		return workload{}, usageError("%w", errors.Join(faults...))
	}
	return workloads[i], nil
}

// bench is one measurement.
type bench struct {
	benchOptions
	load     workload
	security []client.Option  // of clients in TLS; none in plain text
	dialed   []*client.Client // the workers use the first benchOptions.clients of them
	names    []string         // of the workers' own locks
	counting atomic.Bool
}

func (a *app) bench(ctx context.Context, o benchOptions) (err error) {
	w, err := o.validate()
	if err != nil {
		return err
	}
	if o.pairs > 0 {
		return a.benchPairs(ctx, o, w)
	}
	b := &bench{benchOptions: o, load: w, security: slices.Clip(a.security())}
	var processes *proc.Cluster
	if len(o.endpoints) == 0 {
		cluster, startErr := startBenchCluster(ctx, o, o.tls)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, cluster.close()) }()
		b.endpoints, processes = cluster.Endpoints(), cluster.Cluster
		if o.tls {
			b.security = slices.Clip(cluster.security)
		}
	}
	defer b.close()
	if err := b.begin(ctx); err != nil {
		return err
	}
	r, err := b.run(ctx, processes)
	if err != nil {
		return err
	}
	return a.printBench(b, r)
}

// begin connects the clients, and prepares what the workload needs.
func (b *bench) begin(ctx context.Context) error {
	if err := b.dial(ctx); err != nil {
		return err
	}
	if b.load.prepare != nil {
		if err := b.load.prepare(ctx, b); err != nil {
			return fmt.Errorf("prepare workload %s: %w", b.load.name, err)
		}
	}
	return nil
}

func (b *bench) dial(ctx context.Context) error {
	for i := range b.workers {
		b.names = append(b.names, fmt.Sprintf("bench/own/%d", i))
	}
	for range b.clients {
		c, err := client.Dial(ctx, b.endpoints, append(b.security, client.Holder("bench"), client.ConnectTimeout(time.Minute))...)
		if err != nil {
			return err
		}
		b.dialed = append(b.dialed, c)
	}
	return nil
}

func (b *bench) close() {
	for _, c := range b.dialed {
		closeQuietly(c)
	}
}

// result is the result of a measurement.
type result struct {
	took      time.Duration
	latencies *hdrhistogram.Histogram // nanoseconds
	errors    int64
	firstErr  error
	gaps      []time.Duration // failover only
}

// worker is the result of one goroutine.
type worker struct {
	latencies *hdrhistogram.Histogram
	errors    int64
	firstErr  error
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}

// run starts the workers, measures, and merges the workers' results.
func (b *bench) run(ctx context.Context, cluster *proc.Cluster) (*result, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	finished := &lastFinished{}
	workers := make([]*worker, b.workers)
	var wg sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{latencies: newHistogram()}
		wg.Go(func() { b.work(ctx, i, workers[i], finished) })
	}
	r, err := b.measure(ctx, cluster, finished)
	stop()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	r.latencies = newHistogram()
	for _, w := range workers {
		r.latencies.Merge(w.latencies)
		r.errors += w.errors
		if r.firstErr == nil {
			r.firstErr = w.firstErr
		}
	}
	return r, nil
}

// measure waits for the warm-up to end, then counts for the given duration, or in the
// workload failover until the last kill is over.
func (b *bench) measure(ctx context.Context, cluster *proc.Cluster, finished *lastFinished) (*result, error) {
	if err := sleep(ctx, b.warmup); err != nil {
		return nil, err
	}
	r := &result{}
	runtime.GC() // garbage of the set-up is not part of the load
	b.counting.Store(true)
	began := time.Now()
	var err error
	if b.load.name == "failover" {
		r.gaps, err = b.killLeaders(ctx, cluster, finished)
	} else {
		err = sleep(ctx, b.duration)
	}
	b.counting.Store(false)
	r.took = time.Since(began)
	return r, err
}

// work repeats the workload's step until ctx ends. A step counts if counting was
// on when it began and when it ended.
func (b *bench) work(ctx context.Context, i int, w *worker, finished *lastFinished) {
	c := b.dialed[i%b.clients]
	for ctx.Err() == nil {
		counted := b.counting.Load()
		began := time.Now()
		err := b.load.step(ctx, b, i, c)
		ended := time.Now()
		if ctx.Err() != nil || !counted || !b.counting.Load() {
			if err == nil {
				finished.at(ended)
			}
			continue
		}
		if err != nil {
			w.errors++
			if w.firstErr == nil {
				w.firstErr = err
			}
			continue
		}
		finished.at(ended)
		_ = w.latencies.RecordValue(max(int64(ended.Sub(began)), int64(time.Microsecond))) // fails beyond a minute, which no step takes
	}
}

// printBench prints the result, and the first error of the workers on standard error.
func (a *app) printBench(b *bench, r *result) error {
	if r.firstErr != nil {
		a.say("%d of the %s failed; the first: %v", r.errors, b.load.unit, r.firstErr)
	}
	if r.latencies.TotalCount() == 0 {
		return fmt.Errorf("bench: no %s were finished within --duration %v", b.load.unit, b.duration)
	}
	out := r.summary(b)
	if a.json {
		return a.printJSON(out)
	}
	text := fmt.Sprintf("%s, %d workers, %d clients, %.1f s: %.0f %s/s\n", b.load.name, b.workers, b.clients,
		r.took.Seconds(), out.OpsPerSecond, b.load.unit)
	text += fmt.Sprintf("latency  p50 %.2f ms  p95 %.2f ms  p99 %.2f ms  max %.2f ms\n", out.LatencyMS.P50, out.LatencyMS.P95, out.LatencyMS.P99, out.LatencyMS.Max)
	if f := out.Failover; f != nil {
		text += fmt.Sprintf("failover %d kills of the leader, gap median %.0f ms, longest %.0f ms\n", f.Kills, f.GapMedianMS, f.GapMaxMS)
	}
	return a.printf("%serrors   %d\n", text, out.Errors)
}

func (r *result) summary(b *bench) benchJSON {
	at := func(percentile float64) float64 {
		return milliseconds(time.Duration(r.latencies.ValueAtPercentile(percentile)))
	}
	out := benchJSON{
		Workload: b.load.name, Workers: b.workers, Errors: r.errors,
		OpsPerSecond: math.Round(float64(r.latencies.TotalCount())/r.took.Seconds()*10) / 10,
		LatencyMS:    latencyJSON{at(50), at(95), at(99), milliseconds(time.Duration(r.latencies.Max()))},
	}
	if len(r.gaps) > 0 {
		gaps := slices.Sorted(slices.Values(r.gaps))
		out.Failover = &failoverJSON{len(gaps), milliseconds(gaps[len(gaps)/2]), milliseconds(gaps[len(gaps)-1])}
	}
	return out
}

// milliseconds rounds to microseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

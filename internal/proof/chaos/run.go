//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/netns"
	"github.com/locknode/locknode/internal/proof/proc"
	"github.com/locknode/locknode/internal/proof/proxy"
	"github.com/locknode/locknode/internal/proof/stalls"
)

// patience bounds waits for what has to happen.
const patience = 30 * time.Second

// run is one run. Its faults are injected by one goroutine, which owns what is
// not guarded.
type run struct {
	o           Options
	clock       clock
	cluster     *proc.Cluster
	mesh        *proxy.Mesh // nil: the network is not to be broken, or not by proxies
	lab         *netns.Lab  // nil: there are no network namespaces
	probes      []*probe
	log         *os.File // what the clients of the probes log
	stalls      *stalls.Log
	keeper      *keeper
	clients     []*clientProcess // of the present round
	disks       disks
	faultyTried bool              // whether a faulty disk can be mounted is known
	faultyErr   error             // why not
	began       time.Duration     // of the present round
	remarks     []string          // about the present fault
	injected    int               // faults, without those beside others
	tokens      uint64            // the greatest of the rounds before
	ledBy       map[string]string // term → node that has led in it
	checks      time.Duration     // time that checking took, which is not part of the duration

	stop func()         // ends probes and keeper
	wg   sync.WaitGroup // probes and keeper

	mu     sync.Mutex // guards what follows, where others than the owner look at it
	result *Result
	doing  string
	ended  int64        // operations of client processes that have ended
	nodes  []*proc.Node // before which proxies stand
}

// errStuck ends a run: the cluster does not come back, which has been reported.
var errStuck = errors.New("the cluster does not recover")

// labKey encrypts gossip in a lab. It need not be secret: no other process is in the lab.
const labKey = "bG9ja25vZGUtbmV0LWxhYg=="

// Run starts a cluster, breaks it until the time is over, and returns what it
// found. When ctx ends it stops in order, with what was found so far. An error
// says that there is nothing to report.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &run{o: o, clock: clock{monotonic()}}
	r.stalls = stalls.New(r.clock.now)
	r.result = &Result{Seed: o.Seed, Nodes: o.Nodes, Clients: o.Clients, Bound: o.RecoveryBound, Began: time.Now()}
	temporary := r.o.Dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "locknode-chaos-")
		if err != nil {
			return nil, err
		}
		r.o.Dir = dir
	}
	r.result.Dir = r.o.Dir
	if err := r.startLab(); err != nil {
		return nil, err
	}
	nothing := func(err error) error { // there is nothing to report
		if temporary {
			err = errors.Join(err, os.RemoveAll(r.o.Dir))
		}
		return err
	}
	kinds, beside, err := r.choose()
	if err != nil {
		return nil, nothing(err)
	}
	stop := r.tellProgress()
	defer stop()
	if err := r.begin(ctx); err != nil {
		return nil, nothing(errors.Join(err, r.end()))
	}
	err = r.rounds(ctx, NewSchedule(o.Seed, kinds, beside, restLeast, restMost))
	if ctx.Err() != nil {
		r.result.Ended = fmt.Sprint(context.Cause(ctx))
		err = nil
	}
	if err != nil && !errors.Is(err, errStuck) {
		r.violate("liveness", "harness", "", "%v", err)
	}
	r.judge(errors.Is(err, errStuck))
	r.result.Took, r.result.Operations = r.clock.now(), r.ended
	return r.result, r.end()
}

// choose sorts the wanted kinds into those that are possible here and others, which
// is an error for one that was named.
func (r *run) choose() (kinds, beside []string, err error) {
	var impossible []error
	for _, name := range r.o.Faults {
		k, _ := kindNamed(name)
		if k.needs != nil {
			if err := k.needs(r); err != nil {
				r.result.Skipped = append(r.result.Skipped, Skipped{name, err.Error()})
				impossible = append(impossible, fmt.Errorf("fault %s is not possible here: %w", name, err))
				continue
			}
		}
		kinds = append(kinds, name)
		if k.beside != nil {
			beside = append(beside, name)
		}
	}
	if len(kinds) == 0 || !r.o.all {
		err = errors.Join(impossible...)
	}
	r.result.Kinds = kinds
	return kinds, beside, err
}

// begin starts the nodes and those who use them all the time.
func (r *run) begin(ctx context.Context) error {
	r.do("starting %d nodes", r.o.Nodes)
	var args []string
	if r.o.Timing > 0 {
		args = append(args, "--timing", r.o.Timing.String())
	}
	if r.o.LogStore != "" {
		args = append(args, "--log-store", r.o.LogStore)
	}
	if slices.ContainsFunc(slices.Concat(memberKinds, fileKinds), func(k Kind) bool { return slices.Contains(r.result.Kinds, k.Name) }) {
		args = append(args, "--fast") // or it would take half a minute until a node that joins votes
	}
	options := proc.Options{Binary: r.o.Binary, Nodes: r.o.Nodes, Dir: r.o.Dir, Prepare: r.prepare}
	switch {
	case r.lab != nil:
		options.Host, options.Enter = r.lab.Host, r.lab.Enter
		args = append(args, "--insecure") // the addresses are not loopback, and gossip needs a key there
		options.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LOCKNODE_") }), "LOCKNODE_GOSSIP_KEY="+labKey)
	case wantsMesh(r.result.Kinds):
		r.startMesh()
		args = append(args, "--advertise-host", meshHost)
	}
	r.layDisks()
	r.result.Settings, options.Args = args, args
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	if r.cluster, err = proc.Start(start, options); err != nil {
		return err
	}
	if _, err := r.cluster.Leader(start); err != nil {
		return err
	}
	background, stop := context.WithCancel(context.Background())
	r.stop = stop
	if r.log, err = os.Create(r.path("probes.log")); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for i := range probeCount {
		p, err := startProbe(background, &r.wg, r.endpoints(), i, r.clock, log)
		if err != nil {
			return err
		}
		r.probes = append(r.probes, p)
	}
	r.wg.Go(func() { r.stalls.Watch(background) })
	r.keeper, err = startKeeper(background, &r.wg, r.endpoints())
	return err
}

// prepare puts what can be broken around a node, before it is started.
func (r *run) prepare(n *proc.Node) error {
	if err := r.putOnDisk(n); err != nil {
		return err
	}
	if r.mesh == nil {
		return nil
	}
	return r.front(n)
}

// endpoints are where clients find the nodes.
func (r *run) endpoints() []string {
	endpoints := r.cluster.Endpoints()
	if r.mesh != nil {
		for i, e := range endpoints {
			endpoints[i], _ = r.mesh.Elsewhere(e) // it is an address: proc made it
		}
	}
	return endpoints
}

// rounds injects faults until it is time to end. A round ends with a check of
// what its clients recorded.
func (r *run) rounds(ctx context.Context, s *Schedule) error {
	for done := false; !done && ctx.Err() == nil; {
		r.result.Rounds++
		if err := r.beginRound(); err != nil {
			return err
		}
		r.began = r.clock.now()
		var err error
		for err == nil && ctx.Err() == nil && r.clock.now()-r.began < roundLength {
			if done = r.finished(); done {
				break
			}
			err = r.step(ctx, s.Next())
		}
		r.endRound()
		if err != nil {
			return err
		}
	}
	return nil
}

// finished reports whether it is time to end.
func (r *run) finished() bool {
	if r.o.Cycles > 0 {
		return r.injected >= r.o.Cycles
	}
	return r.clock.now()-r.checks >= r.o.Duration
}

// step lets all be well for a while, and then injects one fault.
func (r *run) step(ctx context.Context, s Step) error {
	if err := r.whole(); err != nil {
		return err
	}
	r.do("all is well")
	if sleep(ctx, s.Rest) != nil {
		return nil
	}
	return r.inject(ctx, s)
}

func (r *run) inject(ctx context.Context, s Step) error {
	k, _ := kindNamed(s.Fault)
	r.injected++
	event := Event{Number: s.Number, Fault: s.Fault, Family: k.Family, At: r.clock.now(), What: k.About}
	r.do("%s", s.Fault)
	var beside sync.WaitGroup
	if b, ok := kindNamed(s.Beside); ok {
		beside.Go(func() { r.injectBeside(ctx, strike{s, b}) })
	}
	r.remarks = nil
	err := k.strike(ctx, r, strike{s, k})
	event.Until, event.What = r.clock.now(), strings.Join(append([]string{event.What}, r.remarks...), "; ")
	beside.Wait()
	r.note(event)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("fault %d, %s: %w", s.Number, s.Fault, err)
	}
	return nil
}

// injectBeside injects what happens during another fault.
func (r *run) injectBeside(ctx context.Context, s strike) {
	event := Event{Number: s.Number, Fault: s.Beside, Family: s.kind.Family, At: r.clock.now(), What: s.kind.About}
	if err := s.kind.beside(r, ctx, s); err != nil && ctx.Err() == nil {
		r.violate("liveness", "harness", "", "fault %d, %s beside %s: %v", s.Number, s.Beside, s.Fault, err)
	}
	event.Until = r.clock.now()
	r.note(event)
}

// remark adds to the report about the present fault.
func (r *run) remark(format string, args ...any) {
	r.remarks = append(r.remarks, fmt.Sprintf(format, args...))
}

func (r *run) note(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Events = append(r.result.Events, e)
}

// whole waits until every node that has to run is ready. One that has ended by itself is
// started again, and reported.
func (r *run) whole() error {
	for _, n := range r.cluster.Nodes() {
		if !n.Running() {
			r.violate("liveness", "nodes", "", "node %s ended by itself with exit code %d; its last lines:\n%s", n.ID, n.ExitCode(), n.Tail())
			if err := n.Start(); err != nil {
				return err
			}
		}
		if err := r.ready(n); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until a node serves.
func (r *run) ready(n *proc.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		r.violate("liveness", "nodes", "", "%v", err)
		return fmt.Errorf("%w: %w", errStuck, err)
	}
	return nil
}

// recovered waits until every probing client has finished a cycle that began at
// or after since, and records how long that was after from.
func (r *run) recovered(s strike, after string, from, since time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rec := Recovery{Number: s.Number, Fault: s.Fault, After: after, At: from, Bound: max(r.o.RecoveryBound, s.kind.Bound)}
	if r.disks.faulty {
		rec.Bound *= 2 // every read and write takes the way through another process
	}
	rec.First = patience
	for _, p := range r.probes {
		at, err := p.after(ctx, since)
		if err != nil {
			r.violate("recovery", "probes", "", "fault %d, %s: %v", s.Number, s.Fault, err)
			return fmt.Errorf("%w: %w", errStuck, err)
		}
		rec.First, rec.All = min(rec.First, at-from), max(rec.All, at-from)
	}
	rec.Stall = r.stalls.Longest(from, from+rec.All)
	r.mu.Lock()
	r.result.Recoveries = append(r.result.Recoveries, rec)
	r.mu.Unlock()
	return nil
}

// end leaves nothing running.
func (r *run) end() error {
	for _, c := range r.clients {
		c.kill()
	}
	if r.stop != nil {
		r.stop()
	}
	var err error
	if r.cluster != nil {
		err = r.cluster.Close()
	}
	err = errors.Join(err, r.disks.close())
	r.wg.Wait()
	if r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	if r.keeper != nil {
		_ = r.keeper.client.Close() // no node is left that could answer
	}
	if r.mesh != nil {
		err = errors.Join(err, r.mesh.Close())
	}
	if r.lab != nil {
		err = errors.Join(err, r.lab.Close())
	}
	return err
}

func (r *run) violate(promise, check, lock, format string, args ...any) {
	r.add(history.Violation{Promise: promise, Check: check, Lock: lock, Text: fmt.Sprintf(format, args...)}, "")
}

func (r *run) add(v history.Violation, picture string) {
	const most = 200
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.result.Broken) < most {
		r.result.Broken = append(r.result.Broken, Violation{Violation: v, At: r.clock.now(), Picture: picture})
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// path is a file in the directory of the run.
func (r *run) path(name string) string { return filepath.Join(r.o.Dir, name) }

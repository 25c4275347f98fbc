package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/sim"
)

var (
	errNoSpace = fmt.Errorf("write: %w", syscall.ENOSPC)
	errDefect  = errors.New("a defect")
)

// Outcome is what became of a run.
type Outcome struct {
	Plan       Plan
	History    *history.History
	Stats      history.Stats
	Violations []history.Violation
	Recoveries []time.Duration // until an acquire succeeded after each episode
	Virtual    time.Duration   // how long it took in virtual time
	Leaders    int             // terms in which somebody led
	Faults     int
	Refused    int // faults that could not be applied, such as killing the dead
	Rights     []sim.RightsChange

	calms [][2]time.Duration // from when to when nothing was broken
}

// What a cluster may take to recover once everything is mended: an election or
// two, the connections that TCP has made wait for up to a second, and the probe.
func recoveryBound(p Plan) time.Duration { return 4*time.Second + 10*p.Timing }

// Run carries out a plan. It should be called in a bubble, and its outcome judged
// outside. An error says that there was no run, not that a promise was broken.
func Run(ctx context.Context, p Plan, log *slog.Logger) (*Outcome, error) {
	started, cancel := context.WithTimeout(ctx, time.Minute)
	c, err := sim.New(started, sim.Options{
		Nodes: p.Nodes, Seed: p.Seed, Latency: p.Latency, Jitter: p.Jitter, Disks: p.Disks, Timing: p.Timing, Timings: p.timings(),
		SnapshotThreshold: p.Snapshots, Logger: log, Limits: p.limits(), Auth: p.auth(),
	})
	cancel()
	if err != nil {
		return nil, fmt.Errorf("run seed %d: %w", p.Seed, err)
	}
	r := &runner{c: c, p: p, out: &Outcome{Plan: p}, log: log, broken: map[string]bool{}, closing: make(chan struct{}, 1), secrets: map[string]string{}}
	err = r.run(ctx)
	if closed := c.Close(); err == nil && closed != nil {
		r.violate("close", "%v", closed)
	}
	r.judgeEnds()
	if err != nil {
		return nil, fmt.Errorf("run seed %d: %w", p.Seed, err)
	}
	r.setCalm(-1)
	r.out.History, r.out.Virtual, r.out.Rights = c.Recorder().History(), c.Now(), c.Rights()
	return r.out, nil
}

type runner struct {
	c   *sim.Cluster
	p   Plan
	out *Outcome
	log *slog.Logger

	broken  map[string]bool // nodes whose disk was broken in this episode
	closing chan struct{}   // holds a token while a worker closes a node

	mu   sync.Mutex    // guards out.Violations and what follows
	calm time.Duration // since when nothing is broken; -1: something is

	secrets map[string]string // what clients show for access tokens; guarded by mu, too

	scripts []*script // the last ones
}

// calmFor returns for how long nothing has been broken; -1: something is.
func (r *runner) calmFor() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calm < 0 {
		return -1
	}
	return r.c.Now() - r.calm
}

func (r *runner) setCalm(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calm >= 0 && at < 0 {
		r.out.calms = append(r.out.calms, [2]time.Duration{r.calm, r.c.Now()})
	}
	r.calm = at
}

func (r *runner) violate(promise, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Violations = append(r.out.Violations, history.Violation{
		Promise: promise, Check: "run", Text: fmt.Sprintf("at %v: ", r.c.Now()) + fmt.Sprintf(format, args...),
	})
}

func (r *runner) run(ctx context.Context) error {
	if r.p.Profile == "rights" {
		if err := r.introduce(ctx); err != nil {
			return err
		}
	}
	for _, w := range r.p.Workers {
		if _, err := r.client(w.Name, client.SessionTTL(w.TTL)); err != nil {
			return err
		}
	}
	for name, rate := range r.p.Rates {
		if err := r.c.SkewClock(name, rate); err != nil {
			return err
		}
	}
	if r.p.Profile == "five" || r.p.Profile == "addresses" {
		r.c.Intrude(2 * time.Second) // more often costs more than it finds
	}
	if r.p.Profile == "misled" {
		r.c.Mislead()
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	for _, w := range r.p.Workers {
		for line := range w.Lines {
			workers.Go(func() { newWorker(r, w, line).run(work) })
		}
	}
	begin := r.c.Now()
	for _, e := range r.p.Episodes {
		sleep(ctx, e.At-(r.c.Now()-begin))
		r.episode(ctx, e)
	}
	sleep(ctx, r.p.Duration-(r.c.Now()-begin))
	stop()
	workers.Wait()
	r.settle(ctx)
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// event is the begin or the end of a step.
type event struct {
	at time.Duration // since the episode began
	do func()
}

// episode applies the faults, mends everything, and waits for the recovery.
func (r *runner) episode(ctx context.Context, e Episode) {
	var events []event
	for _, s := range e.Steps {
		f := faults[s.Kind]
		events = append(events, event{s.After, func() {
			if s.Who == leader {
				if s.Who = r.leader(ctx); s.Who == "" {
					return
				}
			}
			r.apply(s)
		}})
		if f.lift != nil {
			events = append(events, event{s.After + s.For, func() {
				if s.Who == leader {
					return // mended with the episode
				}
				if err := f.lift(r.c, s); err != nil {
					r.log.Debug("fault not lifted yet", "kind", s.Kind, "err", err)
				}
			}})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	r.setCalm(-1)
	began := r.c.Now()
	for _, ev := range events {
		if ev.at < e.For {
			sleep(ctx, ev.at-(r.c.Now()-began))
			ev.do()
		}
	}
	sleep(ctx, e.For-(r.c.Now()-began))
	r.mend()
	r.setCalm(r.c.Now())
	r.recover(ctx)
}

// apply does a fault. One that could not be done is refused; a node that was to
// stop in good order and did not has broken a promise, unless its disk is broken.
func (r *runner) apply(s Step) {
	f := faults[s.Kind]
	if f.breaksDisk {
		r.broken[s.Who] = true
	}
	r.out.Faults++
	switch err := f.apply(r.c, s); {
	case err == nil:
	case !errors.Is(err, sim.ErrUnclean):
		r.out.Refused++
		r.log.Debug("fault not applied", "kind", s.Kind, "err", err)
	case !r.broken[s.Who]:
		r.violate("close", "%v", err)
	}
}

func (r *runner) leader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	name, err := r.c.Leader(ctx)
	if err != nil {
		return ""
	}
	return name
}

// mend ends all faults and starts what does not run, also nodes that have ended
// by themselves because of their disk.
func (r *runner) mend() {
	c := r.c
	for _, name := range c.Nodes() {
		_ = c.Resume(name) // never fails for a node
		if d, err := c.Disk(name); err == nil {
			d.Release()
			d.Slow(r.p.Disks[name])
			d.Fail(nil, 0)
		}
		_ = c.SlowApply(name, 0) // never fails for a node
	}
	clear(r.broken)
	for _, w := range r.p.Workers {
		_ = c.Resume(w.Name) // never fails for a client
	}
	c.Heal()
	for _, name := range c.Nodes() {
		if n := c.Node(name); n != nil && n.Err() != nil {
			_ = c.Kill(name) // it runs no more, or not for long; now it does not for us either
		}
	}
	if err := startAll(c, Step{}); err != nil {
		r.violate("availability", "a node does not come back: %v", err)
	}
	r.reseed()
}

// judgeEnds looks at the nodes that ended by themselves, whatever was done to them
// afterwards. Only a full disk is a reason, and only the schedule fills one.
func (r *runner) judgeEnds() {
	for _, e := range r.c.Ended() {
		if !errors.Is(e, syscall.ENOSPC) {
			r.violate("availability", "%v (seen at %v)", e, e.Seen)
		}
	}
}

// recover measures how long it takes until locks are given again.
func (r *runner) recover(ctx context.Context) {
	probe, err := r.client("probe")
	if err != nil {
		r.violate("availability", "%v", err)
		return
	}
	began := r.c.Now()
	bound := recoveryBound(r.p)
	call, cancel := context.WithTimeout(ctx, 10*bound)
	defer cancel()
	g, err := probe.Lock(call, "probe")
	took := r.c.Now() - began
	if err != nil {
		if ctx.Err() == nil {
			r.violate("recovery", "no lock was given within %v after everything was mended: %v", took, err)
		}
		return
	}
	r.out.Recoveries = append(r.out.Recoveries, took)
	if took > bound {
		r.violate("recovery", "a lock was given %v after everything was mended, the bound is %v", took, bound)
	}
	if err := g.Unlock(); err != nil {
		r.violate("S2", "the probe lost its lock at once: %v", err)
	}
}

// settle lets everything come to its end: nobody works any more, so all locks
// have to be free after the longest TTL, and all tables the same.
func (r *runner) settle(ctx context.Context) {
	r.mend()
	r.recover(ctx)
	if r.p.Profile == "rights" {
		if err := r.introduce(ctx); err != nil { // so that all can end their sessions
			r.violate("availability", "%v", err)
		}
	}
	sleep(ctx, r.p.longest()+5*time.Second)
	probe, err := r.client("probe")
	if err != nil {
		r.violate("availability", "%v", err)
		return
	}
	call, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	page, err := probe.List(call, "", client.ListOptions{})
	if err != nil {
		r.violate("availability", "list: %v", err)
		return
	}
	for _, l := range page.Locks {
		r.violate("no trace", "lock %s has %d holders and %d waiters though nobody works any more", l.Name, l.HolderCount, l.Waiters)
	}
	v, err := r.c.Same(call)
	if err != nil {
		r.violate("S9", "%v", err)
	}
	r.countOwners()
	if r.p.Profile == "misled" {
		r.lookForMisled(call)
	}
	if v != nil {
		r.mu.Lock()
		r.out.Violations = append(r.out.Violations, *v)
		r.mu.Unlock()
	}
}

// lookForMisled looks at the members for some seconds: each false word is refuted soon, and
// is to count for nothing meanwhile.
func (r *runner) lookForMisled(ctx context.Context) {
	for range 60 {
		wrong := r.c.Misled(ctx)
		for _, err := range wrong {
			r.violate("gossip only hints", "%v", err)
		}
		if len(wrong) > 0 {
			return
		}
		sleep(ctx, 70*time.Millisecond)
	}
}

// countOwners looks whether those who have most of the table have no more than there is in
// it: of grants and waits nothing, as nobody works any more.
func (r *runner) countOwners() {
	for _, name := range r.c.Nodes() {
		n := r.c.Node(name)
		if n == nil {
			continue
		}
		s := n.Status()
		var sessions, others int
		var bytes int64
		for _, o := range s.TopOwners {
			sessions, others, bytes = sessions+o.Sessions, others+o.Grants+o.Waiters, bytes+o.Bytes
		}
		if sessions > s.Sessions || others > 0 || bytes > s.TableBytes {
			r.violate("shares", "%s: owners have %d sessions of %d, %d grants and waits of none, %d bytes of %d",
				name, sessions, s.Sessions, others, bytes, s.TableBytes)
		}
	}
}

// Judge checks the history of a run and adds to its violations. It belongs outside
// of the bubble: a search has a limit in real time.
func (o *Outcome) Judge() {
	report := o.History.Check(history.Options{RateError: maxRateError, Alone: true, Watched: true, Working: true, Revoked: o.isRevoked})
	o.Stats = report.Stats
	o.Violations = append(o.Violations, report.Violations...)
	o.judgeShares()
	o.judgeRights()
	terms := map[uint64]bool{}
	for _, e := range o.History.Entries {
		terms[e.Applied.Term] = true
	}
	o.Leaders = len(terms)
}

// Hash is a hash over the whole history: all requests, answers and beliefs with their times,
// and what the nodes applied. Two runs with the same hash were the same.
func (o *Outcome) Hash() uint64 {
	h := fnv.New64a()
	for _, op := range o.History.Ops {
		_, _ = fmt.Fprintln(h, op) // a hash takes everything
	}
	for _, b := range o.History.Beliefs {
		_, _ = fmt.Fprintln(h, b)
	}
	for _, e := range o.History.Entries {
		_, _ = fmt.Fprintln(h, e.Node, e.At, e.Applied.Index, e.Applied.Digest)
	}
	return h.Sum64()
}

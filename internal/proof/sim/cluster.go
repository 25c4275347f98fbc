package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/simnet"
)

// Options shape a Cluster; the zero value is three nodes in one data centre.
type Options struct {
	// Nodes is how many voters there are; zero is 3.
	Nodes int
	// Seed decides the delays of the network.
	Seed uint64
	// Latency and Jitter are the network's; both zero is 200 µs and 100 µs. Without any
	// latency a goroutine that is always busy would keep virtual time from moving.
	Latency, Jitter time.Duration
	// Timing is the nodes' heartbeat and election timeout; zero is theirs.
	Timing time.Duration
	// Timings has the timing of nodes that differ from Timing. A leader with a longer one
	// notices later that it no longer leads, like a leader that was paused.
	Timings map[string]time.Duration
	// Disks has how long each write takes on the disks of nodes; no time on the others.
	Disks map[string]time.Duration
	// Volatile is how many acknowledged writes a lying disk may lose; zero is
	// all since it began to lie.
	Volatile int
	// Limits are written to the table when the cluster is formed.
	Limits fsm.Limits
	// SnapshotThreshold is how many entries lie between snapshots; zero is the
	// node's own.
	SnapshotThreshold uint64
	// Auth is the nodes' mode of rights; empty is off.
	Auth string
	// Logger gets what nodes and clients log; nil is silent.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	var errs []error
	if o.Nodes < 0 || o.Nodes > 9 {
		errs = append(errs, fmt.Errorf("nodes: is %d, must be 1 to 9", o.Nodes))
	}
	if o.Latency < 0 || o.Jitter < 0 {
		errs = append(errs, fmt.Errorf("latency and jitter: are %v and %v, must be 0 or more", o.Latency, o.Jitter))
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Latency == 0 && o.Jitter == 0 {
		o.Latency, o.Jitter = 200*time.Microsecond, 100*time.Microsecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

// Cluster is a cluster in memory with its clients. Its methods are safe for
// concurrent use; those that change a node or client wait for each other.
type Cluster struct {
	o        Options
	net      *simnet.Network
	recorder *history.Recorder
	start    time.Time

	wg sync.WaitGroup // what is being closed

	strangers   sync.WaitGroup     // see Intrude
	endStranger context.CancelFunc // nil: there is none; guarded by mu

	changing chan struct{}          // holds a token while a node is started or ended; no mutex, as that may wait
	opening  atomic.Pointer[member] // the one that is being opened

	cutting sync.Mutex       // guards apart, and its being carried out
	apart   map[string]apart // name → why it is cut off

	mu       sync.Mutex // guards what follows
	nodes    []*member
	clients  []*process
	sessions map[fsm.SessionID]bool // those that are open
	seen     uint64                 // last index that sessions knows of
	closed   bool
	errs     []error       // of what ended in the background
	ended    []*EndedError // of nodes that do not run any more

	rightsMu sync.Mutex // guards rights
	rights   []RightsChange
}

// New starts a cluster and waits until every node is ready, which takes a second
// or two, or until ctx ends; then nothing is left running.
func New(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("simulate a cluster: %w", err)
	}
	c := &Cluster{
		o: o, start: time.Now(), sessions: map[fsm.SessionID]bool{}, apart: map[string]apart{},
		changing: make(chan struct{}, 1),
		net:      simnet.New(o.Seed, simnet.Options{Latency: o.Latency, Jitter: o.Jitter}),
	}
	if c.Virtual() {
		racedetector.OneThread()
	}
	c.recorder = history.NewRecorder(c.Now)
	for i := range o.Nodes {
		c.nodes = append(c.nodes, c.newMember(fmt.Sprintf("n%d", i+1)))
	}
	for _, m := range c.nodes {
		if err := c.Start(m.name); err != nil {
			return nil, errors.Join(fmt.Errorf("simulate a cluster: %w", err), c.Close())
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("simulate a cluster: %w", err), c.Close())
	}
	return c, nil
}

// longestProbe is memberlist's probe interval times its highest awareness.
const longestProbe = 10 * time.Second

// Virtual reports whether the cluster's time is that of a testing/synctest
// bubble, which begins with the year 2000.
func (c *Cluster) Virtual() bool { return c.start.Year() < 2020 }

// Now is the time since the cluster was made, by a clock that nobody skews.
func (c *Cluster) Now() time.Duration { return time.Since(c.start) }

// Nodes are the names of the nodes: n1, n2 and so on.
func (c *Cluster) Nodes() []string {
	names := make([]string, len(c.nodes))
	for i, m := range c.nodes {
		names[i] = m.name
	}
	return names
}

// Clients are the names of the clients that there were, in order of their making.
func (c *Cluster) Clients() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, len(c.clients))
	for i, p := range c.clients {
		names[i] = p.name
	}
	return names
}

// Recorder collects the history of the cluster.
func (c *Cluster) Recorder() *history.Recorder { return c.recorder }

// eventually waits until cond holds.
func (c *Cluster) eventually(ctx context.Context, what string, cond func() bool) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-poll.C:
		}
	}
	return nil
}

// WaitReady waits until every node that runs is ready: it knows the leader, and
// a majority has confirmed it a moment ago. A node that ended by itself never will
// be ready: then, or as soon as one does, WaitReady returns its [EndedError].
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel(nil)
	looking.Go(func() {
		// It fails only if ctx ends, and there is nothing to look for then.
		_ = c.eventually(ctx, "a node has ended", func() bool {
			e := c.endedNow()
			if e != nil {
				cancel(e)
			}
			return e != nil
		})
	})
	for _, m := range c.nodes {
		n := m.running()
		if n == nil {
			continue
		}
		if err := n.WaitReady(ctx); err != nil && m.running() == n {
			if e := c.endedNow(); e != nil {
				return e
			}
			return fmt.Errorf("wait for %s: %w", m.name, err)
		}
	}
	if e := c.endedNow(); e != nil {
		return e // one that ended a moment ago says that it is ready
	}
	return nil
}

// Leader waits for a node that leads, and returns its name.
func (c *Cluster) Leader(ctx context.Context) (name string, err error) {
	err = c.eventually(ctx, "a node leads", func() bool {
		name = c.leaderNow()
		return name != ""
	})
	return name, err
}

// leaderNow returns the node that considers itself the leader in the latest term.
func (c *Cluster) leaderNow() (name string) {
	var latest uint64
	for _, m := range c.nodes {
		n := m.running()
		if n == nil || m.isPaused() {
			continue
		}
		if s := n.Status(); s.State == client.StateLeader && s.Term >= latest {
			name, latest = m.name, s.Term
		}
	}
	return name
}

// Close ends all clients and nodes, and waits for them. It returns what went
// wrong with that; nodes that ended by themselves are left to [Cluster.Ended].
func (c *Cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	clients, endStranger := c.clients, c.endStranger
	c.mu.Unlock()
	if endStranger != nil {
		endStranger()
		c.strangers.Wait()
	}
	c.Heal()
	for _, p := range clients {
		c.endPause(p.name, &p.pause)
		c.wg.Go(func() { c.note(p.close()) })
	}
	c.wg.Wait()
	for _, m := range c.nodes {
		m.disk.Release()
		m.late.set(0)
		c.endPause(m.name, &m.pause)
		if n := c.take(m); n != nil {
			c.wg.Go(func() {
				// One that has ended by itself is among Ended; how it did so says no more.
				if err := c.inOrder(n.Close); err != nil && n.Err() == nil {
					c.note(fmt.Errorf("close node %q: %w", m.name, err))
				}
			})
		}
	}
	c.wg.Wait()
	c.net.Close()
	if c.Virtual() {
		// Gossip's probes that are under way wait for answers, and nobody waits for
		// them. A bubble must not end before they do.
		time.Sleep(longestProbe)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}

func (c *Cluster) note(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < 100 {
		c.errs = append(c.errs, err)
	}
}

// applied records which sessions the tables have: each entry once, from the node that
// applies it first.
func (c *Cluster) applied(a fsm.Applied) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.Index <= c.seen {
		return
	}
	c.seen = a.Index
	for i := range a.Events {
		switch e := &a.Events[i]; e.Kind {
		case fsm.EventSessionOpened:
			c.sessions[e.Session] = true
		case fsm.EventSessionEnded:
			delete(c.sessions, e.Session)
		}
	}
}

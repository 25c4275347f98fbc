package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/proof/simdisk"
	"github.com/locknode/locknode/internal/replica"
	"github.com/locknode/locknode/internal/seam"
	"github.com/locknode/locknode/node"
)

// entryBytes is roughly the size of a simulation's entry as the node counts it.
const entryBytes = 700

// The ports of a node, the same on every host.
const (
	apiPort    = 7400
	gossipPort = 7403
)

// member is one node through all its lives.
type member struct {
	name  string
	disk  *simdisk.Disk
	clock clock
	wall  atomic.Int64 // nanoseconds by which its wall clock is wrong
	pause pause
	late  late

	asked atomic.Pointer[embedded.Node] // the node as the latest of its own clients asks it; nil: it has had none

	removed atomic.Bool // it was asked to remove itself, and has not been re-seeded

	mu      sync.Mutex // guards what follows
	node    *node.Node // nil: not running
	machine *replica.Table
	life    *atomic.Bool // of node: false once it was killed
}

func (c *Cluster) newMember(name string) *member {
	c.net.Host(name) // gets its address
	return &member{name: name, disk: simdisk.New(simdisk.Options{Latency: c.o.Disks[name], Volatile: c.o.Volatile}), clock: clock{now: c.Now}}
}

func (c *Cluster) member(name string) (*member, error) {
	for _, m := range c.nodes {
		if m.name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no node %q, only %s", name, list(c.Nodes()))
}

func (m *member) running() *node.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// asClientsAsk is a node of this member as its own clients ask it.
func (m *member) asClientsAsk(n *node.Node) embedded.Node {
	_ = n.Client().Close() // making it has noted the node
	return *m.asked.Load()
}

func (m *member) isPaused() bool { return m.pause.isOn() }

func (c *Cluster) address(name string, port int) string {
	ip, err := c.net.Lookup(name)
	if err != nil {
		panic(err) // every node has a host from the beginning
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}

// Start starts a node that does not run, or has ended by itself, on the disk
// that it had.
func (c *Cluster) Start(name string) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer c.change()()
	if n := m.running(); n != nil && !ended(n) {
		return fmt.Errorf("start node %q: it runs", name)
	}
	c.take(m)
	c.opening.Store(m)
	defer c.opening.Store(nil)
	host := c.net.Revive(name)
	life := &atomic.Bool{}
	life.Store(true)
	record := c.recorder.Applied(name)
	var machine *replica.Table
	world := seam.Node{
		Mono:    m.clock.read,
		Wall:    func() time.Time { return time.Now().Add(time.Duration(m.wall.Load())) },
		Network: host,
		Memory:  m.disk.Memory(),
		Machine: func(f *replica.Table) { machine = f },
		Applying: func(uint64) {
			if life.Load() {
				m.late.wait()
			}
		},
		Applied: func(a fsm.Applied) {
			if life.Load() {
				record(a)
				c.applied(a)
				c.noteRights(a, machine)
			}
		},
		Client: func(n embedded.Node, opts []client.Option) (embedded.Node, []client.Option) {
			own := []client.Option{
				client.Holder(name), client.Logger(c.o.Logger.With("client", name)),
				client.Clock(m.clock.read), client.Trace(c.recorder.Trace(name)),
			}
			m.asked.Store(&n)
			return c.recorder.Backend(name, n), append(own, opts...)
		},
		Stamped:       func(uint64) { m.pause.wait(context.Background()) },
		SnapshotBytes: int64(c.o.SnapshotThreshold) * entryBytes,
		Raft: func(conf *raft.Config) {
			if c.o.SnapshotThreshold > 0 {
				conf.SnapshotThreshold = c.o.SnapshotThreshold
				conf.TrailingLogs = c.o.SnapshotThreshold * 3 / 2
				conf.SnapshotInterval = 5 * time.Second
			}
		},
	}
	conf := node.Config{
		ID: name, Listen: c.address(name, apiPort), HTTPAddr: "off", Insecure: true,
		BootstrapExpect: len(c.nodes), StopWait: -1, Timing: cmp.Or(c.o.Timings[name], c.o.Timing), Limits: c.o.Limits, Logger: c.o.Logger,
		Auth: node.Auth{Mode: c.o.Auth},
	}
	for _, o := range c.nodes {
		if o != m {
			conf.Join = append(conf.Join, c.address(o.name, gossipPort))
		}
	}
	n, err := node.Open(seam.With(context.Background(), world), conf)
	if err != nil {
		c.net.Kill(name)
		return fmt.Errorf("start node %q: %w", name, err)
	}
	m.mu.Lock()
	m.node, m.machine, m.life = n, machine, life
	m.mu.Unlock()
	return nil
}

// change waits until no other node is being started or ended, and returns what ends the
// change. A node that is being opened on a disk that hangs is not waited for: who would end
// that fault may be the one that waits here, so the fault ends.
func (c *Cluster) change() (done func()) {
	for {
		select {
		case c.changing <- struct{}{}:
			return func() { <-c.changing }
		case <-time.After(time.Second):
			if m := c.opening.Load(); m != nil {
				m.disk.Release()
			}
		}
	}
}

// Kill ends a node as kill -9 does: what it has acknowledged is on its disk.
func (c *Cluster) Kill(name string) error { return c.end("kill", name, c.net.Kill, true) }

// LoseUnsynced ends a node as a loss of power does: peers hear nothing, and what
// its disk only pretended to have written is gone.
func (c *Cluster) LoseUnsynced(name string) error {
	return c.end("power off", name, c.net.PowerOff, false)
}

func (c *Cluster) end(how, name string, off func(string), keepUnsynced bool) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	defer c.change()()
	n := c.take(m)
	if n == nil {
		return fmt.Errorf("%s node %q: it does not run", how, name)
	}
	m.life.Store(false)
	m.disk.Crash(keepUnsynced)
	off(name)
	m.late.set(0)
	m.disk.Release()
	c.endPause(name, &m.pause)
	c.wg.Go(func() { _ = n.Close() }) // its error does not count: it was killed
	c.recorder.Fault(how+" "+name, c.Now(), 0)
	return nil
}

// Exchange gives two nodes that do not run each other's addresses, as containers get
// those of others that have ended.
func (c *Cluster) Exchange(a, b string) error {
	ma, errA := c.member(a)
	mb, errB := c.member(b)
	if err := errors.Join(errA, errB); err != nil {
		return fmt.Errorf("exchange addresses: %w", err)
	}
	if a == b {
		return fmt.Errorf("exchange addresses: %q is one node", a)
	}
	defer c.change()()
	for _, m := range []*member{ma, mb} {
		if m.running() != nil {
			return fmt.Errorf("exchange addresses of nodes %q and %q: %q runs", a, b, m.name)
		}
	}
	c.net.ExchangeAddresses(a, b)
	c.recorder.Fault("exchange addresses "+a+" ↔ "+b, c.Now(), 0)
	return nil
}

// Stop ends a node in good order, as SIGTERM does, after it has ended its pause. It returns
// [ErrUnclean] if the node does not end in good order, and an [EndedError] if it had ended by
// itself; it does not run any more then.
func (c *Cluster) Stop(name string) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	defer c.change()()
	n := c.take(m)
	if n == nil {
		return fmt.Errorf("stop node %q: it does not run", name)
	}
	alone := c.endOf(name, n)
	c.recorder.Fault("stop "+name, c.Now(), 0)
	c.endPause(name, &m.pause)
	m.late.set(0)
	err = c.inOrder(n.Close)
	m.life.Store(false)
	c.net.Kill(name)
	switch {
	case alone != nil:
		return fmt.Errorf("stop: %w", alone)
	case err != nil:
		return fmt.Errorf("stop node %q: %w", name, err)
	}
	return nil
}

// ErrUnclean means that a node has not ended in good order: its Close returned an error, or
// took longer than it may.
var ErrUnclean = errors.New("it did not end in good order")

// closeLimit is how long a node's Close may take, as its documentation has it.
// That is for virtual time; on a busy machine anything may take longer.
const closeLimit = 5 * time.Second

// inOrder calls a node's Close.
func (c *Cluster) inOrder(closeNode func() error) error {
	begin := c.Now()
	err := closeNode()
	if took := c.Now() - begin; c.Virtual() && took > closeLimit {
		err = errors.Join(err, fmt.Errorf("it took %v, %v is allowed", took, closeLimit))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnclean, err)
	}
	return nil
}

// Node is the running node of this name, nil if it does not run.
func (c *Cluster) Node(name string) *node.Node {
	m, err := c.member(name)
	if err != nil {
		return nil
	}
	return m.running()
}

// Disk is a node's disk; its faults are those of package simdisk.
func (c *Cluster) Disk(name string) (*simdisk.Disk, error) {
	m, err := c.member(name)
	if err != nil {
		return nil, err
	}
	return m.disk, nil
}

package locktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/sim"
	"github.com/locknode/locknode/node"
)

// patience bounds the waits of the kit itself. A cluster elects a leader in less than a
// second; what takes a minute will not happen.
const patience = time.Minute

// Cluster is a cluster in memory that belongs to a test. Its methods are safe for
// concurrent use. Its zero value is of no use; see [New].
//
// A method that cannot do its work, because a name is wrong or a node is
// not in the state for it, fails the test at once and names what there is. Like
// [testing.T.FailNow], such methods are for the test's own goroutine; those that
// programs under test call from theirs ([Cluster.PausePoint],
// [Cluster.PauseFor]) fail the test and return.
type Cluster struct {
	t    testing.TB
	sim  *sim.Cluster
	seed uint64

	mu       sync.Mutex      // guards what follows
	clients  map[string]bool // names of those that were made and not killed
	failures []error         // those of FailDisk
	lied     bool            // LyingDisk was used
}

// New starts a cluster of 1 to 9 nodes, called n1, n2 and so on, and waits until
// all of them are ready, which takes a second or two; it fails the test after a minute.
// The cluster is closed when the test ends, with all its clients. The test fails if a part of
// it does not end in order then, or if a node has ended by itself before, unless its error is
// that of [Cluster.FailDisk], or [Cluster.LyingDisk] was used.
func New(t testing.TB, nodes int, opts ...Option) *Cluster {
	t.Helper()
	if nodes < 1 || nodes > 9 {
		t.Fatalf("locktest: number of nodes: is %d, must be 1 to 9", nodes)
	}
	conf, log := newConfig(t, nodes, opts)
	c := &Cluster{t: t, seed: conf.sim.Seed, clients: make(map[string]bool)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	if c.sim, err = sim.New(ctx, conf.sim); err != nil {
		t.Fatalf("locktest: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.story())
		}
		if err := c.sim.Close(); err != nil {
			t.Errorf("locktest: close: %v", err)
		}
		for _, e := range c.sim.Ended() {
			if !c.explains(e) {
				t.Errorf("locktest: %v (seen at %v)", e, e.Seen.Round(time.Millisecond))
			}
		}
		log.close()
	})
	return c
}

// explains reports whether a fault of a disk explains why a node ended by itself.
func (c *Cluster) explains(e error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lied || slices.ContainsFunc(c.failures, func(failure error) bool { return errors.Is(e, failure) })
}

// fatal fails the test if err is not nil.
func (c *Cluster) fatal(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("locktest: %v", err)
	}
}

// story lists the faults that were injected, for the reader of a failed test.
func (c *Cluster) story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "locktest: the cluster had seed %d; its faults:", c.seed)
	faults := c.sim.Recorder().History().Faults
	if len(faults) == 0 {
		b.WriteString(" none")
	}
	const most = 100
	for i, f := range faults {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(faults)-most)
			break
		}
		fmt.Fprintf(&b, "\n  %v: %s", f.At.Round(time.Millisecond), f.What)
	}
	return b.String()
}

// Now returns the time since the cluster was made, by a clock that is not skewed.
func (c *Cluster) Now() time.Duration { return c.sim.Now() }

// Client returns the client of that name, as [client.Dial] makes it, on a machine
// of its own. There is one of each name: the first call makes it, with these
// options; later ones return it, and must not have options. A name has 1 to 64 letters,
// digits, dots, dashes and underscores, and begins with a letter.
//
// The client has the cluster's clock, a logger, and its name as its holder; what
// it does is recorded for [Cluster.CheckHistory]. With [client.Clock] in the
// options, [Cluster.SkewClock] has no effect on it. It is closed with the
// cluster; after a Close of your own the name can be used again after
// [Cluster.KillClient].
func (c *Cluster) Client(name string, opts ...client.Option) *client.Client {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[name] && len(opts) > 0 {
		c.t.Fatalf("locktest: client %q: exists already, with the options of the first call; later calls must not have any", name)
	}
	cl, err := c.sim.Client(name, opts...)
	c.fatal(err)
	c.clients[name] = true
	return cl
}

// Nodes returns the names of all nodes, whether they run or not.
func (c *Cluster) Nodes() []string { return c.sim.Nodes() }

// Leader waits until a node leads and returns its name. In a partitioned network that is the
// leader of the latest term. It fails the test after a minute without a leader.
func (c *Cluster) Leader() string {
	c.t.Helper()
	ctx, cancel := c.wait()
	defer cancel()
	name, err := c.sim.Leader(ctx)
	if err != nil {
		c.t.Fatalf("locktest: no node has led for %v; does a majority run, and is it connected?", patience)
	}
	return name
}

// Followers waits for a leader as [Cluster.Leader] does, and returns the names of all other
// nodes.
func (c *Cluster) Followers() []string {
	c.t.Helper()
	leader := c.Leader()
	return slices.DeleteFunc(c.Nodes(), func(name string) bool { return name == leader })
}

// Node returns the running node of that name, for programs that embed one. After a
// [Cluster.Restart] it is another one.
//
// Clients from its Client method have the clock of the node, and are recorded
// under its name. The test closes them, also after a [Cluster.Kill]. Requests of such
// a client to its own node use no network, so that cuts and pauses do not delay them.
func (c *Cluster) Node(name string) *node.Node {
	c.t.Helper()
	c.checkNode(name)
	n := c.sim.Node(name)
	if n == nil {
		c.t.Fatalf("locktest: node %q: does not run; see Restart", name)
	}
	return n
}

// checkNode fails the test if no node has that name.
func (c *Cluster) checkNode(name string) {
	c.t.Helper()
	if !slices.Contains(c.Nodes(), name) {
		c.t.Fatalf("locktest: there is no node %q, only %s", name, strings.Join(c.Nodes(), ", "))
	}
}

// WaitReady waits until every running node is ready: it knows the leader, which a
// majority has confirmed a moment ago. It fails the test after a minute, for example because
// nodes are cut off or paused, and at once if a node has ended by
// itself, for example because of its disk: [Cluster.Restart] or [Cluster.Kill] it first.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	ctx, cancel := c.wait()
	defer cancel()
	err := c.sim.WaitReady(ctx)
	var ended *sim.EndedError
	switch {
	case errors.As(err, &ended):
		c.t.Fatalf("locktest: wait until all are ready: %v; see Restart and Kill", ended)
	case err != nil:
		c.t.Fatalf("locktest: %v; heal the network, resume paused nodes, and restart a majority first", err)
	}
}

// Eventually waits until cond holds, and fails the test after a minute. It calls
// cond on its own goroutine, every ten milliseconds. what completes the sentence
// "waited until …".
func (c *Cluster) Eventually(what string, cond func() bool) {
	c.t.Helper()
	until := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(until) {
			c.t.Fatalf("locktest: waited %v until %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// wait returns a context for the waits of the kit. It does not end with the
// context of the test, so that cleanups can use the kit.
func (c *Cluster) wait() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), patience, errors.New("a minute is over"))
}

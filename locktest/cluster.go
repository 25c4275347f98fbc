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

// patience bounds what the kit waits for by itself. A cluster elects in less
// than a second; what takes a minute is not going to happen.
const patience = time.Minute

// Cluster is a cluster in memory that belongs to a test. Its methods are safe for
// concurrent use.
//
// A method that cannot do what it is asked, because a name is wrong or a node is
// not in the state for it, fails the test at once and says what there is. Like
// [testing.T.FailNow], such methods are for the test's own goroutine; those that
// programs under test call from theirs ([Cluster.PausePoint],
// [Cluster.PauseFor]) fail the test and return.
type Cluster struct {
	t    testing.TB
	sim  *sim.Cluster
	seed uint64

	mu       sync.Mutex      // guards what follows
	clients  map[string]bool // names of those that were made and not killed
	failures []error         // that disks were given
	lied     bool            // some disk did
}

// New starts a cluster of 1 to 9 nodes, called n1, n2 and so on, and returns when
// all of them are ready, which takes them a second or two. The cluster is closed
// when the test ends, with all its clients; what then does not end in order
// fails the test, and so does a node that has ended by itself any time before,
// unless it says what [Cluster.FailDisk] was given, or some disk has lied.
func New(t testing.TB, nodes int, opts ...Option) *Cluster {
	t.Helper()
	if nodes < 1 || nodes > 9 {
		t.Fatalf("locktest: %d nodes: 1 to 9 are allowed", nodes)
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

// explains reports whether something that was done to the disks is why a node
// ended by itself.
func (c *Cluster) explains(e error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lied || slices.ContainsFunc(c.failures, func(failure error) bool { return errors.Is(e, failure) })
}

// fatal ends the test if a deed was not possible.
func (c *Cluster) fatal(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("locktest: %v", err)
	}
}

// story is what was done to the cluster, for whoever looks at a failure.
func (c *Cluster) story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "locktest: the cluster had seed %d; what was done to it:", c.seed)
	faults := c.sim.Recorder().History().Faults
	if len(faults) == 0 {
		b.WriteString(" nothing")
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

// Now is the time since the cluster was made, by a clock that nobody skews.
func (c *Cluster) Now() time.Duration { return c.sim.Now() }

// Client returns the client of that name, as [client.Dial] makes it, on a machine
// of its own. There is one of each name: the first call makes it, with these
// options; later ones return it, and must not have options. A name has letters,
// digits, dots, dashes and underscores, and begins with a letter.
//
// The client has the cluster's clock, a logger, and its name as its holder; what
// it does is recorded for [Cluster.CheckHistory]. [client.Clock] in the
// options takes it out of [Cluster.SkewClock]'s hands. It is closed with the
// cluster; after a Close of your own the name is used up until
// [Cluster.KillClient].
func (c *Cluster) Client(name string, opts ...client.Option) *client.Client {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[name] && len(opts) > 0 {
		c.t.Fatalf("locktest: client %q is there already: its options are those of the first call", name)
	}
	cl, err := c.sim.Client(name, opts...)
	c.fatal(err)
	c.clients[name] = true
	return cl
}

// Nodes are the names of all nodes, whether they run or not.
func (c *Cluster) Nodes() []string { return c.sim.Nodes() }

// Leader returns the name of the node that leads, and waits for one if need be.
// In a cut network it is the leader of the latest term. It fails the test after
// a minute without one.
func (c *Cluster) Leader() string {
	c.t.Helper()
	ctx, cancel := c.wait()
	defer cancel()
	name, err := c.sim.Leader(ctx)
	if err != nil {
		c.t.Fatalf("locktest: no node leads, and none has been elected for %v; is there a majority that runs and can talk?", patience)
	}
	return name
}

// Followers are the names of all nodes but the leader, for which it waits.
func (c *Cluster) Followers() []string {
	c.t.Helper()
	leader := c.Leader()
	return slices.DeleteFunc(c.Nodes(), func(name string) bool { return name == leader })
}

// Node returns the running node of that name, for programs that embed one. It
// is another one after a [Cluster.Restart].
//
// Clients from its Client method have the clock of the node, and are recorded
// under its name. They are yours to close, also after a [Cluster.Kill]. What such
// a client asks its own node goes over no network, so that cuts and pauses do
// not hold it up.
func (c *Cluster) Node(name string) *node.Node {
	c.t.Helper()
	c.checkNode(name)
	n := c.sim.Node(name)
	if n == nil {
		c.t.Fatalf("locktest: node %q does not run: see Restart", name)
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

// WaitReady waits until every node that runs is ready: it knows the leader, and a
// majority has confirmed it a moment ago. It fails the test after a minute, as it
// does while nodes are cut off or paused, and at once if a node has ended by
// itself, because of its disk, say: [Cluster.Restart] or [Cluster.Kill] it before.
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
		c.t.Fatalf("locktest: %v; is everybody healed, resumed, and a majority up?", err)
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

// wait returns a context for what the kit waits for. It does not end with the
// test's own, so that cleanups can use the kit.
func (c *Cluster) wait() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), patience, errors.New("a minute is over"))
}

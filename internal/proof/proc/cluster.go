//go:build unix

package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options of a cluster. The zero value is three nodes of this executable in a
// temporary directory.
type Options struct {
	Binary string   // the locknode executable; default: the one that runs now
	Nodes  int      // default 3
	Dir    string   // must exist; default: a temporary directory, removed by Close
	Args   []string // added to the command line of every node
	Env    []string // default: this process's, without LOCKNODE_*

	// Prepare is called before a node is started for the first time, when its
	// directory and addresses are known. The node may be thrown away and another
	// one be made under its ID, if somebody else takes its ports. Default: nothing.
	Prepare func(*Node) error

	// Host is the IP address of a node, by its ID; default: loopback. Enter is
	// called before each start of a node on the thread that starts it, which is
	// then thrown away: it may move it into another network namespace.
	Host  func(id string) (string, error)
	Enter func(id string) error
}

// Cluster is a set of nodes that belong together.
//
// Its methods may be called from several goroutines.
type Cluster struct {
	Dir string

	options   Options
	temporary bool

	mu    sync.Mutex // guards nodes
	nodes []*Node
}

// Start launches a cluster and waits until every node is ready. When it returns
// an error nothing is left behind, except what was printed in a directory that
// the caller gave.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	const tries = 5 // others may take a port between the search and the start
	for try := 1; ; try++ {
		c, err := start(ctx, o)
		if err == nil {
			return c, nil
		}
		var exited *ExitedError
		if try == tries || !errors.As(err, &exited) || !exited.portsTaken() {
			return nil, fmt.Errorf("start cluster: %w", err)
		}
	}
}

func (o *Options) complete() error {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 0 {
		return fmt.Errorf("nodes: is %d, must be at least 1", o.Nodes)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the executable: %w", err)
		}
		o.Binary = self
	}
	if o.Env == nil {
		o.Env = cleanEnvironment(os.Environ())
	}
	if o.Prepare == nil {
		o.Prepare = func(*Node) error { return nil }
	}
	if o.Host == nil {
		o.Host = func(string) (string, error) { return "127.0.0.1", nil }
	}
	if o.Enter == nil {
		o.Enter = func(string) error { return nil }
	}
	return nil
}

// cleanEnvironment drops variables that would configure the nodes.
func cleanEnvironment(env []string) []string {
	clean := make([]string, 0, len(env))
	for _, kv := range env {
		if !strings.HasPrefix(kv, "LOCKNODE_") {
			clean = append(clean, kv)
		}
	}
	return clean
}

func start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{Dir: o.Dir, options: o}
	if c.Dir == "" {
		dir, err := os.MkdirTemp("", "locknode-")
		if err != nil {
			return nil, err
		}
		c.Dir, c.temporary = dir, true
	}
	if err := c.launch(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) launch(ctx context.Context) error {
	claimed, err := ClaimPorts(c.options.Nodes)
	if err != nil {
		return err
	}
	for i, ports := range claimed {
		id := "n" + strconv.Itoa(i+1)
		n, err := newNode(c.Dir, id, id, ports, &c.options)
		if err != nil {
			releaseAll(claimed[i:])
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		n.extra = append([]string{"--bootstrap-expect", strconv.Itoa(len(c.nodes))}, c.options.Args...)
		n.args = append(n.serveArgs(c.nodes), n.extra...)
	}
	for _, n := range c.nodes {
		if err := c.options.Prepare(n); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	ready, ctx := errgroup.WithContext(ctx) // when one has ended, the others may wait for it in vain
	for _, n := range c.nodes {
		ready.Go(func() error { return n.WaitReady(ctx) })
	}
	return ready.Wait()
}

// serveArgs is the command line of a node that seeds its gossip from others.
func (n *Node) serveArgs(others []*Node) []string {
	args := []string{"serve", "--node-id", n.ID, "--data-dir", n.Dir, "--listen", n.API()}
	for _, o := range others {
		if o != n {
			args = append(args, "--join", o.Gossip())
		}
	}
	return args
}

// Add starts one more node, which joins the others, and waits until it is ready.
// The arguments are added to its command line in all its lives. On an error the
// node stays in the cluster as it is, so that its log can be read.
func (c *Cluster) Add(ctx context.Context, args ...string) (*Node, error) {
	const tries = 5
	for try := 1; ; try++ {
		n, err := c.add(args)
		if err != nil {
			return nil, fmt.Errorf("add node: %w", err)
		}
		err = n.WaitReady(ctx)
		if err == nil {
			return n, nil
		}
		var exited *ExitedError
		if try == tries || !errors.As(err, &exited) || !exited.portsTaken() {
			return n, fmt.Errorf("add node: %w", err)
		}
		c.drop(n)
	}
}

func (c *Cluster) drop(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *Node) bool { return o == n })
	n.closeConn()
	n.location().ports.Release()
}

// Discard ends a node for good: it is killed if it runs, its data is deleted, and
// the cluster has it no longer. Its ID may be given again. Discard does not remove the member
// from Raft's configuration.
func (c *Cluster) Discard(n *Node) error {
	if n.Running() {
		_ = n.Kill() // fails only for a process that has ended by now
	}
	c.drop(n)
	if err := os.RemoveAll(n.Dir); err != nil {
		return fmt.Errorf("discard node %s: %w", n.ID, err)
	}
	return nil
}

func (c *Cluster) add(args []string) (*Node, error) {
	claimed, err := ClaimPorts(1)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.freeLocked(func(n *Node) string { return n.ID })
	place := c.freeLocked((*Node).Place)
	n, err := newNode(c.Dir, id, place, claimed[0], &c.options)
	if err != nil {
		releaseAll(claimed)
		return nil, err
	}
	n.extra = append(slices.Clone(c.options.Args), args...)
	n.args = append(n.serveArgs(c.nodes), n.extra...)
	c.nodes = append(c.nodes, n)
	if err := c.options.Prepare(n); err != nil {
		return n, err
	}
	return n, n.Start()
}

// freeLocked returns the first name that no node has; of returns the name of a node.
func (c *Cluster) freeLocked(of func(*Node) string) string {
	for i := 1; ; i++ {
		id := "n" + strconv.Itoa(i)
		if !slices.ContainsFunc(c.nodes, func(n *Node) bool { return of(n) == id }) {
			return id
		}
	}
}

// Exchange gives two nodes that do not run each other's addresses, and the places where
// they run.
func (c *Cluster) Exchange(a, b *Node) error {
	if a == b || a.Running() || b.Running() {
		return fmt.Errorf("exchange addresses of nodes %s and %s: two are needed that do not run", a.ID, b.ID)
	}
	a.closeConn()
	b.closeConn()
	ofA, ofB := a.location(), b.location()
	a.move(ofB)
	b.move(ofA)
	all := c.Nodes()
	a.setArgs(append(a.serveArgs(all), a.extra...))
	b.setArgs(append(b.serveArgs(all), b.extra...))
	return nil
}

// Nodes are all nodes that were not discarded, running or not, oldest first.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node(nil), c.nodes...)
}

// Node is the node with this ID, nil if there is none.
func (c *Cluster) Node(id string) *Node {
	for _, n := range c.Nodes() {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Running are the nodes whose processes run.
func (c *Cluster) Running() []*Node {
	var running []*Node
	for _, n := range c.Nodes() {
		if n.Running() {
			running = append(running, n)
		}
	}
	return running
}

// Endpoints are the API addresses of all nodes, running or not.
func (c *Cluster) Endpoints() []string {
	var endpoints []string
	for _, n := range c.Nodes() {
		endpoints = append(endpoints, n.API())
	}
	return endpoints
}

// WaitReady waits until every running node is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, n := range c.Running() {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Leader waits until a node that runs calls itself the leader and serves, and no
// other does so for a later term. A paused node cannot be it: it does not answer.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	for {
		if n := c.leaderNow(ctx); n != nil {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a leader: %w", context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}

// leaderNow asks all running nodes at once: one that is paused costs a second,
// and must not make the answers of the others old.
func (c *Cluster) leaderNow(ctx context.Context) *Node {
	nodes := c.Running()
	terms := make([]uint64, len(nodes)) // 0: does not lead
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			status, err := n.Status(ctx)
			if err == nil && status.GetState() == "leader" && status.GetReady() {
				terms[i] = status.GetTerm()
			}
		})
	}
	wg.Wait()
	var leader *Node
	var latest uint64
	for i, term := range terms {
		if term > latest {
			leader, latest = nodes[i], term
		}
	}
	return leader
}

// Followers waits for a leader and returns the other running nodes.
func (c *Cluster) Followers(ctx context.Context) ([]*Node, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var followers []*Node
	for _, n := range c.Running() {
		if n != leader {
			followers = append(followers, n)
		}
	}
	return followers, nil
}

// Close kills every process, waits until all have been reaped, and removes the
// directory if it was temporary. It may be called twice.
func (c *Cluster) Close() error {
	for _, n := range c.Nodes() {
		if n.Running() {
			_ = n.Kill() // fails only for a process that has ended by now
		}
		n.closeConn()
		n.location().ports.Release()
	}
	if !c.temporary {
		return nil
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	return nil
}

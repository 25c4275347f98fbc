package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/network"
)

const (
	// closeTimeout bounds the end of the node, transferTimeout its part in which
	// leadership is handed over, leaveTimeout the leaving before it and the leaving of
	// gossip. StopWait and LeaveWait bound what Close waits for before these.
	closeTimeout = 5 * time.Second
	leaveTimeout = 3 * time.Second
	// clientsTimeout bounds the closing of the clients: without a leader they cannot end
	// their sessions.
	clientsTimeout = 1500 * time.Millisecond
)

// clients are the clients that the node has given out.
type clients struct {
	mu     sync.Mutex // guards what follows
	all    []*client.Client
	closed bool
	end    chan struct{} // closed when all that there were are closed; nil before close
}

// add keeps a client until it is closed. It returns false if no clients are given out any
// more.
func (c *clients) add(one *client.Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.all = slices.DeleteFunc(c.all, func(old *client.Client) bool {
		select {
		case <-old.Done():
			return true
		default:
			return false
		}
	})
	c.all = append(c.all, one)
	return true
}

// close closes the clients, all at once, and waits for them, at most for clientsTimeout or
// until ctx ends. wait waits for the rest, which give up when the node has ended.
func (c *clients) close(ctx context.Context) (wait func()) {
	c.mu.Lock()
	if !c.closed {
		c.closed, c.end = true, make(chan struct{})
		go func(all []*client.Client) {
			defer close(c.end)
			var closing sync.WaitGroup
			for _, one := range all {
				closing.Go(func() { _ = one.Close() }) // a session that it cannot end expires
			}
			closing.Wait()
		}(c.all)
		c.all = nil
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, clientsTimeout)
	defer cancel()
	select {
	case <-c.end:
	case <-ctx.Done():
	}
	return func() {
		select {
		case <-c.end:
		case <-time.After(time.Second): // a call of a client may be what closes the node
		}
	}
}

// Client returns a client of the cluster of this node. While the node leads, the client's
// operations use no network. Client waits for nothing and never fails: an option that is
// out of range is an error of the client's operations.
//
// The client is closed by its own Close, or by the node's: [Node.Close] first closes the
// clients that it has given out, which ends their sessions and releases their locks, and
// only then stops serving. From then on, and when the node has ended by itself, operations
// of all its clients return [client.ErrClosed] and their grants are lost. A client that is
// made later is closed already.
func (n *Node) Client(opts ...client.Option) *client.Client {
	self := n.ownClients()
	if n.cfg.seams.Client != nil {
		self, opts = n.cfg.seams.Client(self, opts)
	}
	c := clientOf(self, opts)
	if !n.clients.add(c) {
		_ = c.Close() // it has no session yet
	}
	return c
}

// clientOf returns a client of a node. It reports options that are out of range when it is
// used.
func clientOf(n embedded.Node, opts []client.Option) *client.Client {
	c, err := client.Dial(embedded.With(context.Background(), n), nil, opts...)
	if err != nil {
		panic("dial a client of a node: " + err.Error())
	}
	return c
}

// Close stops the node: it closes the clients that it has given out, which ends their
// sessions and releases their locks, hands leadership over if the node leads, answers or
// forwards what is under way, and ends. The node stays a member and can be opened again.
//
// If too few voters would be left for a majority, Close first waits for others to come
// back, at most [Config.StopWait], and the node goes on serving meanwhile. With
// [Config.LeaveOnStop] it leaves instead, as [Node.Leave] does. Besides these waits Close
// takes at most about five seconds.
//
// An error names the parts that could not be closed in time or without a fault, or why the
// node has not left; the node has ended all the same. Close may be called more than once,
// and at any time: later calls wait for the first and return its error.
func (n *Node) Close() error {
	return n.close(func() error {
		if n.cfg.LeaveOnStop {
			return n.leaveOthers(context.Background())
		}
		n.beforeStop()
		return nil
	})
}

// Leave closes the clients that the node has given out, removes the node from the cluster
// for good, and closes it. Its data directory is of no further use then.
//
// Before the removal it waits, at most for [Config.LeaveWait] and until ctx ends, until a
// majority of the other voters answers and nodes that are to vote do. If the node then
// cannot leave, because it is the only voter or no majority of the others answers, it is
// closed all the same and stays a member: the error says so, and its data directory is
// still needed. ctx does not bound the closing, which takes about as long as Close.
//
// Once Close or Leave was called, Leave waits for that call and returns its error.
func (n *Node) Leave(ctx context.Context) error {
	return n.close(func() error { return n.leaveOthers(ctx) })
}

// close ends the node once; before runs while it still serves.
func (n *Node) close(before func() error) error {
	if n.closeCalled.CompareAndSwap(false, true) {
		n.waitsToStop.Store(true)
		closed := n.clients.close(context.Background())
		n.closeErr = before()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		n.closeErr = errors.Join(n.closeErr, n.stop(ctx))
		close(n.done)
		closed() // clients that waited for a leader give up now
	}
	<-n.done
	return n.closeErr
}

// stop ends everything in the reverse order of its start.
func (n *Node) stop(ctx context.Context) error {
	healthy := n.Err() == nil
	n.closing.Store(true)
	r := n.raft.Load()
	if r != nil && healthy {
		handOver, cancel := context.WithTimeout(ctx, transferTimeout)
		if err := n.handOver(handOver, r, ""); err != nil {
			n.log.Info("stopping without a successor", "err", err)
		}
		cancel()
	}
	n.noteStop()
	drain, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = n.server.Close(drain) // clients retry what it cut
	given, cancelGiven := context.WithTimeout(ctx, time.Second)
	defer cancelGiven()
	n.host.Close(given)
	n.cancel(errors.New("node is closed"))
	return n.release(ctx)
}

// release closes everything that open has opened, however far that got. Each step gets what
// is left of ctx, and a step that hangs does not prevent the next ones.
func (n *Node) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	var errs []error
	step := func(what string, f func() error) { errs = append(errs, within(ctx, what, f)) }
	switch r := n.raft.Load(); {
	case r != nil:
		step("stop raft", func() error { return network.Stop(r, n.transport, 0, 2*time.Second) })
	case n.transport != nil:
		step("close the transport", n.transport.Close)
	case n.raftStream != nil:
		step("close the raft listener", n.raftStream.Close)
	}
	n.bound.close()
	n.unregister()
	if n.membership != nil {
		errs = append(errs, n.membership.Close(ctx))
	}
	if n.cluster != nil {
		step("stop gossip", n.cluster.Close)
	}
	if n.peers != nil {
		n.peers.close()
	}
	step("end the node's goroutines", func() error { n.running.Wait(); return nil })
	if n.stores != nil {
		step("close the stores", n.stores.Close)
	}
	n.repeats.close()
	errs = append(errs, n.audit.Close(ctx))
	return errors.Join(errs...)
}

// within waits for f, at most until ctx ends; f then goes on by itself.
func within(ctx context.Context, what string, f func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

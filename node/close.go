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
	// leadership is handed over, leaveTimeout the leaving before it and the farewell. What Close waits
	// for before these is bounded by StopWait and LeaveWait.
	closeTimeout = 5 * time.Second
	leaveTimeout = 3 * time.Second
	// clientsTimeout bounds the end of the clients: without a leader it would be in
	// vain.
	clientsTimeout = 1500 * time.Millisecond
)

// clients are those that the node has given out.
type clients struct {
	mu     sync.Mutex // guards what follows
	all    []*client.Client
	closed bool
	end    chan struct{} // closed when all that there were are closed; nil before close
}

// add keeps a client until it is closed. It reports false when no client is to be
// given out any more.
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

// close closes the clients, all at once, and waits for them, for as long as there is
// hope and at most until ctx ends. wait waits for the rest, who give up when the node
// has ended.
func (c *clients) close(ctx context.Context) (wait func()) {
	c.mu.Lock()
	if !c.closed {
		c.closed, c.end = true, make(chan struct{})
		go func(all []*client.Client) {
			defer close(c.end)
			var closing sync.WaitGroup
			for _, one := range all {
				closing.Go(func() { _ = one.Close() }) // what it could not end, runs out
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
		case <-time.After(time.Second): // the node is closed from within a call of it
		}
	}
}

// Client returns a client of the cluster that this node is a member of. While
// the node leads, its operations touch no network.
//
// It is closed by its own Close, or by the node's: [Node.Close] first closes the
// clients that it has given out, which ends their sessions and releases their locks,
// and only then stops serving. From then on, and when the node has ended by itself,
// their operations return [client.ErrClosed] and their grants are lost. So do those
// of a client that is asked for later.
func (n *Node) Client(opts ...client.Option) *client.Client {
	var self embedded.Node = wire{n}
	if n.cfg.seams.Client != nil {
		self, opts = n.cfg.seams.Client(self, opts)
	}
	c := clientOf(self, opts)
	if !n.clients.add(c) {
		_ = c.Close() // it was of no use yet
	}
	return c
}

// clientOf makes a client of a node. Options that are out of range it finds out by itself,
// when it is used.
func clientOf(n embedded.Node, opts []client.Option) *client.Client {
	c, err := client.Dial(embedded.With(context.Background(), n), nil, opts...)
	if err != nil {
		panic("a client of a node was dialled: " + err.Error())
	}
	return c
}

// Close stops the node: it closes the clients that it has given out, which ends their
// sessions and releases their locks, hands leadership over if it leads, answers or
// passes on what is under way, and ends. Membership is kept, so the node can come
// back. If the voters that would be left are too few, Close first waits for others to
// come back, at most StopWait, while the node goes on to serve. With LeaveOnStop it
// leaves instead, as [Node.Leave] does. Close takes at most about five seconds besides
// these waits, and may be called twice; a later call waits for the first.
func (n *Node) Close() error {
	return n.close(func() error {
		if n.cfg.LeaveOnStop {
			return n.leaveOthers(context.Background())
		}
		n.beforeStop()
		return nil
	})
}

// Leave closes the clients that the node has given out, takes it out of the cluster
// for good, then closes it. Its data directory is of no further use.
//
// Before that it waits, for as long as LeaveWait and ctx allow, until the voters that
// remain are there and nodes that are to vote do. If it then cannot leave, because it is
// the only voter, or no majority of the others is there, the node is closed all the same
// and remains a member; the error says so, and its data directory is needed still.
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
		closed() // those that have waited in vain: they know now
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
	drain, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = n.server.Close(drain) // what it cut, clients ask again
	given, cancelGiven := context.WithTimeout(ctx, time.Second)
	defer cancelGiven()
	n.host.Close(given)
	n.cancel(errors.New("node is closed"))
	return n.release(ctx)
}

// release gives everything back that open has taken, in whatever state. Each
// step gets what is left of ctx: one that hangs does not keep the others.
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

package locktest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
	"github.com/locknode/locknode/node"
)

// service is a program that runs a node in its own process: its instances are
// the cluster. One of them at a time does the job.
type service struct {
	node *node.Node
	done func() // is called after each job
}

// run does jobs until ctx or the node ends.
func (s *service) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		select {
		case <-s.node.Done():
		case <-ctx.Done():
		}
	}()
	c := s.node.Client()
	defer c.Close()
	for ctx.Err() == nil {
		err := c.Do(ctx, "job", func(ctx context.Context, _ *client.Grant) error {
			select {
			case <-time.After(time.Second):
				s.done()
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if errors.Is(err, client.ErrClosed) {
			return nil // the node ends
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, client.ErrLost) {
			return err
		}
	}
	return nil
}

// TestAProgramThatEmbedsItsNode runs as three instances, one of which is killed
// now and then: the leader, whose program had the job, or a follower.
func TestAProgramThatEmbedsItsNode(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		jobs := 0
		var wg sync.WaitGroup
		start := func(name string) {
			s := &service{node: cluster.Node(name), done: func() { mu.Lock(); jobs++; mu.Unlock() }}
			wg.Go(func() {
				if err := s.run(ctx); err != nil {
					t.Errorf("instance %s: %v", name, err)
				}
			})
		}
		for _, name := range cluster.Nodes() {
			start(name)
		}
		for range 3 {
			time.Sleep(20 * time.Second)
			victim := cluster.KillLeader()
			time.Sleep(5 * time.Second)
			cluster.Restart(victim)
			start(victim)
		}
		stop()
		wg.Wait()
		// 75 s, less a TTL of 10 s and a little for each instance that was killed with the job.
		if jobs < 35 || jobs > 75 {
			t.Errorf("%d jobs of a second each were done in 75s", jobs)
		}
		report := cluster.History()
		if len(report.Beliefs) < jobs || len(report.Ops) < 2*jobs {
			t.Errorf("%d jobs, and %d beliefs and %d operations were recorded", jobs, len(report.Beliefs), len(report.Ops))
		}
	})
}

// TestAnEmbeddedClientLosesItsLockByTheNodesClock: also in virtual time, and when
// its own node is cut off.
func TestAnEmbeddedClientLosesItsLockByTheNodesClock(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		name := cluster.Followers()[0]
		c := cluster.Node(name).Client(short())
		defer c.Close()
		g := lock(t, c, "x")
		cluster.Isolate(name)
		within(t, 2*time.Second, "the loss of a lock with a TTL of 2s", func() { _ = lost(t, g) })
		must(t, lock(t, cluster.Client("other"), "x").Unlock())
		cluster.Heal()
		cluster.WaitReady()
		must(t, lock(t, c, "x").Unlock())
	})
}

// TestTheEndOfANodeEndsItsClients: a program that embeds a node closes it while its
// own goroutines lock, wait and read, none of them with a deadline.
func TestTheEndOfANodeEndsItsClients(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		for _, name := range []string{cluster.Followers()[0], cluster.Leader()} {
			n := cluster.Node(name)
			c := n.Client()
			other := cluster.Client("other")
			mine, theirs := lock(t, c, "mine"), lock(t, other, "theirs")
			ended := make(chan error, 2)
			go func() { _, err := c.Lock(context.Background(), "theirs"); ended <- err }()
			go func() {
				for {
					if _, err := c.IsLocked(context.Background(), "theirs"); err != nil {
						ended <- err
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			waiting(t, cluster, other, "theirs", 1)
			within(t, 5*time.Second, "the end of node and client", func() {
				must(t, n.Close())
				<-mine.Lost()
				for range 2 {
					if err := <-ended; !errors.Is(err, client.ErrClosed) {
						t.Errorf("an operation under way ended with %v, want ErrClosed", err)
					}
				}
				for range 10 {
					if _, err := c.Lock(context.Background(), "x"); !errors.Is(err, client.ErrClosed) {
						t.Errorf("Lock on a node that is closed: %v, want ErrClosed", err)
					}
				}
				_ = c.Close()
			})
			cluster.Kill(name)
			cluster.Restart(name)
			cluster.WaitReady()
			must(t, theirs.Unlock())
		}
	})
}

// TestANodeThatStopsClosesItsClientsFirst: their locks are free at once, and their waits end
// with an error.
func TestANodeThatStopsClosesItsClientsFirst(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		for _, name := range []string{cluster.Leader(), cluster.Followers()[0]} {
			n := cluster.Node(name)
			c, waits := n.Client(), n.Client()
			g := lock(t, c, "x")
			got := make(chan error, 1)
			go func() {
				_, err := waits.Lock(context.Background(), "x")
				got <- err
			}()
			other := cluster.Client("other")
			waiting(t, cluster, other, "x", 1)
			within(t, 2*time.Second, "the end of "+name, func() { cluster.Stop(name) })
			if err := g.Err(); !errors.Is(err, client.ErrLost) {
				t.Errorf("%s: the grant of a client of a node that was closed: %v, want that it is lost", name, err)
			}
			if err := <-got; !errors.Is(err, client.ErrClosed) {
				t.Errorf("%s: Lock that waited through it: %v, want %v", name, err, client.ErrClosed)
			}
			if _, err := c.Lock(context.Background(), "y"); !errors.Is(err, client.ErrClosed) {
				t.Errorf("%s: Lock after it: %v, want %v", name, err, client.ErrClosed)
			}
			within(t, time.Second, "the lock for another client", func() { must(t, lock(t, other, "x").Unlock()) })
			cluster.Restart(name)
			cluster.WaitReady()
		}
	})
}

// The client of a node of the kit has all calls that one of a real node has.
func TestTheClientOfANodeGetsItsStatus(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Node("n2").Client()
		defer c.Close()
		if s, err := c.Status(t.Context()); err != nil || s.NodeID != "n2" || !s.Ready {
			t.Errorf("Status: %+v, %v", s, err)
		}
		if members, err := c.Members(t.Context()); err != nil || len(members) != len(cluster.Nodes()) {
			t.Errorf("Members: %+v, %v", members, err)
		}
	})
}

//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proc"
)

// What recoveries are counted from.
const (
	sinceFault    = "the fault"   // a majority is left
	sinceMajority = "majority up" // there was none before
	sinceLift     = "its end"
)

var processKinds = []Kind{
	{Name: "kill-leader", Family: "process", About: "kill -9 of the leader", strike: func(ctx context.Context, r *run, s strike) error {
		leader, err := r.leader()
		if err != nil {
			return err
		}
		return r.killSome(s, leader)
	}},
	{Name: "kill-one", Family: "process", About: "kill -9 of any node", strike: func(_ context.Context, r *run, s strike) error {
		return r.killSome(s, r.anyNode(s))
	}},
	{Name: "kill-all", Family: "process", About: "kill -9 of all nodes at once", hold: span{0, 500 * time.Millisecond},
		strike: func(ctx context.Context, r *run, s strike) error { return r.killSome(s, r.cluster.Running()...) }},
}

// leader waits until there is one.
func (r *run) leader() (*proc.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := r.cluster.Leader(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStuck, err)
	}
	return n, nil
}

// anyNode is the node that the schedule chose.
func (r *run) anyNode(s strike) *proc.Node {
	nodes := r.cluster.Running()
	return nodes[s.Pick%uint64(len(nodes))]
}

// killSome kills nodes at once, and starts them again: when the others work
// without them if those are a majority, and else after a while.
func (r *run) killSome(s strike, nodes ...*proc.Node) error {
	others := len(r.cluster.Running()) - len(nodes)
	quorum := len(r.cluster.Running())/2 + 1
	from := r.clock.now()
	if err := kill(nodes); err != nil {
		return err
	}
	if others >= quorum {
		if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
			return err
		}
	} else {
		time.Sleep(s.held()) // the outage is as long as that
	}
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if others >= quorum {
		return r.allReady(nodes)
	}
	up, err := r.listening(nodes, quorum-others)
	if err != nil {
		return err
	}
	if err := r.recovered(s, sinceMajority, up, up); err != nil {
		return err
	}
	return r.allReady(nodes)
}

func (r *run) allReady(nodes []*proc.Node) error {
	for _, n := range nodes {
		if err := r.ready(n); err != nil {
			return err
		}
	}
	return nil
}

func kill(nodes []*proc.Node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.Kill() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listening waits until so many of the nodes accept connections, and returns
// since when.
func (r *run) listening(nodes []*proc.Node, many int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	up := make(chan time.Duration, len(nodes))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, n := range nodes {
		wg.Go(func() {
			for sleep(ctx, 2*time.Millisecond) == nil {
				if conn, err := net.Dial("tcp", n.API()); err == nil {
					up <- r.clock.now()
					_ = conn.Close() // nothing was said
					return
				}
			}
		})
	}
	var at time.Duration
	for range many {
		select {
		case at = <-up:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %d of the nodes that were started do not listen", errStuck, many)
		}
	}
	return at, nil
}

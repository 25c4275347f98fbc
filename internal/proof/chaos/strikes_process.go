//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
)

// What recoveries are counted from.
const (
	sinceFault    = "the fault"   // a majority is left
	sinceMajority = "majority up" // there was none before
	sinceLift     = "its end"
)

var processKinds = []Kind{
	{Name: "kill-leader", Family: "process", About: "kill -9 of the leader", strike: func(_ context.Context, r *run, s strike) error {
		leader, err := r.leader()
		if err != nil {
			return err
		}
		return r.killSome(s, leader)
	}},
	{Name: "kill-one", Family: "process", About: "kill -9 of any node", strike: func(_ context.Context, r *run, s strike) error {
		return r.killSome(s, r.anyNode(s))
	}},
	{Name: "kill-majority", Family: "process", About: "kill -9 of more than half of the nodes at once", hold: span{0, 2 * time.Second},
		strike: func(_ context.Context, r *run, s strike) error {
			nodes := r.cluster.Running()
			first := int(s.Pick % uint64(len(nodes)))
			return r.killSome(s, append(nodes[first:], nodes[:first]...)[:len(nodes)/2+1]...)
		}},
	{Name: "kill-all", Family: "process", About: "kill -9 of all nodes at once", hold: span{0, 500 * time.Millisecond},
		strike: func(_ context.Context, r *run, s strike) error { return r.killSome(s, r.cluster.Running()...) }},
	{Name: "exchange-addresses", Family: "process", About: "two nodes are killed (kill -9) and come back at each other's addresses", Bound: silentBound,
		hold: span{0, 500 * time.Millisecond}, strike: func(_ context.Context, r *run, s strike) error {
			a, b := r.pair(s)
			return r.killThen(s, func() error { return r.exchange(a, b) }, a, b)
		}},
	{Name: "restart", Family: "process", About: "a node is stopped in good order and started again",
		strike: func(_ context.Context, r *run, s strike) error { return r.restart(s, r.anyNode(s)) }},
	{Name: "pause-short", Family: "process", About: "the leader is stopped (SIGSTOP) for less than an election timeout",
		hold: span{20 * time.Millisecond, 150 * time.Millisecond}, strike: func(_ context.Context, r *run, s strike) error {
			leader, err := r.leader()
			if err != nil {
				return err
			}
			return r.pauseSome(s, false, leader)
		}},
	{Name: "pause-leader", Family: "process", About: "the leader is stopped (SIGSTOP) for longer than an election timeout",
		Bound: silentBound, hold: span{time.Second, 4 * time.Second}, strike: func(_ context.Context, r *run, s strike) error {
			leader, err := r.leader()
			if err != nil {
				return err
			}
			return r.pauseSome(s, true, leader)
		}},
	{Name: "pause-one", Family: "process", About: "any node is stopped (SIGSTOP)", Bound: silentBound, hold: span{100 * time.Millisecond, 3 * time.Second},
		strike: func(_ context.Context, r *run, s strike) error { return r.pauseSome(s, true, r.anyNode(s)) }},
	{Name: "pause-all", Family: "process", About: "all nodes are stopped (SIGSTOP)", hold: span{100 * time.Millisecond, 3 * time.Second},
		strike: func(_ context.Context, r *run, s strike) error { return r.pauseSome(s, false, r.cluster.Running()...) }},
	{Name: "pause-client", Family: "client", About: "a client process is stopped (SIGSTOP), mostly for longer than its short sessions last",
		hold: span{time.Second, 5 * time.Second}, strike: func(ctx context.Context, r *run, s strike) error {
			from := r.clock.now()
			if err := r.pauseClient(ctx, s); err != nil {
				return err
			}
			return r.recovered(s, sinceLift, from+s.held(), r.clock.now())
		}, beside: (*run).pauseClient},
}

// restart stops a node in good order and starts it again.
func (r *run) restart(s strike, n *proc.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	from := r.clock.now()
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(ctx) }()
	recovery := r.recovered(s, sinceFault, from, from)
	if err := <-stopped; err != nil {
		r.violate("liveness", "nodes", "", "%v", err)
	}
	if recovery == nil { // it may have served until now
		at := r.clock.now()
		recovery = r.recovered(s, sinceLift, at, at)
	}
	if !n.Running() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return errors.Join(recovery, r.ready(n))
}

// pauseSome stops nodes for a while. If the others can work meanwhile, they have to.
func (r *run) pauseSome(s strike, served bool, nodes ...*proc.Node) error {
	from := r.clock.now()
	for _, n := range nodes {
		if err := n.Pause(); err != nil {
			return err
		}
	}
	resume := func() {
		for _, n := range nodes {
			_ = n.Resume() // it fails only for a process that is gone, which is found out elsewhere
		}
	}
	defer resume()
	if served {
		if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
			return err
		}
	}
	time.Sleep(s.held() - (r.clock.now() - from)) // the pause is as long as that
	resume()
	lifted := r.clock.now()
	return r.recovered(s, sinceLift, lifted, lifted)
}

// pauseClient stops a client process for a while.
func (r *run) pauseClient(ctx context.Context, s strike) error {
	c := r.clients[s.Pick%uint64(len(r.clients))]
	if err := c.Pause(); err != nil {
		return err
	}
	_ = sleep(ctx, s.held()) // the end of ctx ends the fault
	return c.Resume()
}

// leader waits until there is one.
func (r *run) leader() (*proc.Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := r.cluster.Leader(ctx)
	if err != nil {
		r.violate("liveness", "nodes", "", "%v", err)
		return nil, fmt.Errorf("%w: %w", errStuck, err)
	}
	return n, nil
}

// anyNode is the node that the schedule chose.
func (r *run) anyNode(s strike) *proc.Node {
	nodes := r.cluster.Running()
	return nodes[s.Pick%uint64(len(nodes))]
}

// pair are two nodes that the schedule chose.
func (r *run) pair(s strike) (a, b *proc.Node) {
	nodes := r.cluster.Running()
	n := uint64(len(nodes))
	i := s.Pick % n
	return nodes[i], nodes[(i+1+s.Pick/n%(n-1))%n]
}

// exchange gives two nodes that do not run each other's addresses.
func (r *run) exchange(a, b *proc.Node) error {
	r.remark("%s and %s", a.ID, b.ID)
	return r.cluster.Exchange(a, b)
}

// killSome kills nodes at once, and starts them again: when the others work
// without them if those are a majority, and else after a while.
func (r *run) killSome(s strike, nodes ...*proc.Node) error {
	return r.killThen(s, func() error { return nil }, nodes...)
}

// killThen is killSome with something that is done before the nodes are started.
func (r *run) killThen(s strike, do func() error, nodes ...*proc.Node) error {
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
	if err := do(); err != nil {
		return err
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
			r.violate("liveness", "nodes", "", "fewer than %d of %d nodes that were started listen after %v", many, len(nodes), patience)
			return 0, fmt.Errorf("%w: %d of the nodes that were started do not listen", errStuck, many)
		}
	}
	return at, nil
}

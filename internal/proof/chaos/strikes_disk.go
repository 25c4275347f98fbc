//go:build unix

package chaos

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
)

const (
	diskFull = "disk-full"
	// diskBound is how long it may take to go on without a node whose disk hangs:
	// until it is noticed, an election, and until clients have found the new leader.
	diskBound = 4 * time.Second
	// stopLimit is how long a node may take to end after a failed write.
	stopLimit = 10 * time.Second
)

var diskKinds = []Kind{
	{Name: diskFull, Family: "disk", About: "a node's small disk is filled up, and the node restarted on it", needs: (*run).needsSmall,
		hold: span{time.Second, 3 * time.Second}, Bound: diskBound,
		strike: func(ctx context.Context, r *run, s strike) error { return r.fullDisk(ctx, s) }},
}

// faultyKinds need disks that can be broken.
var faultyKinds = []Kind{
	{Name: "fsync-fails", Family: "disk", About: "an fsync of a node fails; the node has to end", needs: (*run).needsFaulty, Bound: diskBound,
		strike: func(_ context.Context, r *run, s strike) error {
			return r.failDisk(s, "fail fsync EIO 1", "input/output error")
		}},
	{Name: "writes-fail", Family: "disk", About: "a node's disk has no space left for any write; the node has to end", needs: (*run).needsFaulty, Bound: diskBound,
		strike: func(_ context.Context, r *run, s strike) error {
			return r.failDisk(s, "fail write ENOSPC", "no space left on device")
		}},
	{Name: "disk-hangs", Family: "disk", About: "the leader's disk does not answer", needs: (*run).needsFaulty, Bound: diskBound,
		hold: span{3 * time.Second, 5 * time.Second}, strike: func(ctx context.Context, r *run, s strike) error {
			leader, err := r.leader()
			if err != nil {
				return err
			}
			return r.slowDisk(ctx, s, "hang fsync", leader)
		}},
	{Name: "disks-slow", Family: "disk", About: "every fsync takes 20 ms longer", needs: (*run).needsFaulty,
		hold: span{time.Second, 3 * time.Second}, strike: func(ctx context.Context, r *run, s strike) error {
			return r.slowDisk(ctx, s, "slow fsync 20ms", r.cluster.Running()...)
		}},
	{Name: "power-loss", Family: "disk", About: "all nodes lose power: they are killed, and their disks forget what was not synced", needs: (*run).needsFaulty,
		strike: func(_ context.Context, r *run, s strike) error {
			command := "powerloss"
			if s.Pick%2 == 0 {
				command = fmt.Sprintf("powerloss torn %d", s.Pick>>32)
			}
			return r.losePower(s, command, r.cluster.Running()...)
		}},
	{Name: "power-loss-one", Family: "disk", About: "a node loses power", needs: (*run).needsFaulty,
		strike: func(_ context.Context, r *run, s strike) error { return r.losePower(s, "powerloss", r.anyNode(s)) }},
}

// lyingKinds break what Locknode relies on. They are not among "all": they show
// that what is lost then is found out.
var lyingKinds = []Kind{
	{Name: "disks-lie", Family: "disk", About: "outside of what is promised: all disks say that they have synced, have not, and lose power", needs: (*run).needsFaulty,
		unpromised: true, hold: span{2 * time.Second, 3 * time.Second}, strike: func(ctx context.Context, r *run, s strike) error {
			nodes := r.cluster.Running()
			if err := r.disk("lie on", nodes...); err != nil {
				return err
			}
			_ = sleep(ctx, s.held()) // the end of ctx ends the fault
			if err := kill(nodes); err != nil {
				return err
			}
			for _, command := range []string{"powerloss", "lie off"} {
				if err := r.disk(command, nodes...); err != nil {
					return err
				}
			}
			return r.startAfterOutage(s, nodes)
		}},
}

// failDisk breaks the disk of a node for good until it has ended, and starts it
// again on a disk that is well.
func (r *run) failDisk(s strike, command, says string) error {
	n, err := r.leaderOrNot(s)
	if err != nil {
		return err
	}
	before := len(n.Logs())
	from := r.clock.now()
	if err := r.disk(command, n); err != nil {
		return err
	}
	recovery := r.recovered(s, sinceFault, from, r.clock.now())
	if !r.endsByItself(n, stopLimit) {
		r.violate("S7", "disk", "", "node %s still runs %v after %q: what it acknowledges from now on may be lost", n.ID, stopLimit, command)
		if err := n.Kill(); err != nil {
			return err
		}
	} else if said := n.Logs()[before:]; !strings.Contains(said, says) {
		r.violate("liveness", "disk", "", "node %s ended after %q and does not say why:\n%s", n.ID, command, said)
	}
	// What a failed sync has given up is not there after a loss of power.
	for _, c := range []string{"clear", "powerloss"} {
		if err := r.disk(c, n); err != nil {
			return err
		}
	}
	if recovery != nil {
		return recovery
	}
	return r.startAgain(n)
}

// leaderOrNot is the leader in every other case, and any node else.
func (r *run) leaderOrNot(s strike) (*proc.Node, error) {
	if s.Pick%2 == 0 {
		return r.leader()
	}
	nodes := r.cluster.Running()
	return nodes[s.Pick/2%uint64(len(nodes))], nil
}

// slowDisk breaks disks without making a node end.
func (r *run) slowDisk(ctx context.Context, s strike, command string, nodes ...*proc.Node) error {
	from := r.clock.now()
	if err := r.disk(command, nodes...); err != nil {
		return err
	}
	lift := func() error { return r.disk("clear", nodes...) }
	if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
		_ = lift() // it has been reported
		return err
	}
	_ = sleep(ctx, s.held()-(r.clock.now()-from)) // the end of ctx ends the fault
	if err := lift(); err != nil {
		return err
	}
	lifted := r.clock.now()
	return r.recovered(s, sinceLift, lifted, lifted)
}

// losePower kills nodes, and takes from their disks what was not synced.
func (r *run) losePower(s strike, command string, nodes ...*proc.Node) error {
	from := r.clock.now()
	all := len(r.cluster.Running())
	if err := kill(nodes); err != nil {
		return err
	}
	killed := r.clock.now()
	if err := r.disk(command, nodes...); err != nil {
		return err
	}
	if all-len(nodes) > all/2 {
		if err := r.recovered(s, sinceFault, from, killed); err != nil {
			return err
		}
		for _, n := range nodes {
			if err := n.Start(); err != nil {
				return err
			}
		}
		return r.allReady(nodes)
	}
	return r.startAfterOutage(s, nodes)
}

// startAfterOutage starts all nodes and measures from when a majority listens.
func (r *run) startAfterOutage(s strike, nodes []*proc.Node) error {
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	up, err := r.listening(nodes, len(nodes)/2+1)
	if err != nil {
		return err
	}
	if err := r.recovered(s, sinceMajority, up, up); err != nil {
		return err
	}
	return r.allReady(nodes)
}

// fullDisk fills a node's disk up. The node may do without more room for a while,
// or end; when it was killed it may refuse to start. The others go on.
func (r *run) fullDisk(ctx context.Context, s strike) error {
	i := slices.IndexFunc(r.cluster.Running(), func(n *proc.Node) bool { return n.ID == r.disks.small })
	n := r.cluster.Running()[i]
	if s.Pick%2 == 0 {
		call, cancel := context.WithTimeout(ctx, patience)
		_, _ = r.keeper.client.TransferLeadership(call, n.ID) // it need not lead
		cancel()
	}
	before := len(n.Logs())
	from := r.clock.now()
	if err := r.fillUp(); err != nil {
		return err
	}
	defer func() { _ = os.Remove(r.ballast()) }() // it may be gone already
	if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
		return err
	}
	_ = sleep(ctx, s.held()) // the end of ctx ends the fault
	if n.Running() {
		again := r.clock.now()
		if err := n.Kill(); err != nil {
			return err
		}
		if err := r.recovered(s, sinceFault, again, r.clock.now()); err != nil {
			return err
		}
	}
	if err := n.Start(); err != nil {
		return err
	}
	r.endsByItself(n, s.held())
	switch {
	case n.Running():
		r.remark("the node did without more room")
	case strings.Contains(n.Logs()[before:], "no space left on device"):
		r.remark("the node refused to start")
	default:
		r.violate("liveness", "disk", "", "node %s ended on a full disk and does not say why:\n%s", n.ID, n.Logs()[before:])
	}
	if err := os.Remove(r.ballast()); err != nil {
		return err
	}
	lifted := r.clock.now()
	if !n.Running() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := r.ready(n); err != nil {
		return err
	}
	return r.recovered(s, sinceLift, lifted, lifted)
}

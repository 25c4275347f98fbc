package simulation

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/locknode/locknode/internal/proof/sim"
)

// leader as a Step's Who means the leader at the time of the step.
const leader = "leader"

// fault is a kind of fault.
type fault struct {
	ofClients  bool                               // Who is a client
	ofLeader   bool                               // Who is the leader
	breaksDisk bool                               // writes do not come to their end: Who cannot stop in good order
	amount     func(r *rand.Rand) time.Duration   // what Step.Amount may be
	apply      func(c *sim.Cluster, s Step) error // s.Who is a name
	lift       func(c *sim.Cluster, s Step) error // nil: it was a moment
}

// kinds are the keys of faults, in the order in which seeds choose from them.
var kinds = []string{
	"kill", "kill", "kill-majority", "kill-all", "power-off", "power-off-all", "stop",
	"isolate", "isolate", "split", "split-all", "ring", "bridge", "mute", "deafen", "slow-link", "reset",
	"pause", "pause", "slow-disk", "hang-disk", "fail-disk", "wall-jump", "transfer", "slow-apply", "remove-leader",
	"isolate-client", "pause-client", "kill-client", "drop-response", "reset-client", "mute-client",
}

var faults = map[string]fault{
	"kill":          {apply: func(c *sim.Cluster, s Step) error { return c.Kill(s.Who) }, lift: startAll},
	"kill-majority": {apply: func(c *sim.Cluster, _ Step) error { return each(majority(c), c.Kill) }, lift: startAll},
	"kill-all":      {apply: func(c *sim.Cluster, _ Step) error { return each(c.Nodes(), c.Kill) }, lift: startAll},
	"power-off":     {apply: func(c *sim.Cluster, s Step) error { return c.LoseUnsynced(s.Who) }, lift: startAll},
	"power-off-all": {apply: func(c *sim.Cluster, _ Step) error { return each(c.Nodes(), c.LoseUnsynced) }, lift: startAll},
	"stop":          {apply: func(c *sim.Cluster, s Step) error { return c.Stop(s.Who) }, lift: startAll},

	// In one profile only; see addresses.go.
	"exchange-addresses": {apply: exchange, lift: startAll},
	"take-address":       {apply: takeAddress, lift: startAll},
	"shift-addresses":    {apply: shiftAddresses, lift: startAll},

	"isolate": {apply: func(c *sim.Cluster, s Step) error { return c.Isolate(s.Who) }, lift: heal},
	"split": {apply: func(c *sim.Cluster, _ Step) error {
		all := c.Nodes()
		most := len(all)/2 + 1
		return c.Partition(all[:most], all[most:])
	}, lift: heal},
	"split-all": {apply: func(c *sim.Cluster, _ Step) error {
		var alone [][]string
		for _, n := range c.Nodes() {
			alone = append(alone, []string{n})
		}
		return c.Partition(alone...)
	}, lift: heal},
	"ring":   {apply: ring, lift: heal},
	"bridge": {apply: bridge, lift: heal},
	"mute": {apply: func(c *sim.Cluster, s Step) error {
		return each(others(c, s.Who), func(o string) error { return c.Cut(s.Who, o) })
	}, lift: heal},
	"deafen": {apply: func(c *sim.Cluster, s Step) error {
		return each(others(c, s.Who), func(o string) error { return c.Cut(o, s.Who) })
	}, lift: heal},
	"slow-link": {amount: amounts(time.Millisecond, 300*time.Millisecond), apply: func(c *sim.Cluster, s Step) error {
		return each(others(c, s.Who), func(o string) error { return c.Slow(s.Who, o, s.Amount) })
	}, lift: heal},
	"reset": {apply: func(c *sim.Cluster, s Step) error {
		return each(others(c, s.Who), func(o string) error { return c.Reset(s.Who, o) })
	}},

	"pause":     {apply: func(c *sim.Cluster, s Step) error { return c.Pause(s.Who) }, lift: func(c *sim.Cluster, s Step) error { return c.Resume(s.Who) }},
	"slow-disk": {amount: amounts(time.Millisecond, 400*time.Millisecond), apply: slowDisk, lift: func(c *sim.Cluster, s Step) error { s.Amount = 0; return slowDisk(c, s) }},
	"hang-disk": {breaksDisk: true, apply: func(c *sim.Cluster, s Step) error {
		d, err := c.Disk(s.Who)
		if err == nil {
			d.Hang()
		}
		return err
	}, lift: func(c *sim.Cluster, s Step) error {
		d, err := c.Disk(s.Who)
		if err == nil {
			d.Release()
		}
		return err
	}},
	"fail-disk": {breaksDisk: true, apply: failDisk, lift: func(c *sim.Cluster, s Step) error {
		if c.Node(s.Who) != nil { // it has ended by itself, and its process is restarted
			if err := c.Kill(s.Who); err != nil {
				return err
			}
		}
		return startAll(c, s)
	}},
	// Not among the kinds that seeds choose from: it breaks what is promised, and is
	// there to see that this is found.
	"lie": {apply: func(c *sim.Cluster, _ Step) error {
		return each(c.Nodes(), func(n string) error {
			d, err := c.Disk(n)
			if err == nil {
				d.Lie(true)
			}
			return err
		})
	}},
	// Nor is this: a write fails for a reason that no fault is. The node has to end,
	// and that it did has to be found, even if it is killed right after it.
	"defect":    {apply: func(c *sim.Cluster, s Step) error { return failWrite(c, s.Who, errDefect) }},
	"wall-jump": {amount: amounts(-12*time.Hour, 12*time.Hour), apply: func(c *sim.Cluster, s Step) error { return c.JumpWallClock(s.Who, s.Amount) }},
	"transfer":  {apply: transfer},
	"slow-apply": {amount: amounts(time.Millisecond, 400*time.Millisecond), apply: func(c *sim.Cluster, s Step) error { return c.SlowApply(s.Who, s.Amount) },
		lift: func(c *sim.Cluster, s Step) error { return c.SlowApply(s.Who, 0) }},
	// It joins again, without its data, when all is mended.
	"remove-leader": {ofLeader: true, apply: func(c *sim.Cluster, s Step) error { return c.Remove(s.Who) }},

	"isolate-client": {ofClients: true, apply: func(c *sim.Cluster, s Step) error { return c.Isolate(s.Who) }, lift: heal},
	"pause-client":   {ofClients: true, apply: func(c *sim.Cluster, s Step) error { return c.Pause(s.Who) }, lift: func(c *sim.Cluster, s Step) error { return c.Resume(s.Who) }},
	"kill-client":    {ofClients: true, apply: func(c *sim.Cluster, s Step) error { return c.KillClient(s.Who) }},
	"drop-response":  {ofClients: true, apply: func(c *sim.Cluster, s Step) error { return c.DropNextResponse(s.Who) }},
	"reset-client": {ofClients: true, apply: func(c *sim.Cluster, s Step) error {
		return each(c.Nodes(), func(n string) error { return c.Reset(s.Who, n) })
	}},
	"mute-client": {ofClients: true, apply: func(c *sim.Cluster, s Step) error {
		return each(c.Nodes(), func(n string) error { return c.Cut(n, s.Who) })
	}, lift: heal},
}

func amounts(from, to time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return between(r, from, to) }
}

// each does all of them, whatever becomes of the one before: a node that is down
// already is no reason not to kill the next one.
func each(names []string, do func(string) error) (first error) {
	for _, name := range names {
		if err := do(name); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func others(c *sim.Cluster, name string) (others []string) {
	for _, n := range c.Nodes() {
		if n != name {
			others = append(others, n)
		}
	}
	return others
}

func majority(c *sim.Cluster) []string { return c.Nodes()[:len(c.Nodes())/2+1] }

func startAll(c *sim.Cluster, _ Step) error {
	return each(c.Nodes(), func(n string) error { return startOne(c, n) })
}

// startOne starts a node unless it runs.
func startOne(c *sim.Cluster, name string) error {
	if c.Node(name) != nil {
		return nil
	}
	// A start waits for its disk, and the goroutine that starts nodes is also the one that
	// ends the hanging of disks.
	d, err := c.Disk(name)
	if err != nil {
		return err
	}
	d.Release()
	if err := c.Start(name); err != nil && c.Node(name) == nil {
		return err
	}
	return nil // a job that has closed it may have been faster
}

func heal(c *sim.Cluster, _ Step) error {
	c.Heal()
	return nil
}

// ring leaves each node its two neighbours; three nodes stay whole.
func ring(c *sim.Cluster, _ Step) error {
	all := c.Nodes()
	n := len(all)
	for i, a := range all {
		for j, b := range all {
			if i != j && (i+1)%n != j && (j+1)%n != i {
				if err := c.Cut(a, b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// bridge leaves one node that sees all, and the others see only it.
func bridge(c *sim.Cluster, s Step) error {
	for _, a := range others(c, s.Who) {
		for _, b := range others(c, s.Who) {
			if a != b {
				if err := c.Cut(a, b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func slowDisk(c *sim.Cluster, s Step) error {
	d, err := c.Disk(s.Who)
	if err == nil {
		d.Slow(s.Amount)
	}
	return err
}

func failDisk(c *sim.Cluster, s Step) error { return failWrite(c, s.Who, errNoSpace) }

// failWrite lets the next write of a node fail.
func failWrite(c *sim.Cluster, name string, err error) error {
	d, unknown := c.Disk(name)
	if unknown == nil {
		d.Fail(err, 1)
	}
	return unknown
}

func transfer(c *sim.Cluster, s Step) error {
	n := c.Node(s.Who)
	if n == nil || n.ID() == s.Other {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	operator := n.Client()
	defer func() { _ = operator.Close() }() // it has no session
	_, err := operator.TransferLeadership(ctx, s.Other)
	return err
}

package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Partition cuts the network into groups of nodes and clients, by name: those in different
// groups cannot reach each other. Those in no group reach all.
func (c *Cluster) Partition(groups ...[]string) error {
	for _, g := range groups {
		for _, name := range g {
			if err := c.Known(name); err != nil {
				return fmt.Errorf("partition: %w", err)
			}
		}
	}
	for i, g := range groups {
		for j, h := range groups {
			if i == j {
				continue
			}
			for _, a := range g {
				for _, b := range h {
					c.net.Cut(a, b)
				}
			}
		}
	}
	var texts []string
	for _, g := range groups {
		texts = append(texts, strings.Join(g, " "))
	}
	c.recorder.Fault("partition "+strings.Join(texts, " | "), c.Now(), 0)
	return nil
}

// Cut lets nothing go from one to another; the way back stays open.
func (c *Cluster) Cut(from, to string) error {
	if err := errors.Join(c.Known(from), c.Known(to)); err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	c.net.Cut(from, to)
	c.recorder.Fault("cut "+from+" → "+to, c.Now(), 0)
	return nil
}

// Isolate cuts one node or client off from all others.
func (c *Cluster) Isolate(name string) error {
	if err := c.Known(name); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	c.setApart(name, isolated, true)
	c.recorder.Fault("isolate "+name, c.Now(), 0)
	return nil
}

// Rejoin ends [Cluster.Isolate] of one and leaves the other faults as they are.
func (c *Cluster) Rejoin(name string) error {
	if err := c.Known(name); err != nil {
		return fmt.Errorf("rejoin: %w", err)
	}
	c.setApart(name, isolated, false)
	c.recorder.Fault("rejoin "+name, c.Now(), 0)
	return nil
}

// apart is the reasons why a node or client is cut off from all others: the end of one does
// not end another.
type apart uint8

const (
	isolated apart = 1 << iota
	paused
	expiring
)

func (c *Cluster) setApart(name string, why apart, on bool) {
	c.cutting.Lock()
	defer c.cutting.Unlock()
	if on {
		c.apart[name] |= why
		c.net.Isolate(name)
		return
	}
	if c.apart[name] &^= why; c.apart[name] == 0 {
		c.net.Rejoin(name)
	}
}

// Slow adds to the latency between two nodes or clients, both ways; zero ends it.
func (c *Cluster) Slow(a, b string, extra time.Duration) error {
	if err := errors.Join(c.Known(a), c.Known(b)); err != nil {
		return fmt.Errorf("slow: %w", err)
	}
	c.net.Slow(a, b, extra)
	c.net.Slow(b, a, extra)
	c.recorder.Fault(fmt.Sprintf("slow %s ↔ %s %v", a, b, extra), c.Now(), 0)
	return nil
}

// Reset ends all connections between two.
func (c *Cluster) Reset(a, b string) error {
	if err := errors.Join(c.Known(a), c.Known(b)); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	c.net.Reset(a, b)
	c.recorder.Fault("reset "+a+" ↔ "+b, c.Now(), 0)
	return nil
}

// Heal ends all faults of the network; what is paused stays cut off until [Cluster.Resume].
func (c *Cluster) Heal() {
	c.cutting.Lock()
	c.net.HealAll()
	for name, why := range c.apart {
		if c.apart[name] = why &^ isolated; c.apart[name] != 0 {
			c.net.Isolate(name)
		}
	}
	c.cutting.Unlock()
	c.recorder.Fault("heal", c.Now(), 0)
}

// Known is an error for a name that is neither a node's nor a client's.
func (c *Cluster) Known(name string) error {
	if c.isNode(name) || c.findProcess(name) != nil {
		return nil
	}
	return c.nobody(name)
}

func (c *Cluster) nobody(name string) error {
	return fmt.Errorf("%q is neither a node (%s) nor a client (%s)", name, list(c.Nodes()), list(c.Clients()))
}

func list(names []string) string {
	if len(names) == 0 {
		return "there is none"
	}
	return strings.Join(names, ", ")
}

func (c *Cluster) pauseOf(name string) (*pause, error) {
	if p := c.findProcess(name); p != nil {
		return &p.pause, nil
	}
	m, err := c.member(name)
	if err != nil {
		return nil, c.nobody(name)
	}
	return &m.pause, nil
}

// Pause stops a node or client as SIGSTOP does, as far as that can be simulated: it receives
// and sends nothing, and stops at a [Cluster.PausePoint]; a leader stops between the stamp
// of an entry and its proposal. Its timers go on.
func (c *Cluster) Pause(name string) error {
	p, err := c.pauseOf(name)
	if err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	if p.begin() {
		c.setApart(name, paused, true)
		c.recorder.Fault("pause "+name, c.Now(), 0)
	}
	return nil
}

// Resume ends a pause. What was sent to it meanwhile arrives.
func (c *Cluster) Resume(name string) error {
	p, err := c.pauseOf(name)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if c.endPause(name, p) {
		c.recorder.Fault("resume "+name, c.Now(), 0)
	}
	return nil
}

// endPause ends a pause, and reports whether there was one.
func (c *Cluster) endPause(name string, p *pause) bool {
	c.setApart(name, paused, false)
	return p.end()
}

// PausePoint is where the program of a client may be caught by a pause: it
// returns at once unless name is paused, and then when the pause ends or ctx does.
func (c *Cluster) PausePoint(ctx context.Context, name string) {
	if p, err := c.pauseOf(name); err == nil {
		p.wait(ctx)
	}
}

// SkewClock lets the monotonic clock of a node or client run at rate times real
// time. Locknode allows 0.995 to 1.005.
func (c *Cluster) SkewClock(name string, rate float64) error {
	if !(rate > 0 && rate < 100) {
		return fmt.Errorf("skew clock of %q: rate: is %v, must be more than 0 and less than 100", name, rate)
	}
	if p := c.findProcess(name); p != nil {
		p.clock.skew(rate)
	} else if m, err := c.member(name); err == nil {
		m.clock.skew(rate)
	} else {
		return fmt.Errorf("skew clock: %w", c.nobody(name))
	}
	c.recorder.Fault(fmt.Sprintf("clock of %s runs at %v", name, rate), c.Now(), 0)
	return nil
}

// JumpWallClock moves a node's wall clock.
func (c *Cluster) JumpWallClock(name string, by time.Duration) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("jump wall clock: %w", err)
	}
	m.wall.Add(int64(by))
	c.recorder.Fault(fmt.Sprintf("wall clock of %s jumps by %v", name, by), c.Now(), 0)
	return nil
}

// Expire cuts a client off until the cluster has ended its sessions by time, and
// then lets it back. It returns at once if the client has none.
func (c *Cluster) Expire(ctx context.Context, name string) error {
	p := c.findProcess(name)
	if p == nil {
		return fmt.Errorf("expire: %w", c.noClient(name))
	}
	begin := c.Now()
	c.setApart(name, expiring, true)
	defer func() {
		c.setApart(name, expiring, false)
		c.recorder.Fault("expire "+name, begin, c.Now())
	}()
	return c.eventually(ctx, fmt.Sprintf("the sessions of client %q have ended", name), func() bool { return !c.hasSession(p) })
}

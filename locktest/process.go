package locktest

import (
	"context"
	"fmt"
	"time"
)

// Kill ends a node as kill -9 does. What it had acknowledged is on its disk, also
// with [Cluster.LyingDisk]: the machine goes on. Peers see their connections reset. Its
// goroutines end a little later, and use no network and no disk any more.
func (c *Cluster) Kill(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.Kill(name))
}

// KillLeader waits for a leader as [Cluster.Leader] does, kills it, and returns its name.
func (c *Cluster) KillLeader() string {
	c.t.Helper()
	name := c.Leader()
	c.Kill(name)
	return name
}

// LoseUnsynced ends a node as a loss of power does. Peers receive nothing any more,
// not even a reset of their connections. With [Cluster.LyingDisk] the writes that were not
// durable are lost, and otherwise none.
func (c *Cluster) LoseUnsynced(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.LoseUnsynced(name))
}

// Stop ends a node in order, as SIGTERM does: it hands leadership over first. It
// remains a member. Stop waits until it has ended.
func (c *Cluster) Stop(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.Stop(name))
}

// Restart starts a node on the disk that it had; one that runs is killed first.
// It returns before the node is ready, for which a majority may be needed: see
// [Cluster.WaitReady]. The faults of its disk stay.
func (c *Cluster) Restart(name string) {
	c.t.Helper()
	c.checkNode(name)
	if c.sim.Node(name) != nil {
		c.fatal(c.sim.Kill(name))
	}
	c.fatal(c.sim.Start(name))
}

// KillClient ends a client as kill -9 ends a program: its locks are held until its session
// expires. The goroutines of the program under test go on, with errors from the
// client. [Cluster.Client] makes another client of that name.
func (c *Cluster) KillClient(name string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fatal(c.sim.KillClient(name))
	delete(c.clients, name)
}

// Expire cuts a client off until the cluster has ended its session by time, and
// then reconnects it: its grants were lost before, by the client's own clock.
// It returns at once if the client has no session, which it has from its first
// lock on. With the session's TTL of 10 s it takes about that long; it fails the
// test after an hour, or after a minute without a leader.
func (c *Cluster) Expire(name string) {
	c.t.Helper()
	c.Leader() // without one the cluster's time stands still
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	c.fatal(c.sim.Expire(ctx, name))
}

// Pause stops a node or client as SIGSTOP does, as far as that is possible in Go: it
// receives and sends nothing, and its goroutines stop at a [Cluster.PausePoint]. A node that
// leads also stops between the stamp of an entry and its hand-over to Raft, which is the
// worst moment.
//
// Its other goroutines and its timers go on. So a client
// that is paused notices in time that its locks are lost, while a real one
// notices it when it runs again; with a PausePoint between the last check of the lock
// and the write that it protects, that makes no difference.
//
// It stays paused until [Cluster.Resume].
func (c *Cluster) Pause(name string) {
	c.t.Helper()
	c.fatal(c.sim.Pause(name))
}

// Resume ends a pause. Data that was sent to the node or client meanwhile arrives.
func (c *Cluster) Resume(name string) {
	c.t.Helper()
	c.fatal(c.sim.Resume(name))
}

// PausePoint is where a [Cluster.Pause] of the client or node with that name stops the
// caller: it waits until the pause is over or the cluster is closed, and returns at once if
// there is none. Let the program under test call it, by a function that does
// nothing in production, where a pause does the most harm: after its last
// check of the lock, before the write.
func (c *Cluster) PausePoint(name string) {
	c.t.Helper()
	if err := c.sim.Known(name); err != nil {
		c.t.Errorf("locktest: pause point: %v", err)
		return
	}
	c.sim.PausePoint(context.Background(), name)
}

// PauseFor pauses a client or node for d and returns when it is resumed: a program that calls
// it is paused right there. It returns early after a [Cluster.Resume], or if the cluster is
// closed.
func (c *Cluster) PauseFor(name string, d time.Duration) {
	c.t.Helper()
	if err := c.sim.Pause(name); err != nil {
		c.t.Errorf("locktest: %v", err)
		return
	}
	over := time.AfterFunc(d, func() { _ = c.sim.Resume(name) })
	defer over.Stop()
	c.sim.PausePoint(context.Background(), name)
}

// SkewClock makes the monotonic clock of a node or client run at rate times real
// time, from now on; rate must be more than 0 and less than 100. Locknode keeps its promises
// for rates from 0.995 to 1.005 only. Timers are not skewed: only readings of the clock are.
func (c *Cluster) SkewClock(name string, rate float64) {
	c.t.Helper()
	c.fatal(c.sim.SkewClock(name, rate))
}

// JumpWallClock moves the wall clock of a node by an amount that is not zero. No promise
// depends on it.
func (c *Cluster) JumpWallClock(name string, by time.Duration) {
	c.t.Helper()
	c.checkNode(name)
	if by == 0 {
		c.fatal(fmt.Errorf("jump wall clock of %q: amount: is 0, must not be", name))
	}
	c.fatal(c.sim.JumpWallClock(name, by))
}

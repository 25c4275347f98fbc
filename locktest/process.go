package locktest

import (
	"context"
	"fmt"
	"time"
)

// Kill ends a node as kill -9 does. What it had acknowledged is on its disk, also
// on one that lies: the machine goes on. Peers see their connections reset. Its
// goroutines end a little later, and reach no network and no disk any more.
func (c *Cluster) Kill(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.Kill(name))
}

// KillLeader kills the node that leads, for which it waits, and returns its name.
func (c *Cluster) KillLeader() string {
	c.t.Helper()
	name := c.Leader()
	c.Kill(name)
	return name
}

// LoseUnsynced ends a node as a loss of power does. Peers hear nothing any more,
// not even that their connections are gone. What its disk had not really
// written is lost: nothing, unless it lies ([Cluster.LyingDisk]).
func (c *Cluster) LoseUnsynced(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.LoseUnsynced(name))
}

// Stop ends a node in order, as SIGTERM does: it hands leadership over first. It
// remains a member. Stop returns when it has ended.
func (c *Cluster) Stop(name string) {
	c.t.Helper()
	c.checkNode(name)
	c.fatal(c.sim.Stop(name))
}

// Restart starts a node on the disk that it had; one that runs is killed first.
// It returns before the node is ready, which may take others: see
// [Cluster.WaitReady]. A disk that fails, lies or is slow still does.
func (c *Cluster) Restart(name string) {
	c.t.Helper()
	c.checkNode(name)
	if c.sim.Node(name) != nil {
		c.fatal(c.sim.Kill(name))
	}
	c.fatal(c.sim.Start(name))
}

// KillClient ends a client as kill -9 ends a program: its locks are left to run
// out. The goroutines of the program under test go on, with errors from the
// client. [Cluster.Client] makes another client of that name.
func (c *Cluster) KillClient(name string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fatal(c.sim.KillClient(name))
	delete(c.clients, name)
}

// Expire cuts a client off until the cluster has ended its session by time, and
// then lets it back: the client was told of its losses before, by its own clock.
// It returns at once if the client has no session, which it has from its first
// lock on. With the session's TTL of 10 s it takes about that long; it fails the
// test after an hour, or if the cluster has no leader.
func (c *Cluster) Expire(name string) {
	c.t.Helper()
	c.Leader() // time stands still without
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	c.fatal(c.sim.Expire(ctx, name))
}

// Pause stops a node or client as SIGSTOP does, as far as Go lets one: from the
// outside it is stopped, for it hears and says nothing; from the inside it stops
// where it comes to a [Cluster.PausePoint]. A node that leads also stops between
// the stamp of an entry and its hand-in to Raft, which is the worst moment.
//
// What is not modelled: its other goroutines and its timers go on. So a client
// that is paused notices in time that its locks are lost, while a real one
// notices when it wakes up; put a PausePoint between the last look at the lock
// and the deed that it protects, and there is no difference that counts.
//
// Whoever is paused stays so until [Cluster.Resume].
func (c *Cluster) Pause(name string) {
	c.t.Helper()
	c.fatal(c.sim.Pause(name))
}

// Resume ends a pause. What was sent to it meanwhile arrives.
func (c *Cluster) Resume(name string) {
	c.t.Helper()
	c.fatal(c.sim.Resume(name))
}

// PausePoint is where a program can be caught by a [Cluster.Pause] of the client
// or node with that name: it returns at once if there is none, and otherwise
// when it is over. Let the program under test call it, by a function that does
// nothing in production, where a pause would be at its worst: after its last
// look at the lock, before the write.
func (c *Cluster) PausePoint(name string) {
	c.t.Helper()
	if err := c.sim.Known(name); err != nil {
		c.t.Errorf("locktest: pause point: %v", err)
		return
	}
	c.sim.PausePoint(context.Background(), name)
}

// PauseFor pauses a client or node and returns when d is over and it is resumed:
// a program that calls it is paused right there. It returns early if somebody
// else resumes it, or the cluster is closed.
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

// SkewClock lets the monotonic clock of a node or client run at rate times real
// time, from now on. Locknode promises everything for rates from 0.995 to 1.005,
// and nothing beyond. Timers stay real: only what is read off a clock is skewed.
func (c *Cluster) SkewClock(name string, rate float64) {
	c.t.Helper()
	c.fatal(c.sim.SkewClock(name, rate))
}

// JumpWallClock moves the wall clock of a node. No promise depends on it.
func (c *Cluster) JumpWallClock(name string, by time.Duration) {
	c.t.Helper()
	c.checkNode(name)
	if by == 0 {
		c.fatal(fmt.Errorf("jump wall clock of %q: by nothing", name))
	}
	c.fatal(c.sim.JumpWallClock(name, by))
}

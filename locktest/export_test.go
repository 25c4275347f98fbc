package locktest

import (
	"testing"
	"time"

	"github.com/locknode/locknode/internal/history"
	"github.com/locknode/locknode/internal/simdisk"
)

// History is what was recorded.
func (c *Cluster) History() *history.History { return c.sim.Recorder().History() }

// With returns the same cluster for another test.
func (c *Cluster) With(t testing.TB) *Cluster {
	return &Cluster{t: t, sim: c.sim, seed: c.seed, clients: c.clients}
}

// Remove has a node remove itself; Reseed lets it come back.
func (c *Cluster) Remove(name string) {
	c.t.Helper()
	c.fatal(c.sim.Remove(name))
}

// Reseed lets a node that was removed join again, with nothing.
func (c *Cluster) Reseed(name string) {
	c.t.Helper()
	ctx, cancel := c.wait()
	defer cancel()
	c.fatal(c.sim.Reseed(ctx, name))
}

// SlowApply lets a node apply entries later.
func (c *Cluster) SlowApply(name string, by time.Duration) {
	c.t.Helper()
	c.fatal(c.sim.SlowApply(name, by))
}

// Break fails the next write of a node, and nobody is told.
func (c *Cluster) Break(name string, err error) {
	c.disk(name, "a write fails on the disk", func(d *simdisk.Disk) { d.Fail(err, 1) })
}

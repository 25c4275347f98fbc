package locktest

import (
	"testing"

	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/simdisk"
)

// History returns what was recorded.
func (c *Cluster) History() *history.History { return c.sim.Recorder().History() }

// With returns the same cluster for another test.
func (c *Cluster) With(t testing.TB) *Cluster {
	return &Cluster{t: t, sim: c.sim, seed: c.seed, clients: c.clients}
}

// Break fails the next write of a node, without a record that explains it.
func (c *Cluster) Break(name string, err error) {
	c.disk(name, "a write fails on the disk", func(d *simdisk.Disk) { d.Fail(err, 1) })
}

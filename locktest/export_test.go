package locktest

import (
	"testing"

	"github.com/locknode/locknode/internal/history"
)

// History is what was recorded.
func (c *Cluster) History() *history.History { return c.sim.Recorder().History() }

// With returns the same cluster for another test.
func (c *Cluster) With(t testing.TB) *Cluster {
	return &Cluster{t: t, sim: c.sim, seed: c.seed, clients: c.clients}
}

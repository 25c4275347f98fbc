package locktest

import "time"

// Partition cuts the network into groups, by the names of nodes and clients: who
// is in different groups cannot talk. Who is in no group talks to all. What is
// under way waits, as it does with TCP, until [Cluster.Heal]; gossip's datagrams
// are lost. Partitions add up.
func (c *Cluster) Partition(groups ...[]string) {
	c.t.Helper()
	if len(groups) < 2 {
		c.t.Fatalf("locktest: partition into %d groups: at least two are needed", len(groups))
	}
	c.fatal(c.sim.Partition(groups...))
}

// Isolate cuts one node or client off from all others, both ways, until
// [Cluster.Heal].
func (c *Cluster) Isolate(name string) {
	c.t.Helper()
	c.fatal(c.sim.Isolate(name))
}

// Cut lets nothing go from one node or client to another; the way back stays
// open, but for the acknowledgements of TCP: who sends on it stops when the
// window is full. It ends with [Cluster.Heal].
func (c *Cluster) Cut(from, to string) {
	c.t.Helper()
	c.fatal(c.sim.Cut(from, to))
}

// Slow adds to the latency between two, both ways; zero ends it, as does
// [Cluster.Heal].
func (c *Cluster) Slow(a, b string, extra time.Duration) {
	c.t.Helper()
	c.fatal(c.sim.Slow(a, b, extra))
}

// Reset ends all connections between two, at both ends; new ones can be made at
// once.
func (c *Cluster) Reset(a, b string) {
	c.t.Helper()
	c.fatal(c.sim.Reset(a, b))
}

// Heal makes the network whole: it ends [Cluster.Partition], [Cluster.Isolate],
// [Cluster.Cut] and [Cluster.Slow]. Who is paused stays cut off until
// [Cluster.Resume], and who was killed stays dead. What was held up arrives
// within about a second, as TCP repeats it.
func (c *Cluster) Heal() { c.sim.Heal() }

// DropNextResponse loses the next answers to a client: the message is taken out
// of its hands, and its connection breaks. The cluster has done what was asked;
// the client does not know, and asks again. Keep-alives are answered, too, and
// can be what is hit.
func (c *Cluster) DropNextResponse(name string) {
	c.t.Helper()
	c.fatal(c.sim.DropNextResponse(name))
}

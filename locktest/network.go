package locktest

import "time"

// Partition cuts the network into groups, by the names of nodes and clients: those
// in different groups cannot communicate. Those in no group communicate with all. Data
// on connections waits, as with TCP, until [Cluster.Heal]; gossip's datagrams
// are lost. Partitions add up.
func (c *Cluster) Partition(groups ...[]string) {
	c.t.Helper()
	if len(groups) < 2 {
		c.t.Fatalf("locktest: partition: number of groups: is %d, must be at least two", len(groups))
	}
	c.fatal(c.sim.Partition(groups...))
}

// Isolate cuts one node or client off from all others, in both directions, until
// [Cluster.Heal].
func (c *Cluster) Isolate(name string) {
	c.t.Helper()
	c.fatal(c.sim.Isolate(name))
}

// Cut stops everything from one node or client to another. The other direction stays open,
// but the acknowledgements of TCP for it are stopped, so that a sender
// blocks when the flow-control window is full. It ends with [Cluster.Heal].
func (c *Cluster) Cut(from, to string) {
	c.t.Helper()
	c.fatal(c.sim.Cut(from, to))
}

// Slow adds to the latency between two nodes or clients, in both directions; zero ends it, as
// does [Cluster.Heal].
func (c *Cluster) Slow(a, b string, extra time.Duration) {
	c.t.Helper()
	c.fatal(c.sim.Slow(a, b, extra))
}

// Reset ends all connections between two nodes or clients, at both ends; new ones can be made
// at once.
func (c *Cluster) Reset(a, b string) {
	c.t.Helper()
	c.fatal(c.sim.Reset(a, b))
}

// Heal repairs the network: it ends [Cluster.Partition], [Cluster.Isolate],
// [Cluster.Cut] and [Cluster.Slow]. Paused nodes and clients stay cut off until
// [Cluster.Resume], and killed ones do not run again. Data that was stopped arrives
// within about a second, as TCP repeats it.
func (c *Cluster) Heal() { c.sim.Heal() }

// DropNextResponse loses the next message with answers to a client, and breaks its
// connection. The cluster has carried out the requests; the client does not know, and retries
// them. The message may also be that of a keep-alive.
func (c *Cluster) DropNextResponse(name string) {
	c.t.Helper()
	c.fatal(c.sim.DropNextResponse(name))
}

package simnet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// mustLocked returns the host of this name, and panics if there is none: a fault for a wrong
// name would otherwise be ignored.
func (n *Network) mustLocked(fault, name string) *machine {
	m := n.findLocked(name)
	if m == nil {
		var names []string
		for _, m := range n.hosts {
			names = append(names, m.name)
		}
		panic(fmt.Sprintf("simnet: %s: no host %q, there are: %s", fault, name, strings.Join(names, ", ")))
	}
	return m
}

// Cut stops everything that goes from one host to another, also what is under way: datagrams
// are lost, streams stall and go on after Mend. The way back is open, but its reader cannot
// acknowledge, so that its writer stops when the window is full. After Options.KeepAlive the connections end at both ends
// with syscall.ETIMEDOUT. Cut, like all faults, panics for a host that does not
// exist.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.askLocked(n.mustLocked("cut", from), n.mustLocked("cut", to), true)
}

// Mend ends a Cut. What was stalled arrives within about a second, later the
// longer the cut was, as TCP repeats it less and less often.
func (n *Network) Mend(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.askLocked(n.mustLocked("mend", from), n.mustLocked("mend", to), false)
}

func (n *Network) askLocked(from, to *machine, cut bool) {
	l := n.linkLocked(from, to)
	l.mu.Lock()
	l.asked = cut
	l.mu.Unlock()
	n.settleLocked(from, to)
}

// settleLocked cuts or mends a link as the faults say.
func (n *Network) settleLocked(from, to *machine) {
	l := n.linkLocked(from, to)
	l.mu.Lock()
	cut := l.asked || from != to && (from.isolated || to.isolated)
	l.mu.Unlock()
	if cut {
		n.cutLocked(l)
	} else {
		n.mendLocked(l)
	}
}

// Isolate cuts a host off from all others, both ways, also from those that are
// made later.
func (n *Network) Isolate(host string) { n.isolate("isolate", host, true) }

// Rejoin ends Isolate. Links that are cut for another reason stay so: by Cut, or
// because the other host is isolated.
func (n *Network) Rejoin(host string) { n.isolate("rejoin", host, false) }

func (n *Network) isolate(fault, host string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.mustLocked(fault, host)
	m.isolated = on
	for _, other := range n.hosts {
		if other != m {
			n.settleLocked(m, other)
			n.settleLocked(other, m)
		}
	}
}

// HealAll mends all links and ends Slow; hosts that are down stay down.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.hosts {
		m.isolated = false
	}
	for _, from := range n.hosts {
		for _, to := range n.hosts {
			l := n.linkLocked(from, to)
			l.mu.Lock()
			l.extra, l.asked = 0, false
			l.mu.Unlock()
			n.settleLocked(from, to)
		}
	}
}

// Slow adds to the latency from one host to another; zero ends it.
func (n *Network) Slow(from, to string, extra time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.linkLocked(n.mustLocked("slow", from), n.mustLocked("slow", to))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extra = max(extra, 0)
}

func (n *Network) cutLocked(l *link) {
	l.mu.Lock()
	was := l.cut
	if !was {
		l.cut, l.cutAt = true, time.Now()
	}
	l.mu.Unlock()
	if was {
		return
	}
	now := time.Now()
	n.eachLocked(l, func(c *conn) {
		c.in.stall(now)
		if c.reset.After(now) {
			c.reset, c.resetStalled = time.Time{}, true
		}
		c.listenLocked(now)
		c.peer.listenLocked(now)
	})
}

func (n *Network) mendLocked(l *link) {
	l.mu.Lock()
	was := l.cut
	l.cut = false
	l.mu.Unlock()
	if !was {
		return
	}
	now := time.Now()
	n.eachLocked(l, func(c *conn) {
		c.in.resume(now)
		switch {
		case c.in.closed:
			c.peer.bounceLocked()
		case c.resetStalled:
			c.resetLocked(now)
		}
		// Acknowledgements of what this end sends come over this link too.
		c.out.under -= c.out.unacked
		c.out.unacked = 0
		c.listenLocked(now)
		c.peer.listenLocked(now)
	})
}

// eachLocked calls f for every end that a link leads to, with its pair locked.
func (n *Network) eachLocked(l *link, f func(*conn)) {
	for _, p := range n.pairsLocked(func(p *pair) bool { return p.a.in.link == l || p.b.in.link == l }) {
		p.mu.Lock()
		for _, c := range []*conn{p.a, p.b} {
			if c.in.link == l {
				f(c)
			}
		}
		p.mu.Unlock()
	}
}

// Reset ends all connections between two hosts, at both ends and at once; what
// is under way is lost.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ma, mb := n.mustLocked("reset", a), n.mustLocked("reset", b)
	now := time.Now()
	for _, p := range n.pairsLocked(func(p *pair) bool {
		return p.a.host.m == ma && p.b.host.m == mb || p.a.host.m == mb && p.b.host.m == ma
	}) {
		p.mu.Lock()
		for _, c := range []*conn{p.a, p.b} {
			c.in.drop(now)
			c.reset, c.resetStalled = now, false
			c.reader.wake()
			c.writer.wake()
		}
		p.mu.Unlock()
		n.stats.Reset++
	}
}

// Kill is what kill -9 does to the only process of a host: its listeners are
// gone, dials are refused, and its connections are reset at the peers, behind
// what it had sent. It does nothing to a host that is down.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.endLifeLocked(n.mustLocked("kill", host), killed)
}

// PowerOff is a loss of power: peers receive nothing any more, until keep-alive ends their
// connections. It does nothing to a host that is down.
func (n *Network) PowerOff(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.endLifeLocked(n.mustLocked("power off", host), off)
}

// Revive gives a host that is down a new life and returns it; a host that is up
// is returned as it is. Connections of an earlier life that lost power are reset
// when their peers send something, keep-alive at the latest.
func (n *Network) Revive(host string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.mustLocked("revive", host)
	if m.state == up {
		return m.life
	}
	old := m.life
	n.liveLocked(m)
	now := time.Now()
	for _, p := range n.pairsLocked(func(p *pair) bool { return p.a.host == old || p.b.host == old }) {
		p.mu.Lock()
		for _, c := range []*conn{p.a, p.b} {
			if c.host == old && c.in.silent {
				c.in.silent, c.in.closed = false, true
				c.in.stall(time.Time{}) // sent again, as it was never acknowledged
				if !c.in.link.isCut() {
					c.in.resume(now)
				}
				c.peer.bounceLocked()
				if c.peer.reset.IsZero() && !c.peer.resetStalled {
					c.peer.probeLocked(now.Add(c.in.link.probe()))
				}
				c.peer.listenLocked(now)
			}
		}
		p.mu.Unlock()
	}
	return m.life
}

// ExchangeAddresses gives two hosts that are down each other's address for their next
// lives. It panics if one is up.
func (n *Network) ExchangeAddresses(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ma, mb := n.mustLocked("exchange addresses", a), n.mustLocked("exchange addresses", b)
	for _, m := range []*machine{ma, mb} {
		if m.state == up && !n.closed {
			panic(fmt.Sprintf("simnet: exchange addresses of %q and %q: %q is up", a, b, m.name))
		}
	}
	ma.ip, mb.ip = mb.ip, ma.ip
}

func (n *Network) endLifeLocked(m *machine, s state) {
	if m.state != up {
		return
	}
	m.state = s
	h := m.life
	close(h.down)
	for _, p := range n.pairsLocked(func(p *pair) bool { return p.a.host == h || p.b.host == h }) {
		for _, c := range []*conn{p.a, p.b} {
			if c.host == h {
				c.dieLocked(s == killed)
			}
		}
	}
	for _, port := range slices.Sorted(maps.Keys(h.packets)) {
		h.packets[port].closeLocked()
	}
	for _, port := range slices.Sorted(maps.Keys(h.listeners)) {
		h.listeners[port].closeLocked()
	}
}

// dieLocked ends this end without its owner: with a reset for the peer, or
// silently. The caller holds Network.mu.
func (c *conn) dieLocked(tell bool) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.closed {
		return
	}
	now := time.Now()
	c.closeLocked()
	if tell {
		c.in.closed = true
		if c.peer.reset.IsZero() {
			c.peer.resetLocked(now)
		}
		c.peer.bounceLocked()
	} else {
		c.in.silent = true
		c.out.drop(now)
		c.peer.listenLocked(now)
	}
	c.p.net.stats.Reset++
	if c.peer.closed {
		delete(c.p.net.pairs, c.p.id)
	}
}

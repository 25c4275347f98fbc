package simnet

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultWindow    = 1 << 20
	defaultKeepAlive = 150 * time.Second // Go's: 15 s, then 9 probes of 15 s
	maxHosts         = 254
)

// Options shape a Network; the zero value is a perfect network.
type Options struct {
	// Latency is how long a byte or datagram is under way between two hosts.
	Latency time.Duration
	// Jitter is the most that is added to it at random.
	Jitter time.Duration
	// Window is how many bytes of a stream may be under way in one direction;
	// zero is 1 MiB.
	Window int
	// KeepAlive is how long a connection stays open while nothing arrives from its peer
	// because of a cut or a loss of power; zero is 150 s.
	KeepAlive time.Duration
	// Loss is how likely a datagram is lost, from 0 to 1. A write to a stream
	// is late by a retransmission instead.
	Loss float64
}

func (o *Options) validate() error {
	var errs []error
	if o.Latency < 0 {
		errs = append(errs, fmt.Errorf("latency: is %v, must not be negative", o.Latency))
	}
	if o.Jitter < 0 {
		errs = append(errs, fmt.Errorf("jitter: is %v, must not be negative", o.Jitter))
	}
	if o.Window < 0 {
		errs = append(errs, fmt.Errorf("window: is %d, must not be negative", o.Window))
	}
	if o.KeepAlive < 0 {
		errs = append(errs, fmt.Errorf("keep-alive: is %v, must not be negative", o.KeepAlive))
	}
	if !(o.Loss >= 0 && o.Loss <= 1) {
		errs = append(errs, fmt.Errorf("loss: is %v, must be from 0 to 1", o.Loss))
	}
	return errors.Join(errs...)
}

// Network is a set of hosts and the links between them. It is safe for
// concurrent use.
type Network struct {
	o    Options
	seed uint64

	mu     sync.Mutex          // guards what follows
	hosts  []*machine          // in order of creation
	links  map[[2]string]*link // from, to
	pairs  map[uint64]*pair    // open connections
	nextID uint64              // of a pair
	stats  Stats               // what has happened
	closed bool
}

// Stats counts what a network has done.
type Stats struct {
	Dialed  int // connections that came about
	Refused int // dials that were answered with a refusal
	Open    int // connections of which at least one end is open
	Reset   int // connections that a fault ended
	Packets int // datagrams that were handed over
	Dropped int // datagrams that were not
}

// New returns a network without hosts. All its randomness comes from seed. It
// panics when o is not valid.
func New(seed uint64, o Options) *Network {
	if err := o.validate(); err != nil {
		panic(fmt.Sprintf("simnet: options: %v", err))
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = defaultKeepAlive
	}
	return &Network{o: o, seed: seed, links: map[[2]string]*link{}, pairs: map[uint64]*pair{}}
}

// Host returns the host of this name in its present life, made if there is none.
// Hosts get the addresses 10.1.0.1 and on in the order of their creation; see
// [Network.ExchangeAddresses]. It panics for the 255th.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machineLocked(name).life
}

func (n *Network) machineLocked(name string) *machine {
	if m := n.findLocked(name); m != nil {
		return m
	}
	if name == "" || strings.ContainsAny(name, ":/ ") || net.ParseIP(name) != nil {
		panic(fmt.Sprintf("simnet: host name %q: must be a name without colon, slash or space", name))
	}
	if len(n.hosts) == maxHosts {
		panic(fmt.Sprintf("simnet: host %q: there are %d hosts already", name, maxHosts))
	}
	m := &machine{name: name, ip: net.IPv4(10, 1, 0, byte(len(n.hosts)+1)).To4(), nextPort: firstPort}
	n.hosts = append(n.hosts, m)
	n.liveLocked(m)
	return m
}

// liveLocked begins a life of m.
func (n *Network) liveLocked(m *machine) {
	m.state = up
	m.life = &Host{net: n, m: m, ip: m.ip, down: make(chan struct{}), listeners: map[int]*listener{}, packets: map[int]*Packets{}}
	if n.closed {
		m.state = off
		close(m.life.down)
	}
}

func (n *Network) findLocked(name string) *machine {
	for _, m := range n.hosts {
		if m.name == name {
			return m
		}
	}
	return nil
}

func (n *Network) byIPLocked(ip net.IP) *machine {
	for _, m := range n.hosts {
		if m.ip.Equal(ip) {
			return m
		}
	}
	return nil
}

// Lookup returns the address of a host, or a *net.DNSError.
func (n *Network) Lookup(name string) (net.IP, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.findLocked(name)
	if m == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return slices.Clone(m.ip), nil
}

// Stats returns what has happened so far.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stats
	s.Open = len(n.pairs)
	return s
}

// Close ends every connection, listener and dial; nothing works afterwards. It
// may be called twice.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, m := range n.hosts {
		n.endLifeLocked(m, off)
	}
}

// pairsLocked returns the connections that f picks, in the order in which they
// came about.
func (n *Network) pairsLocked(f func(*pair) bool) []*pair {
	var some []*pair
	for _, p := range n.pairs {
		if f(p) {
			some = append(some, p)
		}
	}
	slices.SortFunc(some, func(a, b *pair) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return some
}

// forget drops a connection of which both ends are closed.
func (n *Network) forget(p *pair) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pairs, p.id)
}

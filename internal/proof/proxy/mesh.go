package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
)

// Mesh is a network between processes. Each of them has proxies at another host, with the same
// ports.
type Mesh struct {
	*Links
	host string
	who  func(net.Conn) string
	wg   sync.WaitGroup // the relays

	mu     sync.Mutex        // guards what follows
	fronts map[string]*front // by the name of the process
}

// front is the proxies and relays of one process.
type front struct {
	proxies []*Proxy
	relays  []net.PacketConn
	sender  string // the UDP address from which the process sends
}

// NewMesh returns an empty mesh at a loopback address, such as 127.0.0.2. pids
// says which processes may dial, by name; a name may have several.
func NewMesh(host string, pids func() map[int]string) *Mesh {
	return &Mesh{Links: NewLinks(), host: host, who: dialler(pids), fronts: map[string]*front{}}
}

// Elsewhere is the address at which others are to reach an address.
func (m *Mesh) Elsewhere(address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", address, err)
	}
	return net.JoinHostPort(m.host, port), nil
}

// Front puts proxies in front of the TCP addresses of a process, and a relay in front of the
// UDP address that it sends from and receives at. Earlier ones of a process of that name stay.
func (m *Mesh) Front(name string, tcp []string, udp string) error {
	for _, address := range tcp {
		at, err := m.Elsewhere(address)
		if err != nil {
			return err
		}
		p, err := Listen(at, address, name, m.Links, m.who)
		if err != nil {
			return err
		}
		m.mu.Lock()
		f := m.frontLocked(name)
		f.proxies = append(f.proxies, p)
		m.mu.Unlock()
	}
	return m.relay(name, udp)
}

func (m *Mesh) frontLocked(name string) *front {
	if m.fronts[name] == nil {
		m.fronts[name] = &front{}
	}
	return m.fronts[name]
}

// Reset resets all connections between two of those who are meant.
func (m *Mesh) Reset(meant func(from, to string) bool) {
	m.mu.Lock()
	var proxies []*Proxy
	for _, f := range m.fronts {
		proxies = append(proxies, f.proxies...)
	}
	m.mu.Unlock()
	for _, p := range proxies {
		p.Reset(func(who string) bool { return meant(who, p.name) || meant(p.name, who) })
	}
}

// Withdraw ends the connections to a process, and its proxies and relays.
func (m *Mesh) Withdraw(name string) error {
	m.mu.Lock()
	f := m.fronts[name]
	delete(m.fronts, name)
	m.mu.Unlock() // relays that end may need it
	if f == nil {
		return nil
	}
	var errs []error
	for _, r := range f.relays {
		errs = append(errs, r.Close())
	}
	for _, p := range f.proxies {
		p.Close()
	}
	return errors.Join(errs...)
}

// Close ends all connections.
func (m *Mesh) Close() error {
	m.mu.Lock()
	names := slices.Collect(maps.Keys(m.fronts))
	m.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, m.Withdraw(name))
	}
	m.wg.Wait()
	return errors.Join(errs...)
}

// relay passes packets on to address, from senders that have an address of their own in the
// mesh. A packet cannot stall: one that is cut is lost.
func (m *Mesh) relay(name, address string) error {
	target, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return fmt.Errorf("relay packets to %s: %w", name, err)
	}
	at, err := m.Elsewhere(address)
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		return fmt.Errorf("relay packets to %s: %w", name, err)
	}
	m.mu.Lock()
	f := m.frontLocked(name)
	f.sender, f.relays = target.String(), append(f.relays, conn)
	m.mu.Unlock()
	m.wg.Go(func() {
		packet := make([]byte, 64<<10)
		for {
			size, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			if rule, _ := m.rule(m.sender(from.String()), name); !rule.Cut && !rule.Lose {
				_, _ = conn.WriteTo(packet[:size], target) // packets may be lost
			}
		}
	})
	return nil
}

// sender is who sends from a UDP address, "" if that is not known.
func (m *Mesh) sender(address string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.fronts {
		if f.sender == address {
			return name
		}
	}
	return ""
}

package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// Mesh is a network between processes. Each of them is reached at another host,
// with the same ports, where proxies stand.
type Mesh struct {
	*Links
	host string
	who  func(net.Conn) string

	mu      sync.Mutex
	proxies []*Proxy
	relays  []net.PacketConn
	senders map[string]string // UDP address → who sends from there
	wg      sync.WaitGroup    // the relays
}

// NewMesh returns an empty mesh at a loopback address, such as 127.0.0.2. pids
// says which processes may dial, by name; a name may have several.
func NewMesh(host string, pids func() map[int]string) *Mesh {
	return &Mesh{Links: NewLinks(), host: host, who: dialler(pids), senders: map[string]string{}}
}

// Elsewhere is the address at which others are to reach an address.
func (m *Mesh) Elsewhere(address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", address, err)
	}
	return net.JoinHostPort(m.host, port), nil
}

// Front puts proxies before the TCP addresses of a process, and a relay before
// the UDP address that it sends from and receives at.
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
		m.proxies = append(m.proxies, p)
		m.mu.Unlock()
	}
	return m.relay(name, udp)
}

// Reset resets all connections between two of those who are meant.
func (m *Mesh) Reset(meant func(from, to string) bool) {
	m.mu.Lock()
	proxies := m.proxies
	m.mu.Unlock()
	for _, p := range proxies {
		p.Reset(func(who string) bool { return meant(who, p.name) || meant(p.name, who) })
	}
}

// Close ends all connections.
func (m *Mesh) Close() error {
	m.mu.Lock()
	proxies, relays := m.proxies, m.relays
	m.proxies, m.relays = nil, nil
	m.mu.Unlock() // relays that end may need it
	var errs []error
	for _, r := range relays {
		errs = append(errs, r.Close())
	}
	for _, p := range proxies {
		p.Close()
	}
	m.wg.Wait()
	return errors.Join(errs...)
}

// relay passes packets on to address, from whoever has an address of its own in
// the mesh. A packet cannot stand still: one that is cut is lost.
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
	m.senders[address] = name
	m.relays = append(m.relays, conn)
	m.mu.Unlock()
	m.wg.Go(func() {
		packet := make([]byte, 64<<10)
		for {
			size, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			if rule, _ := m.rule(m.sender(from), name); !rule.Cut && !rule.Lose {
				_, _ = conn.WriteTo(packet[:size], target) // packets may be lost
			}
		}
	})
	return nil
}

func (m *Mesh) sender(from net.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.senders[from.String()]
}

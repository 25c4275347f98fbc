package server

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// limited is a listener that refuses connections over a limit by closing them
// at once, before a byte is read.
type limited struct {
	net.Listener
	name     string
	total    int
	perIP    int
	observer Observer
	log      *slog.Logger

	mu       sync.Mutex
	open     int
	byIP     map[string]int // open connections; no zero entries
	refusing bool           // said so already: one line for each time of plenty
}

func newLimited(l net.Listener, name string, cfg Config) *limited {
	return &limited{
		Listener: l, name: name, total: cfg.Limits.Connections, perIP: cfg.Limits.ConnectionsPerIP,
		observer: cfg.Observer, log: cfg.Logger, byIP: map[string]int{},
	}
}

// Accept waits for the next connection that is within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := ipOf(conn.RemoteAddr())
		if l.admit(ip) {
			l.observer.Connections(l.name, 1)
			return &limitedConn{Conn: conn, release: func() { l.release(ip) }}, nil
		}
		l.observer.Refused(l.name)
		_ = conn.Close()
	}
}

func (l *limited) admit(ip string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.byIP[ip] >= l.perIP {
		if !l.refusing {
			l.refusing = true
			l.log.Warn("refusing connections over the limit", "listener", l.name, "peer", ip,
				"open", l.open, "limit", l.total, "open_from_peer", l.byIP[ip], "limit_per_peer", l.perIP)
		}
		return false
	}
	l.open++
	l.byIP[ip]++
	return true
}

func (l *limited) release(ip string) {
	l.observer.Connections(l.name, -1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.byIP[ip]--; l.byIP[ip] == 0 {
		delete(l.byIP, ip)
	}
	if l.open < l.total*9/10 && l.byIP[ip] < l.perIP*9/10 {
		l.refusing = false
	}
}

// ipOf returns the address without its port. An IPv6 client owns a /64, so that
// is what counts.
func ipOf(addr net.Addr) string {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.String()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() && !ip.IsLoopback() {
		if prefix, err := ip.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}

// limitedConn gives its place back when it is closed. It is its own remote
// address, so that a handler can find the connection that it answers on.
type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close may be called more than once.
func (c *limitedConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// RemoteAddr is what peer.Peer carries.
func (c *limitedConn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c} }

type connAddr struct {
	net.Addr
	conn *limitedConn
}

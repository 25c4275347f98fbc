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

	mu          sync.Mutex
	conns       map[*limitedConn]struct{} // open
	byIP        map[string]int            // open connections; no zero entries
	waiting     int                       // connections on which acquires wait
	waitingByIP map[string]int            // the same; no zero entries
	refusing    bool                      // said so already: one line for each time of plenty
}

func newLimited(l net.Listener, name string, cfg Config) *limited {
	return &limited{
		Listener: l, name: name, total: cfg.Limits.Connections, perIP: cfg.Limits.ConnectionsPerIP,
		observer: cfg.Observer, log: cfg.Logger, byIP: map[string]int{}, conns: map[*limitedConn]struct{}{},
		waitingByIP: map[string]int{},
	}
}

// Accept waits for the next connection that is within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: conn, listener: l, ip: ipOf(conn.RemoteAddr())}
		if l.admit(c) {
			l.observer.Connections(l.name, 1)
			return c, nil
		}
		l.observer.Refused(l.name)
		_ = conn.Close()
	}
}

func (l *limited) admit(c *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.total || l.byIP[c.ip] >= l.perIP {
		if !l.refusing {
			l.refusing = true
			l.log.Warn("refusing connections over the limit", "listener", l.name, "peer", c.ip,
				"open", len(l.conns), "limit", l.total, "open_from_peer", l.byIP[c.ip], "limit_per_peer", l.perIP)
		}
		return false
	}
	l.conns[c] = struct{}{}
	l.byIP[c.ip]++
	return true
}

func (l *limited) release(c *limitedConn) {
	l.observer.Connections(l.name, -1)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if l.byIP[c.ip]--; l.byIP[c.ip] == 0 {
		delete(l.byIP, c.ip)
	}
	if len(l.conns) < l.total*9/10 && l.byIP[c.ip] < l.perIP*9/10 {
		l.refusing = false
	}
}

// sever closes every connection.
func (l *limited) sever() {
	l.mu.Lock()
	conns := make([]*limitedConn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
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
	listener *limited
	ip       string
	once     sync.Once
	waits    int // streams and calls with acquires that wait; guarded by listener.mu
	calls    int // those of them that are calls; guarded by listener.mu
}

// Close may be called more than once.
func (c *limitedConn) Close() error {
	c.once.Do(func() { c.listener.release(c) })
	return c.Conn.Close()
}

// RemoteAddr is what peer.Peer carries.
func (c *limitedConn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c} }

type connAddr struct {
	net.Addr
	conn *limitedConn
}

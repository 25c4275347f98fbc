package server

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/secure"
)

// limited is a listener that limits connections. Where a limit is reached, a new connection
// takes the place of the one that is of the least use (see useof.go), so that connections
// on which nothing is requested keep no client out. Where all are of use, the new
// connection is closed before a byte is read.
type limited struct {
	net.Listener
	name     string
	total    int
	perIP    int
	mayEnter func(net.Conn) error
	accepted uint64 // connections so far; only Accept uses it
	observer Observer
	log      *slog.Logger
	secure   *secure.Port // nil: plain text

	budgets
	streams atomic.Int64  // under way on all connections; gRPC only
	idle    time.Duration // a connection on which no valid request has come for so long is closed

	mu          sync.Mutex                // guards what follows
	conns       map[*limitedConn]struct{} // open
	all         order                     // those that may have to make room
	ofIP        map[string]*order         // the same by address; no empty entries
	byIP        map[string]int            // open connections; no zero entries
	waiting     int                       // connections on which acquires wait
	waitingByIP map[string]int            // the same; no zero entries
	refusing    bool                      // logged already: once for each time in which connections are refused
}

func newLimited(l net.Listener, name string, cfg Config) *limited {
	port := cfg.SecureHTTP
	if name == "grpc" {
		port = cfg.SecureGRPC
	}
	return &limited{
		secure:   port,
		Listener: l, name: name, total: cfg.Limits.Connections, perIP: cfg.Limits.ConnectionsPerIP, mayEnter: cfg.Admit,
		observer: cfg.Observer, log: cfg.Logger, byIP: map[string]int{}, conns: map[*limitedConn]struct{}{},
		waitingByIP: map[string]int{}, ofIP: map[string]*order{}, idle: cfg.Limits.UselessTime,
		budgets: newBudgets(name, cfg),
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
		if l.secure != nil {
			c.Conn = l.secure.Server(conn) // its bytes are followed as the client means them
		}
		l.accepted++
		c.turns = fair.Owner{Address: fair.AddressOf(c.ip), Connection: fair.AddressOf(l.name) + l.accepted}
		c.in, c.ops, c.out = l.in.account(c), l.ops.account(c), l.out.account(c)
		if l.name == "grpc" {
			c.frames = newFrames(c)
		}
		boundBuffers(conn)
		ok, displaced := l.admit(c)
		if displaced != nil {
			l.observer.Refused(l.name)
			_ = displaced.Close()
		}
		if ok {
			l.observer.Connections(l.name, 1)
			return c, nil
		}
		l.observer.Refused(l.name)
		_ = conn.Close()
	}
}

// admit accepts c unless a limit is reached. It returns the connection in whose place c is
// accepted, if any, which the caller closes.
func (l *limited) admit(c *limitedConn) (ok bool, displaced *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	why := l.mayEnter(c.raw())
	switch {
	case why != nil: // out of files: the closed connection gives one back for the next
		displaced = l.all.least(now)
	case l.byIP[c.ip] >= l.perIP:
		if displaced = l.ofIP[c.ip].least(now); displaced == nil {
			why = errors.New("max_connections_per_address is reached")
		}
	case len(l.conns) >= l.total:
		if displaced = l.all.least(now); displaced == nil {
			why = errors.New("max_connections is reached")
		}
	}
	if (why != nil || displaced != nil) && !l.refusing {
		l.refusing = true
		reason := why
		if reason == nil {
			reason = errors.New("all places are taken: connections on which nothing is requested make room for new ones")
		}
		l.log.Warn("refusing connections over the limit", "listener", l.name, "peer", c.ip,
			"open", len(l.conns), "limit", l.total, "open_from_peer", l.byIP[c.ip], "limit_per_peer", l.perIP, "err", reason)
	}
	if displaced != nil {
		l.forgetLocked(displaced)
	}
	if why != nil {
		return false, displaced
	}
	l.conns[c] = struct{}{}
	l.byIP[c.ip]++
	l.rankLocked(c, useless, now)
	c.early = time.AfterFunc(l.idle, c.closeUseless)
	return true, displaced
}

func (l *limited) release(c *limitedConn) {
	l.observer.Connections(l.name, -1)
	c.frames.close()
	l.in.close(c.in)
	l.ops.close(c.ops)
	l.out.close(c.out)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked(c)
	if len(l.conns) < l.total*9/10 && l.byIP[c.ip] < l.perIP*9/10 {
		l.refusing = false
	}
}

// forgetLocked removes c from the count, if it is still counted.
func (l *limited) forgetLocked(c *limitedConn) {
	if _, there := l.conns[c]; !there {
		return
	}
	delete(l.conns, c)
	l.rankLocked(c, working, time.Time{}) // removes it from the order
	c.early.Stop()
	if l.byIP[c.ip]--; l.byIP[c.ip] == 0 {
		delete(l.byIP, c.ip)
		delete(l.ofIP, c.ip)
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

// ipOf returns the address without its port, of IPv6 the /64, which one client usually has.
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

// limitedConn is a connection that gives its place back when it is closed. Its remote
// address contains it, so that a handler finds the connection of its request.
type limitedConn struct {
	net.Conn
	listener     *limited
	ip           string
	turns        fair.Owner // the owner in whose turns its operations are run
	once         sync.Once
	waits        int // streams and calls with acquires that wait; guarded by listener.mu
	calls        int // those of them that are calls; guarded by listener.mu
	use              // of what use the connection is; guarded by listener.mu
	in, ops, out *account
	frames       *frames      // gRPC only
	serving      atomic.Bool  // HTTP only: a request is being answered
	heads        atomic.Int64 // HTTP only: what is counted for the head of the next one
}

// Read counts what arrives.
func (c *limitedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case n <= 0:
	case c.frames != nil:
		c.frames.received(b[:n])
	case !c.serving.Load():
		cost := headCost * n
		c.heads.Add(int64(cost))
		c.in.force(cost)
	}
	return n, err
}

// headArrived stops counting what arrives: the head of an HTTP request is complete.
func (c *limitedConn) headArrived() {
	if c != nil {
		c.serving.Store(true)
		c.in.force(-int(c.heads.Swap(0)))
	}
}

// headAwaited starts counting what arrives: it is the head of the next request.
func (c *limitedConn) headAwaited() {
	if c != nil {
		c.serving.Store(false)
	}
}

// headCost is how many bytes net/http needs at most for each byte of the head of a request,
// if its lines are as short as possible.
const headCost = 32

// Write follows what is sent.
func (c *limitedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n > 0 && c.frames != nil {
		c.frames.sent(b[:n])
	}
	return n, err
}

// kernelBytes bounds what the system buffers for a connection in each direction, which
// otherwise grows to some megabytes while one end does not read.
const kernelBytes = 128 << 10

func boundBuffers(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(kernelBytes) // the system's own bound remains
		_ = tcp.SetWriteBuffer(kernelBytes)
	}
}

func (l *limited) addStreams(n int) {
	if n != 0 {
		l.streams.Add(int64(n))
	}
}

// Close closes the connection and gives its place back. It may be called more than once.
func (c *limitedConn) Close() error {
	c.once.Do(func() { c.listener.release(c) })
	return c.Conn.Close()
}

// RemoteAddr returns an address that contains the connection; peer.Peer carries it.
func (c *limitedConn) RemoteAddr() net.Addr { return connAddr{c.Conn.RemoteAddr(), c} }

type connAddr struct {
	net.Addr
	conn *limitedConn
}

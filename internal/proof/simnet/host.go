package simnet

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

const (
	firstPort = 32768 // of those that are picked
	lastPort  = 65535
	backlog   = 128
)

type state int

const (
	up     state = iota
	killed       // the process is gone, the machine answers for it
	off          // nobody answers
)

// machine is a host through all its lives. Network.mu guards it.
type machine struct {
	name     string
	ip       net.IP // of the present life, or of the next one
	state    state
	life     *Host
	isolated bool // links to hosts that are yet to come are cut
	nextPort int
}

// Host is one machine, from its start or revival until it is killed or powered
// off. It is safe for concurrent use.
type Host struct {
	net  *Network
	m    *machine
	ip   net.IP        // in this life
	down chan struct{} // closed when this life ends

	// Network.mu guards what follows.
	listeners map[int]*listener // port → listener
	packets   map[int]*Packets  // port → transport
}

// Name returns the name that the host was made with.
func (h *Host) Name() string { return h.m.name }

// IP returns the host's address.
func (h *Host) IP() net.IP { return slices.Clone(h.ip) }

func (h *Host) aliveLocked() bool { return h.m.life == h && h.m.state == up }

// portLocked picks a port that is not in use.
func (h *Host) portLocked() (int, error) {
	for range lastPort - firstPort + 1 {
		port := h.m.nextPort
		if h.m.nextPort++; h.m.nextPort > lastPort {
			h.m.nextPort = firstPort
		}
		if h.listeners[port] == nil && h.packets[port] == nil {
			return port, nil
		}
	}
	return 0, syscall.EADDRINUSE
}

// Listen listens on "ip:port". The host is the host's own address, its name, a
// loopback or unspecified address, or empty; port 0 picks one.
func (h *Host) Listen(addr string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: textAddr(addr), Err: err}
	}
	host, port, err := splitAddr(addr)
	if err != nil {
		return fail(err)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if !h.isLocked(host) {
		return fail(os.NewSyscallError("bind", syscall.EADDRNOTAVAIL))
	}
	l, err := h.listenLocked(port)
	if err != nil {
		return fail(err)
	}
	return l, nil
}

func (h *Host) listenLocked(port int) (*listener, error) {
	if !h.aliveLocked() {
		return nil, h.downError()
	}
	if port == 0 {
		var err error
		if port, err = h.portLocked(); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	if h.listeners[port] != nil {
		return nil, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	l := &listener{host: h, addr: &net.TCPAddr{IP: h.ip, Port: port}, backlog: make(chan net.Conn, backlog), done: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// isLocked reports whether host names this host.
func (h *Host) isLocked(host string) bool {
	if host == "" || host == "localhost" || host == h.m.name {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsUnspecified() || ip.IsLoopback() || ip.Equal(h.ip))
}

// resolveLocked finds the machine that host names.
func (h *Host) resolveLocked(host string) (*machine, error) {
	if h.isLocked(host) {
		return h.m, nil
	}
	if ip := net.ParseIP(host); ip != nil {
		if m := h.net.byIPLocked(ip); m != nil {
			return m, nil
		}
		return nil, os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	}
	if m := h.net.findLocked(host); m != nil {
		return m, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (h *Host) downError() error {
	return fmt.Errorf("host %q is down, or was revived since: take Network.Host again: %w", h.m.name, net.ErrClosed)
}

func splitAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > lastPort {
		return "", 0, &net.AddrError{Err: fmt.Sprintf("port %q: must be a number from 0 to %d", p, lastPort), Addr: addr}
	}
	return host, port, nil
}

// textAddr is an address as it was asked for.
type textAddr string

// Network is always "tcp".
func (textAddr) Network() string { return "tcp" }

func (a textAddr) String() string { return string(a) }

// listener queues connections until they are accepted.
type listener struct {
	host    *Host
	addr    *net.TCPAddr
	backlog chan net.Conn // sent to under Network.mu
	done    chan struct{}
	once    sync.Once
}

// Accept returns the next connection, or net.ErrClosed in a *net.OpError.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
	default:
		select {
		case c := <-l.backlog:
			return c, nil
		case <-l.done:
		}
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
}

// Close resets the connections that nobody has accepted.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	select {
	case <-l.done:
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	default:
	}
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	l.once.Do(func() {
		close(l.done)
		delete(l.host.listeners, l.addr.Port)
		for {
			select {
			case c := <-l.backlog:
				c.(*conn).dieLocked(true)
			default:
				return
			}
		}
	})
}

// Addr returns the *net.TCPAddr that peers dial.
func (l *listener) Addr() net.Addr { return l.addr }

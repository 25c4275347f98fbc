package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	defaultHandshake    = 5 * time.Second
	defaultMaxConns     = 512
	defaultConnsPerHost = 128
	keepAlive           = 15 * time.Second
	warnEvery           = 10 * time.Second
)

// StreamOptions shape a Stream; the zero value works.
type StreamOptions struct {
	// Advertise is the address that peers dial; empty is the listener's own.
	Advertise string
	// Logger gets what happens; nil is silent.
	Logger *slog.Logger
	// Cluster says which cluster this node belongs to. Both ends say it; two that
	// belong to different ones refuse each other. Nil is none.
	Cluster func() ClusterIdentity
	// HandshakeTimeout bounds what comes before the first request; zero is 5 s.
	HandshakeTimeout time.Duration
	// MaxConns and MaxConnsPerHost bound accepted connections; zero is 512 and 128.
	MaxConns, MaxConnsPerHost int
	// SecureServer and SecureClient, if set, wrap a connection (TLS) before
	// anything is said on it. They run within HandshakeTimeout.
	SecureServer func(net.Conn) (net.Conn, error)
	SecureClient func(net.Conn, raft.ServerAddress) (net.Conn, error)
	// Dial replaces TCP's dialer, for tests and simulation; it must return when
	// ctx ends. Nil dials TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

func (o *StreamOptions) fill() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Cluster == nil {
		o.Cluster = func() ClusterIdentity { return ClusterIdentity{} }
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = defaultHandshake
	}
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns
	}
	if o.MaxConnsPerHost == 0 {
		o.MaxConnsPerHost = defaultConnsPerHost
	}
	if o.Dial == nil {
		d := net.Dialer{KeepAlive: keepAlive}
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
}

// Stream is raft's StreamLayer over TCP.
type Stream struct {
	listener net.Listener
	addr     net.Addr
	o        StreamOptions
	ready    chan net.Conn
	done     chan struct{}
	wg       sync.WaitGroup

	dialling context.Context // of all dials; ends with Close
	endDials context.CancelFunc

	mu       sync.Mutex // guards what follows
	conns    map[*admitted]struct{}
	perHost  map[string]int // host → accepted connections
	warned   time.Time
	unwarned int // warnings left out since
	closed   bool
}

// ListenTCP listens on addr ("host:port"; port 0 picks one).
func ListenTCP(addr string, o StreamOptions) (*Stream, error) {
	lc := net.ListenConfig{KeepAlive: keepAlive}
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for raft on %s: %w", addr, err)
	}
	return NewStream(l, o), nil
}

// NewStream starts a Stream on a listener, which it owns from then on. Unless
// o.Dial is set, peers are dialled by TCP.
func NewStream(l net.Listener, o StreamOptions) *Stream {
	o.fill()
	s := &Stream{
		listener: l, addr: l.Addr(), o: o,
		ready: make(chan net.Conn), done: make(chan struct{}),
		conns: map[*admitted]struct{}{}, perHost: map[string]int{},
	}
	s.dialling, s.endDials = context.WithCancel(context.Background())
	if o.Advertise != "" {
		s.addr = advertised(o.Advertise)
	}
	s.wg.Go(s.acceptLoop)
	return s
}

// advertised is a TCP address that need not be resolved here.
type advertised string

// Network is always "tcp".
func (advertised) Network() string { return "tcp" }

func (a advertised) String() string { return string(a) }

// Addr returns the address that peers dial.
func (s *Stream) Addr() net.Addr { return s.addr }

// ListenAddr returns the address of the listener.
func (s *Stream) ListenAddr() net.Addr { return s.listener.Addr() }

// Accept returns the next connection whose handshake has succeeded.
func (s *Stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Dial connects to a peer and shakes hands, all within timeout. Close ends it: a
// peer that has lost its power answers nothing, and raft, which does not stop
// before its dials do, goes from one to the next.
func (s *Stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.dialling, timeout)
	defer cancel()
	raw, err := s.o.Dial(ctx, string(addr))
	if err != nil {
		return nil, fmt.Errorf("dial raft peer: %w", err)
	}
	going := context.AfterFunc(s.dialling, func() { _ = raw.Close() })
	c, err := s.greet(raw, addr, timeout)
	if !going() && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("dial raft peer %s: %w", addr, err)
	}
	return c, nil
}

func (s *Stream) greet(c net.Conn, addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if s.o.SecureClient != nil {
		var err error
		if c, err = s.o.SecureClient(c, addr); err != nil {
			return nil, err
		}
	}
	if err := clientPreface(c, s.o.Cluster()); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// Close ends the listener, every accepted connection and what is being dialled,
// and waits for the goroutines.
func (s *Stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	s.endDials()
	err := s.listener.Close()
	for c := range s.conns {
		_ = c.Conn.Close() // not c.Close, which wants the mutex
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *Stream) acceptLoop() {
	delay := time.Duration(0)
	for {
		c, err := s.listener.Accept()
		if err == nil {
			delay = 0
			if a := s.admit(c); a != nil {
				s.wg.Go(func() { s.shake(a) })
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.warn("accept raft connection", "err", err)
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		select {
		case <-s.done:
			return
		case <-time.After(delay):
		}
	}
}

// admitted is an accepted connection; closing it gives its place back.
type admitted struct {
	net.Conn
	s    *Stream
	host string
	once sync.Once
}

// Close may be called twice and from any goroutine.
func (a *admitted) Close() error {
	err := a.Conn.Close()
	a.once.Do(func() {
		a.s.mu.Lock()
		defer a.s.mu.Unlock()
		delete(a.s.conns, a)
		if a.s.perHost[a.host]--; a.s.perHost[a.host] == 0 {
			delete(a.s.perHost, a.host)
		}
	})
	return err
}

// admit counts a connection or refuses it and returns nil.
func (s *Stream) admit(c net.Conn) *admitted {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		host = c.RemoteAddr().String()
	}
	s.mu.Lock()
	all, here := len(s.conns), s.perHost[host]
	if s.closed || all >= s.o.MaxConns || here >= s.o.MaxConnsPerHost {
		s.mu.Unlock()
		_ = c.Close()
		s.warn("refused a raft connection: too many", "host", host, "from_host", here, "in_all", all)
		return nil
	}
	a := &admitted{Conn: c, s: s, host: host}
	s.conns[a] = struct{}{}
	s.perHost[host]++
	s.mu.Unlock()
	return a
}

// shake runs the server's side of the handshake and hands the connection over.
func (s *Stream) shake(a *admitted) {
	c, err := s.welcome(a)
	if err != nil {
		_ = a.Close()
		s.warn("refused a raft connection", "from", a.RemoteAddr().String(), "err", err)
		return
	}
	select {
	case s.ready <- c:
	case <-s.done:
		_ = a.Close()
	}
}

func (s *Stream) welcome(a *admitted) (c net.Conn, err error) {
	if err := a.SetDeadline(time.Now().Add(s.o.HandshakeTimeout)); err != nil {
		return nil, err
	}
	c = a
	if s.o.SecureServer != nil {
		if c, err = s.o.SecureServer(a); err != nil {
			return nil, err
		}
	}
	if err := serverPreface(c, s.o.Cluster()); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// warn logs at most one warning in warnEvery; strangers must not fill the log.
func (s *Stream) warn(msg string, args ...any) {
	s.mu.Lock()
	if s.closed || time.Since(s.warned) < warnEvery {
		s.unwarned++
		s.mu.Unlock()
		return
	}
	left := s.unwarned
	s.warned, s.unwarned = time.Now(), 0
	s.mu.Unlock()
	s.o.Logger.Warn(msg, append(args, "not_logged", left)...)
}

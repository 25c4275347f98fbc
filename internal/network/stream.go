package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/secure"
)

const (
	defaultHandshake = 5 * time.Second
	keepAlive        = 15 * time.Second
)

// StreamOptions shape a Stream. Only Member is required.
type StreamOptions struct {
	// Member is the ID of this node. Both ends of a connection send who they are and whom
	// they mean, and refuse a connection that is meant for another node.
	Member string
	// API is the API address of this node, which is sent as well; it may be empty.
	API string
	// Advertise is the address that peers dial; empty is the listener's own.
	Advertise string
	// Logger gets what happens; nil is silent. Strangers can cause lines as often as they
	// like: the logger has to limit those of one message.
	Logger *slog.Logger
	// Cluster returns the cluster that this node belongs to. Nodes of different clusters
	// refuse each other. Nil is none.
	Cluster func() ClusterIdentity
	// HandshakeTimeout bounds what comes before the first request; zero is 5 s.
	HandshakeTimeout time.Duration
	// CallBack makes the Stream call back each node that has dialled before it accepts the
	// connection: see callback.go. That takes a Transport on the Stream, which knows the
	// addresses. Without it the preface is trusted, which is for tests.
	CallBack bool
	// MaxHandshakes, MaxPerMember and MaxUnknown bound accepted connections; zero is 64,
	// 16 and 64. See room.go.
	MaxHandshakes, MaxPerMember, MaxUnknown int
	// Admit returns why a connection within these bounds is refused; nil accepts all.
	Admit func(net.Conn) error
	// Secure and Dialer put TLS below the preface, of connections that are accepted and that
	// are dialled; nil is plain text. Their handshakes take place within HandshakeTimeout and
	// the timeout of a dial. In TLS the node that a preface names has to be the one that the
	// certificate names. See [RefusePlain] for the answer to plain text.
	Secure *secure.Port
	Dialer *secure.Dialer
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
	if o.Admit == nil {
		o.Admit = func(net.Conn) error { return nil }
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = defaultHandshake
	}
	o.MaxHandshakes = cmp.Or(o.MaxHandshakes, defaultHandshakes)
	o.MaxPerMember = cmp.Or(o.MaxPerMember, defaultPerMember)
	o.MaxUnknown = cmp.Or(o.MaxUnknown, defaultUnknown)
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

	binding   sync.Once
	bound     chan struct{} // closed by bind, which sets where
	where     whereIs
	unwelcome func(id string) error // why a node that has proved who it is may not connect
	unheardOf chan struct{}         // has an element for each unknown node that is being asked

	mu      sync.Mutex // guards what follows
	conns   map[*admitted]struct{}
	room    room
	dialled map[string]string // nonce → node ID, of handshakes that this node has begun
	ended   []endedDial       // the latest of those that have ended
	apis    map[string]string // node ID → API address
	closed  bool
}

// ListenTCP listens on addr ("host:port"; port 0 picks one).
func ListenTCP(addr string, o StreamOptions) (*Stream, error) {
	l, err := Listen(context.Background(), addr)
	if err != nil {
		return nil, err
	}
	return NewStream(l, o), nil
}

// Listen binds an address for NewStream.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: keepAlive}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for raft on %s: %w", addr, err)
	}
	return l, nil
}

// NewStream starts a Stream on a listener, which it owns from then on. Unless
// o.Dial is set, peers are dialled by TCP.
func NewStream(l net.Listener, o StreamOptions) *Stream {
	o.fill()
	s := &Stream{
		listener: l, addr: l.Addr(), o: o,
		ready: make(chan net.Conn), done: make(chan struct{}),
		bound: make(chan struct{}), unheardOf: make(chan struct{}, maxUnheardOf),
		conns: map[*admitted]struct{}{}, dialled: map[string]string{}, apis: map[string]string{},
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

// Dial connects to the member that a [MemberAddress] names and does the handshake, within
// timeout. Close ends it: a peer without power does not answer, and raft does not stop
// before its dials have ended, one after the other.
func (s *Stream) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	member, addr := SplitMember(target)
	if err := s.dialable(member, addr); err != nil {
		return nil, fmt.Errorf("dial raft peer %s: %w", target, err)
	}
	ctx, cancel := context.WithTimeout(s.dialling, timeout)
	defer cancel()
	raw, err := s.connect(ctx, addr, member)
	if err != nil {
		return nil, fmt.Errorf("dial raft peer %s: %w", target, err)
	}
	going := context.AfterFunc(s.dialling, func() { _ = raw.Close() })
	c, err := s.greet(raw, member, timeout)
	if !going() && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("dial raft peer %s: %w", target, err)
	}
	return c, nil
}

// connect connects to a member, which in TLS has proved then that it is the member.
func (s *Stream) connect(ctx context.Context, addr, member string) (net.Conn, error) {
	if s.o.Dialer == nil {
		return s.o.Dial(ctx, addr)
	}
	return s.o.Dialer.Dial(ctx, addr, member, s.o.Dial)
}

// dialable refuses addresses that cannot be right. A peer's address is this node's own when
// this node has got the address of a node that ended.
func (s *Stream) dialable(member, addr string) error {
	switch {
	case member == "":
		return errors.New("the address does not name a member")
	case member == s.o.Member:
		return errors.New("that is this node itself")
	case s.ownAddress(addr):
		return errors.New("the address is this node's own")
	}
	return nil
}

func (s *Stream) ownAddress(addr string) bool {
	return addr == s.addr.String() || addr == s.listener.Addr().String()
}

func (s *Stream) greet(c net.Conn, member string, timeout time.Duration) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	ours, own := s.preface(member)
	defer s.dials(ours.nonce, member)()
	theirs, err := clientPreface(c, ours, own)
	if err != nil {
		return nil, err
	}
	s.noteAPI(theirs)
	return seal(c, ours.nonce, theirs.nonce, true), c.SetDeadline(time.Time{})
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
		_ = c.Conn.Close() // not c.Close, which takes the mutex
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
		s.o.Logger.Warn("accept raft connection", "err", err)
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		select {
		case <-s.done:
			return
		case <-time.After(delay):
		}
	}
}

// refused logs why a connection was refused. The cause is part of the message, so that lines
// are limited by cause, whatever a stranger puts into the rest.
func (s *Stream) refused(from string, err error) {
	var r refusal
	msg := "refused a raft connection"
	switch {
	case errors.As(err, &r):
		msg += ": " + r.cause
	case errors.Is(err, errStranger):
		msg += ": it is none"
	}
	s.o.Logger.Warn(msg, "from", from, "err", err)
}

// shake runs the server's side of the handshake and hands the connection over, unless it was
// one that only asks.
func (s *Stream) shake(a *admitted) {
	c, err := s.welcome(a)
	if err != nil {
		s.mu.Lock()
		quiet := s.closed
		if a.displaced {
			err = refusal{"too many at once", "its handshake had not ended when later connections needed its place"}
		}
		s.mu.Unlock()
		if !quiet {
			s.refused(a.RemoteAddr().String(), err)
		}
	}
	if c == nil {
		_ = a.Close()
		return
	}
	select {
	case s.ready <- c:
	case <-s.done:
		_ = a.Close()
	}
}

// welcome returns nil if there is nothing to hand over.
func (s *Stream) welcome(a *admitted) (c net.Conn, err error) {
	if err := a.SetDeadline(time.Now().Add(s.o.HandshakeTimeout)); err != nil {
		return nil, err
	}
	c = a
	if s.o.Secure != nil {
		secured := s.o.Secure.Server(a)
		defer func() {
			if c == nil {
				_ = secured.Close() // which also counts it no more
			}
		}()
		if err := secured.Handshake(); err != nil {
			return nil, refusal{"no TLS came about", err.Error()}
		}
		c = secured
	}
	theirs, err := readPreface(c)
	switch {
	case errors.Is(err, errStranger):
		tellStranger(c)
		return nil, err
	case err != nil:
		return nil, err
	case theirs.say == sayAsk:
		return nil, s.confirm(c, theirs)
	case theirs.say != sayHello:
		return nil, fmt.Errorf("%w: it says %q", errStranger, theirs.say)
	}
	ours, own := s.preface(theirs.from)
	tell, err := theirs.meant(s.o.Member, own)
	proved := false
	if err == nil {
		proved, err = proves(c, theirs.from)
		tell = textOf(err)
	}
	member := false
	if err == nil {
		if member, err = s.callBack(a.ctx, theirs); err != nil {
			tell, err = err.Error(), refusal{"it was not confirmed", err.Error()}
		}
	}
	if err == nil && proved && !member && s.unwelcome != nil {
		err = s.unwelcome(theirs.from)
		tell = textOf(err)
	}
	if err != nil {
		_, _ = c.Write([]byte(preface{say: sayNo, reason: tell[:min(len(tell), maxReason)]}.line()))
		return nil, err
	}
	s.settle(a, theirs.from, member)
	if _, err := c.Write([]byte(ours.line())); err != nil {
		return nil, err
	}
	s.noteAPI(theirs)
	return greeted{seal(c, theirs.nonce, ours.nonce, false), theirs.from}, c.SetDeadline(time.Time{})
}

// proves reports whether the other end has proved that it is the node that its preface names.
// It returns an error if its certificate is that of another one. In plain text nothing is
// proved.
func proves(c net.Conn, from string) (bool, error) {
	secured, ok := c.(*secure.Conn)
	if !ok || secured.Plain() {
		return false, nil
	}
	who, ok := secured.Identity()
	if !ok || who.Role != certs.Node || who.Name != from {
		return false, refusal{"its certificate is another one's", fmt.Sprintf("it says that it is node %q, and its certificate is that of %q", from, who)}
	}
	return true, nil
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// RefusePlain returns what a node that takes only TLS answers to a connection in plain text,
// by the first bytes of it.
func RefusePlain(first []byte) []byte {
	const say = "this node takes only TLS (tls.mode is required); the node that dials needs tls.mode permissive or required, and a certificate of this cluster"
	if n := min(len(first), len(prefaceStart)); string(first[:n]) == prefaceStart[:n] {
		return []byte(preface{say: sayNo, reason: say}.line())
	}
	return secure.NotHTTP("this is the raft port of a locknode; " + say + "\n")
}

// preface returns what this node sends about itself to another one, and its cluster.
func (s *Stream) preface(to string) (p preface, own ClusterIdentity) {
	own = s.o.Cluster()
	nonce := newNonce()
	return preface{
		say: sayHello, cluster: own.hashed(nonce), from: s.o.Member, to: to, api: s.o.API, raft: s.addr.String(), nonce: nonce,
	}, own
}

// maxAPIs bounds the remembered addresses: more than there are members, and few enough to
// bound the memory that made-up IDs take.
const maxAPIs = 256

// noteAPI remembers the API address that a peer has sent in its preface.
func (s *Stream) noteAPI(theirs preface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.apis[theirs.from]; !known && len(s.apis) >= maxAPIs {
		clear(s.apis)
	}
	s.apis[theirs.from] = theirs.api
}

// API returns the API address that a member has sent on its last Raft connection; empty if
// it has sent none. It is newer than gossip where addresses have just changed hands, because
// Raft has reached the member there.
func (s *Stream) API(member string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apis[member]
}

// greeted is an accepted connection whose dialler is known.
type greeted struct {
	net.Conn
	from string // node ID
}

package guard

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	rpcInstallSnapshot = 2 // raft's wire numbers
	rpcHighest         = 4

	writeChunk = 16 << 10
)

var errFrameTooLarge = errors.New("frame is too large")

// gatedStream wraps every connection of a StreamLayer: gate, frame limit,
// deadlines by progress. It knows all of them, so that they can be closed.
type gatedStream struct {
	raft.StreamLayer
	o TransportOptions

	mu     sync.Mutex // guards what follows
	conns  map[*gatedConn]struct{}
	dials  int // attempted
	closed bool
}

func newGatedStream(s raft.StreamLayer, o TransportOptions) *gatedStream {
	if o.Gate == nil {
		o.Gate = func() error { return nil }
	}
	return &gatedStream{StreamLayer: s, o: o, conns: map[*gatedConn]struct{}{}}
}

// Accept drops connections that come while the gate is closed.
func (s *gatedStream) Accept() (net.Conn, error) {
	for {
		c, err := s.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		if s.o.Gate() != nil {
			_ = c.Close()
			continue
		}
		if g := s.track(c, true); g != nil {
			return g, nil
		}
	}
}

// Dial fails while the gate is closed.
func (s *gatedStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if err := s.o.Gate(); err != nil {
		return nil, fmt.Errorf("dial raft peer %s: %w", addr, err)
	}
	s.mu.Lock()
	s.dials++
	s.mu.Unlock()
	c, err := s.StreamLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	if g := s.track(c, false); g != nil {
		return g, nil
	}
	return nil, raft.ErrTransportShutdown
}

func (s *gatedStream) track(c net.Conn, incoming bool) *gatedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil
	}
	g := &gatedConn{Conn: c, s: s, incoming: incoming, wire: wire{incoming: incoming}}
	s.conns[g] = struct{}{}
	return g
}

func (s *gatedStream) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Conn.Close()
	}
	clear(s.conns)
}

// gatedConn carries alternating requests and answers, never two in flight.
// One goroutine uses it at a time; Close may come from any.
type gatedConn struct {
	net.Conn
	s        *gatedStream
	incoming bool

	budget   time.Duration // of the RPC, as raft set it; incoming: none
	armed    bool          // a read deadline is set
	frame    int64         // bytes read since the last write
	snapshot bool          // the frame being read is a snapshot
	wire     wire          // what was read
}

// SetDeadline takes the deadline that raft sets for one RPC as the time that may
// pass without progress.
func (c *gatedConn) SetDeadline(t time.Time) error {
	c.budget = time.Until(t)
	return nil
}

func (c *gatedConn) Read(b []byte) (int, error) {
	if err := c.s.o.Gate(); err != nil {
		return 0, c.refuse(err)
	}
	if err := c.armRead(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	if gate := c.s.o.Gate(); gate != nil {
		return 0, c.refuse(gate) // it may have closed while we waited
	}
	if n > 0 {
		if err := c.count(b[0], int64(n)); err != nil {
			_ = c.Close()
			return 0, err
		}
		if err := c.wire.read(b[:n]); err != nil {
			_ = c.Close()
			return 0, fmt.Errorf("read from %s: %w", c.RemoteAddr(), err)
		}
	}
	return n, err
}

// armRead gives an answer, and the rest of a request that has begun, a time to
// arrive. Between requests an incoming connection may be idle for ever.
func (c *gatedConn) armRead() error {
	limit := c.budget
	if c.incoming && c.frame > 0 {
		limit = 5 * c.s.o.Timeout
	}
	if limit == 0 && !c.armed {
		return nil
	}
	c.armed = limit != 0
	var t time.Time
	if c.armed {
		t = time.Now().Add(limit)
	}
	return c.SetReadDeadline(t)
}

// count adds up the bytes of a frame, whose first byte on an incoming connection
// is the kind of request.
func (c *gatedConn) count(first byte, n int64) error {
	if c.frame == 0 && c.incoming {
		if first > rpcHighest {
			return fmt.Errorf("request of kind %d from %s: not a raft request", first, c.RemoteAddr())
		}
		c.snapshot = first == rpcInstallSnapshot
	}
	c.frame += n
	if c.frame > c.s.o.MaxFrame && !c.snapshot {
		return fmt.Errorf("read from %s: %w: limit is %d bytes", c.RemoteAddr(), errFrameTooLarge, c.s.o.MaxFrame)
	}
	return nil
}

// Write sends b in chunks, each with its own deadline.
func (c *gatedConn) Write(b []byte) (n int, err error) {
	c.frame = 0
	for len(b) > 0 {
		if err := c.s.o.Gate(); err != nil {
			return n, c.refuse(err)
		}
		if err := c.SetWriteDeadline(time.Now().Add(c.s.o.Timeout)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[:min(len(b), writeChunk)])
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

// refuse ends the connection because the gate is closed. For the side that
// listens this is an ordinary end, which raft does not log.
func (c *gatedConn) refuse(gate error) error {
	_ = c.Close()
	if c.incoming {
		return io.EOF
	}
	return gate
}

// Close may be called twice and from any goroutine.
func (c *gatedConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

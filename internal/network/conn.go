package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	rpcAppendEntries   = 0 // raft's wire numbers
	rpcInstallSnapshot = 2
	rpcHighest         = 4

	writeChunk = 16 << 10

	// smallFrame bounds requests and answers without entries. Requests with entries up to
	// this size may be read on any number of connections at a time.
	smallFrame = 64 << 10
	// largeFrames bounds how many larger ones are read at a time, over all connections. A
	// node has one leader, which sends one at a time.
	largeFrames = 2
)

var errFrameTooLarge = errors.New("frame is too large")

// gatedStream wraps every connection of a StreamLayer with the gate, frame limits and
// deadlines by progress. It keeps a list of them, so that they can be closed.
type gatedStream struct {
	raft.StreamLayer
	o      TransportOptions
	places Places

	large chan struct{} // has an element for each long frame that is being read

	mu     sync.Mutex // guards what follows
	conns  map[*gatedConn]struct{}
	dials  int // attempted
	closed bool
}

func newGatedStream(s raft.StreamLayer, o TransportOptions) *gatedStream {
	if o.Gate == nil {
		o.Gate = func() error { return nil }
	}
	return &gatedStream{StreamLayer: s, o: o, conns: map[*gatedConn]struct{}{}, large: make(chan struct{}, largeFrames)}
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
		s.places.Failed(SplitMember(addr))
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
	if dialled, ok := c.(greeted); ok {
		g.wire.from = dialled.from
	}
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
	kind     byte          // of the request being read
	large    atomic.Bool   // the frame being read is a long one, and counted
	answered bool          // a request was answered
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
		return 0, c.refuse(gate) // it may have closed during the read
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

// armRead sets the deadline for an answer, for the first request, and for the rest of one
// that has begun. Between requests an incoming connection may be idle without limit.
func (c *gatedConn) armRead() error {
	limit := c.budget
	if c.incoming && (c.frame > 0 || !c.answered) {
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
		c.kind = first
	}
	c.frame += n
	if c.incoming && c.kind == rpcInstallSnapshot {
		return nil
	}
	limit := int64(smallFrame)
	if c.incoming && c.kind == rpcAppendEntries {
		limit = c.s.o.MaxFrame
	}
	if c.frame > limit {
		return fmt.Errorf("read from %s: %w: limit is %d bytes", c.RemoteAddr(), errFrameTooLarge, limit)
	}
	if c.frame > smallFrame && !c.large.Load() {
		return c.awaitLarge()
	}
	return nil
}

// awaitLarge waits until this connection may read a large frame. A connection that reads one
// needs no other turn to finish, so there is no deadlock.
func (c *gatedConn) awaitLarge() error {
	timer := time.NewTimer(5 * c.s.o.Timeout)
	defer timer.Stop()
	select {
	case c.s.large <- struct{}{}:
		c.large.Store(true)
		return nil
	case <-timer.C:
		return fmt.Errorf("read from %s: %d requests of more than %d bytes are being read already, and none has ended", c.RemoteAddr(), largeFrames, smallFrame)
	}
}

// endFrame ends the turn of a large frame.
func (c *gatedConn) endFrame() {
	if c.large.CompareAndSwap(true, false) {
		<-c.s.large
	}
}

// Write sends b in chunks, each with its own deadline.
func (c *gatedConn) Write(b []byte) (n int, err error) {
	c.frame, c.answered = 0, true
	c.endFrame()
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

// refuse closes the connection because the gate is closed. On the listening side the error
// is an ordinary end, which raft does not log.
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
	c.endFrame()
	return c.Conn.Close()
}

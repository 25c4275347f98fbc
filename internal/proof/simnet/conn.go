package simnet

import (
	"errors"
	"io"
	"net"
	"time"
)

// conn is one end of a connection. Its methods may be called from any goroutine.
type conn struct {
	p             *pair
	host          *Host
	peer          *conn
	local, remote *net.TCPAddr
	in, out       *flow

	reader, writer *waiter

	// pair.mu guards what follows.
	readDeadline, writeDeadline time.Time
	closed                      bool
	reset                       time.Time // when a reset arrives; zero is never
	resetStalled                bool      // it waits for the link
	probing                     bool      // the reset answers a keep-alive probe; data gets it sooner
	givesUp                     time.Time // when keep-alive ends the silence; zero is never
}

// waiter is where one goroutine at a time waits for its end of a flow.
type waiter struct {
	turn  chan struct{} // holds a token while somebody reads or writes
	woken chan struct{} // holds a token after a change
	timer *time.Timer   // nil until needed

	// pair.mu guards what follows.
	waiting bool
	until   time.Time // what the timer is set to; zero if it is stopped
}

func newWaiter() *waiter {
	return &waiter{turn: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
}

// wake makes the waiting goroutine look again. The caller holds pair.mu.
func (w *waiter) wake() {
	if w.waiting {
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}
}

// before makes the waiting goroutine look again at t, if not earlier. The caller holds
// pair.mu.
func (w *waiter) before(t time.Time) {
	if w.waiting && (w.until.IsZero() || t.Before(w.until)) {
		w.set(t)
	}
}

func (w *waiter) set(t time.Time) {
	w.until = t
	if t.IsZero() {
		w.timer.Stop()
	} else {
		w.timer.Reset(time.Until(t))
	}
}

// wait releases mu until t, zero being never, or a change.
func (c *conn) wait(w *waiter, t time.Time) {
	if w.timer == nil {
		w.timer = time.NewTimer(time.Hour)
		w.timer.Stop()
	}
	w.set(t)
	w.waiting = true
	c.p.mu.Unlock()
	select {
	case <-w.woken:
	case <-w.timer.C:
	}
	c.p.mu.Lock()
	w.waiting = false
	w.set(time.Time{})
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read returns what has arrived, as much as fits; see net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	c.reader.turn <- struct{}{}
	defer func() { <-c.reader.turn }()
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		n, until, err := c.tryRead(b, time.Now())
		switch {
		case errors.Is(err, io.EOF):
			if len(b) == 0 {
				return 0, nil
			}
			return 0, err
		case err != nil:
			return 0, c.fail("read", err)
		case n > 0 || len(b) == 0:
			return n, nil
		}
		c.wait(c.reader, until)
	}
}

// Write returns when all of b is under way; see net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	c.writer.turn <- struct{}{}
	defer func() { <-c.writer.turn }()
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for {
		m, until, err := c.tryWrite(b[n:], time.Now())
		n += m
		switch {
		case err != nil:
			return n, c.fail("write", err)
		case n == len(b):
			return n, nil
		}
		c.wait(c.writer, until)
	}
}

// Close ends both directions. What was written before still arrives; if something
// that the peer wrote was not read, the peer's end is reset behind it.
func (c *conn) Close() error {
	c.p.mu.Lock()
	if c.closed {
		c.p.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	now := time.Now()
	unread := c.in.arrived(now) && !c.in.segments[0].end
	c.closeLocked()
	c.in.closed = true
	switch {
	case !c.reset.IsZero() || c.peer.closed:
	case unread:
		c.peer.resetLocked(now)
	case !c.out.ended && !c.out.silent:
		c.out.send(now, nil, true)
		c.peer.dataLocked(now)
	}
	c.peer.bounceLocked()
	both := c.peer.closed
	c.p.mu.Unlock()
	if both {
		c.p.net.forget(c.p)
	}
	return nil
}

func (c *conn) closeLocked() {
	c.closed = true
	c.reader.wake()
	c.writer.wake()
}

// CloseWrite ends what this end writes; the peer reads to its end.
func (c *conn) CloseWrite() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	if !c.out.ended {
		now := time.Now()
		c.out.send(now, nil, true)
		c.peer.dataLocked(now)
		c.writer.wake()
	}
	return nil
}

// LocalAddr returns a *net.TCPAddr.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns a *net.TCPAddr.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines; see net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline applies to reads under way too; see net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline applies to writes under way too; see net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	if read != nil {
		c.readDeadline = *read
		c.reader.wake()
	}
	if write != nil {
		c.writeDeadline = *write
		c.writer.wake()
	}
	return nil
}

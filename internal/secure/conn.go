package secure

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/internal/certs"
)

// Conn is a connection in TLS or in plain text. An accepted one becomes one of them with the
// first byte that the client sends, within the first Read or Write.
type Conn struct {
	wire *wire
	port *Port // nil: this end has dialled

	begun  atomic.Bool // what follows is set, but for mu
	mu     sync.Mutex  // guards what follows, until begun
	err    error       // why the connection cannot be used
	stream net.Conn    // *tls.Conn, or wire for plain text
	who    certs.Identity
	proved bool // who is what the other end's certificate says

	refusal atomic.Pointer[error] // what the other end has said about this one's certificate

	closing sync.Mutex // guards what follows
	closed  bool
	onClose func() // nil: nobody counts the connection
}

// Read implements [net.Conn].
func (c *Conn) Read(b []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	n, err := c.stream.Read(b)
	if err != nil {
		err = c.failed(err)
	}
	return n, err
}

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	n, err := c.stream.Write(b)
	if err != nil {
		err = c.failed(err)
	}
	return n, err
}

// failed returns the error of a Read or Write in words that say what to do, if it is an alert.
func (c *Conn) failed(err error) error {
	why := RefusedLater(err)
	if why == "" {
		return err
	}
	err = &failure{why, err}
	c.refusal.Store(&err)
	return err
}

// Refusal returns why the other end has refused this one, as far as it has said so, or nil. It
// is for callers above which a library keeps the errors of Read and Write to itself.
func (c *Conn) Refusal() error {
	if err := c.refusal.Load(); err != nil {
		return *err
	}
	return nil
}

// Handshake finds out what the connection is, and does the handshake of TLS if it is one.
// Read and Write do so by themselves.
func (c *Conn) Handshake() error { return c.begin() }

// begin is Handshake. An error because of a deadline before the first byte is not final: the
// next call tries again.
func (c *Conn) begin() error {
	if c.begun.Load() {
		return c.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun.Load() {
		return c.err
	}
	err := c.port.begin(c)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.stream == nil && len(c.wire.first) == 0 {
		return err
	}
	c.err = err
	c.begun.Store(true)
	return err
}

// TLS reports whether the connection is in TLS. It is false as long as that is not known.
func (c *Conn) TLS() bool {
	if !c.begun.Load() {
		return false
	}
	_, is := c.stream.(*tls.Conn)
	return is
}

// Plain reports whether the connection is in plain text. It is false as long as that is not
// known.
func (c *Conn) Plain() bool { return c.begun.Load() && c.err == nil && !c.TLS() }

// Identity returns who the other end is, as its certificate says, which was verified. ok is
// false in plain text, and for a client without a certificate.
func (c *Conn) Identity() (who certs.Identity, ok bool) {
	if !c.begun.Load() || c.err != nil {
		return certs.Identity{}, false
	}
	return c.who, c.proved
}

// Serial returns the serial number of the other end's certificate in hexadecimal digits, empty
// if it has shown none.
func (c *Conn) Serial() string {
	if !c.begun.Load() || c.err != nil {
		return ""
	}
	secured, is := c.stream.(*tls.Conn)
	if !is {
		return ""
	}
	shown := secured.ConnectionState().PeerCertificates
	if len(shown) == 0 {
		return ""
	}
	return shown[0].SerialNumber.Text(16)
}

// NetConn returns the connection below TLS. It must not be read or written.
func (c *Conn) NetConn() net.Conn { return c.wire.Conn }

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.wire.SetDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.wire.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.wire.SetWriteDeadline(t) }

// lastAlert bounds how long the end of a connection may take to be sent. It fits into the
// system's buffer, unless the other end does not read.
const lastAlert = 20 * time.Millisecond

// Close implements [net.Conn]. It may be called more than once and from any goroutine, ends
// a handshake that is under way, and does not wait for the other end.
func (c *Conn) Close() error {
	c.closing.Lock()
	ended := c.onClose
	c.closed, c.onClose = true, nil
	c.closing.Unlock()
	if ended != nil {
		ended()
	}
	if !c.TLS() || c.err != nil {
		return c.wire.Close()
	}
	// Without the first deadline a write that is under way, also one of crypto/tls itself,
	// would hold the mutex that the second needs.
	c.wire.closes()
	return c.stream.Close()
}

// ends has f called when the connection is closed, or at once if it was closed already.
func (c *Conn) ends(f func()) {
	c.closing.Lock()
	closed := c.closed
	if !closed {
		c.onClose = f
	}
	c.closing.Unlock()
	if closed {
		f()
	}
}

// wire is the connection below: it gives back the byte that was looked at, and bounds a
// handshake.
type wire struct {
	net.Conn
	first   []byte      // was read, and is to be read again
	shaking bool        // the handshake is under way; changed by the goroutine that does it only
	left    int         // how many bytes may still be read in it
	turns   turns       // one is held in the handshake, but for reading and writing
	closing atomic.Bool // the deadline for writing stays as it is
}

// Read implements [net.Conn].
func (w *wire) Read(b []byte) (int, error) {
	if len(w.first) > 0 && len(b) > 0 {
		n := copy(b, w.first)
		w.first = w.first[n:]
		return n, nil
	}
	if !w.shaking {
		return w.Conn.Read(b)
	}
	if w.left <= 0 {
		return 0, errTooLong
	}
	w.turns.give()
	defer w.turns.take()
	n, err := w.Conn.Read(b[:min(len(b), w.left)])
	w.left -= n
	return n, err
}

// Write implements [net.Conn].
func (w *wire) Write(b []byte) (int, error) {
	if w.shaking {
		w.turns.give()
		defer w.turns.take()
	}
	return w.Conn.Write(b)
}

// SetDeadline implements [net.Conn].
func (w *wire) SetDeadline(t time.Time) error {
	if w.closing.Load() {
		return w.SetReadDeadline(t)
	}
	return w.Conn.SetDeadline(t)
}

// SetWriteDeadline implements [net.Conn].
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.closing.Load() {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// closes bounds what is written from now on, by lastAlert.
func (w *wire) closes() {
	w.closing.Store(true)
	_ = w.Conn.SetWriteDeadline(time.Now().Add(lastAlert))
}

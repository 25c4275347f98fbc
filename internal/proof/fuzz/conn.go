package fuzz

import (
	"errors"
	"io"
	"net"
	"time"
)

// Conn is one end of a connection in memory. Unlike those of [net.Pipe] it can
// be closed for writing alone, so that a test may wait until the other side has
// read all and is done. It knows no deadlines.
type Conn struct {
	r *io.PipeReader
	w *io.PipeWriter
}

// Pipe returns both ends.
func Pipe() (a, b Conn) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return Conn{ar, aw}, Conn{br, bw}
}

// Read is part of [net.Conn].
func (c Conn) Read(b []byte) (int, error) { return c.r.Read(b) }

// Write is part of [net.Conn]. It returns when the other side has read all.
func (c Conn) Write(b []byte) (int, error) { return c.w.Write(b) }

// CloseWrite lets the other side read the end.
func (c Conn) CloseWrite() error { return c.w.Close() }

// Close ends both directions.
func (c Conn) Close() error { return errors.Join(c.r.Close(), c.w.Close()) }

// LocalAddr is part of [net.Conn].
func (Conn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }

// RemoteAddr is part of [net.Conn].
func (Conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 1} }

// SetDeadline does nothing.
func (Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (Conn) SetWriteDeadline(time.Time) error { return nil }

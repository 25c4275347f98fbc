package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/certs"
)

// Before its handshake has ended, nothing tells a member or a client from a stranger, and a
// handshake costs the node more than the one who begins it. So the handshakes of a port are
// bounded:
//
//   - in number: one more than maxHandshakes ends the oldest of the host that has most of
//     them. A member's handshake takes a few round trips, a stranger's as long as it likes,
//     so that a member gets through beside any number of strangers that wait.
//   - in time, by handshakeTime, and by the deadlines of the port, where those are shorter.
//   - in bytes, by handshakeBytes: crypto/tls by itself would buffer some hundred kilobytes.
//   - in processors: all ports of the process together compute handshakes on half of them.
//     A turn is held only while something is computed, and given back while bytes are
//     awaited, so that a slow client holds nobody up.
//
// A connection that has sent nothing is no handshake yet: the port bounds those as before.
const (
	maxHandshakes  = 256
	handshakeTime  = 5 * time.Second
	handshakeBytes = 64 << 10

	// RecordHandshake is the first byte of a TLS connection. No protocol of ours begins with
	// it: the preface of Raft begins with "l", HTTP/2 with "P", HTTP/1 with a capital letter.
	RecordHandshake = 0x16
)

var (
	errTooLong   = errors.New("it has sent too much before the end of its handshake")
	errDisplaced = errors.New("too many handshakes at once: it had not ended when later connections needed its place")
)

// turns are held while a handshake is computed. They are given in the order in which they
// are asked for.
type turns chan struct{}

// processTurns are those of all ports and dialers.
var processTurns = make(turns, max(1, runtime.GOMAXPROCS(0)/2))

func (t turns) take() { t <- struct{}{} }
func (t turns) give() { <-t }

// PortOptions shape a Port. Mode and Config are required.
type PortOptions struct {
	Mode   Mode        // Permissive or Required
	Config *tls.Config // of the server's side
	// Answer returns what a client that speaks plain text is answered where TLS is required,
	// by the first bytes that it has sent. nil: nothing.
	Answer func(first []byte) []byte
	// OnPlain is called with 1 when a connection turns out to be plain text, and with -1
	// when it is closed. nil: nobody counts.
	OnPlain func(from net.Addr, delta int)
	// OnRefused is called with why a connection was refused, which Read and Write return as
	// well. nil: they alone.
	OnRefused func(from net.Addr, err error)
}

// Port is a listening port that takes TLS. Its methods are safe for concurrent use.
type Port struct {
	o PortOptions

	mu      sync.Mutex // guards what follows
	shaking []*handshake
}

// handshake is one that is under way.
type handshake struct {
	host string
	end  context.CancelCauseFunc
}

// NewPort returns a port.
func NewPort(o PortOptions) *Port {
	if o.Answer == nil {
		o.Answer = func([]byte) []byte { return nil }
	}
	if o.OnPlain == nil {
		o.OnPlain = func(net.Addr, int) {}
	}
	if o.OnRefused == nil {
		o.OnRefused = func(net.Addr, error) {}
	}
	return &Port{o: o}
}

// Required reports whether the port takes TLS only.
func (p *Port) Required() bool { return p.o.Mode == Required }

// Server wraps an accepted connection. It does not wait for the client.
func (p *Port) Server(raw net.Conn) *Conn {
	return &Conn{port: p, wire: &wire{Conn: raw, turns: processTurns, left: handshakeBytes}}
}

// begin finds out what a connection is. Its mutex is held.
func (p *Port) begin(c *Conn) error {
	var first [1]byte
	if _, err := io.ReadFull(c.wire.Conn, first[:]); err != nil {
		return err
	}
	c.wire.first = first[:]
	switch {
	case first[0] == RecordHandshake:
		return p.shake(c)
	case p.o.Mode == Permissive:
		p.plain(c)
		return nil
	}
	return p.refuse(c)
}

// plain makes c a connection in plain text.
func (p *Port) plain(c *Conn) {
	c.stream = c.wire
	from := c.RemoteAddr()
	p.o.OnPlain(from, 1)
	c.ends(func() { p.o.OnPlain(from, -1) })
}

// shake does the handshake.
func (p *Port) shake(c *Conn) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), handshakeTime, fmt.Errorf("its handshake took more than %v", handshakeTime))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer p.enter(&handshake{hostOf(c.RemoteAddr()), end})()
	t := tls.Server(c.wire, p.o.Config)
	if err := handshakeOf(ctx, c, t); err != nil {
		p.o.OnRefused(c.RemoteAddr(), err)
		if ctx.Err() == nil {
			drain(c.wire.Conn) // the alert that says why is on its way
		}
		_ = c.wire.Close()
		return err
	}
	return nil
}

// drain reads what the other end still sends: closing with unread bytes would make the system
// drop what was written last.
func drain(raw net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(answerTime))
	_, _ = io.CopyN(io.Discard, raw, handshakeBytes)
}

// handshakeOf does the handshake of either side, and sets what c is.
func handshakeOf(ctx context.Context, c *Conn, t *tls.Conn) error {
	w := c.wire
	w.turns.take()
	w.shaking = true
	err := t.HandshakeContext(ctx)
	w.shaking = false
	w.turns.give()
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return Explained(err)
	}
	c.stream = t
	c.who, c.proved = certs.IdentityOf(t.ConnectionState())
	return nil
}

// enter counts a handshake until leave is called.
func (p *Port) enter(h *handshake) (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.shaking) >= maxHandshakes {
		oldest := p.mostLocked()
		p.leaveLocked(oldest)
		oldest.end(errDisplaced)
	}
	p.shaking = append(p.shaking, h)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leaveLocked(h)
	}
}

func (p *Port) leaveLocked(h *handshake) {
	p.shaking = slices.DeleteFunc(p.shaking, func(other *handshake) bool { return other == h })
}

// mostLocked is the oldest handshake of the host that has most of them.
func (p *Port) mostLocked() *handshake {
	count, most := map[string]int{}, 0
	for _, h := range p.shaking {
		count[h.host]++
		most = max(most, count[h.host])
	}
	i := slices.IndexFunc(p.shaking, func(h *handshake) bool { return count[h.host] == most })
	return p.shaking[i]
}

// answerTime bounds how long a client in plain text may take to be refused.
const answerTime = 200 * time.Millisecond

// errPlain is the refusal of plain text.
var errPlain = errors.New("it speaks plain text, and this port takes only TLS: give it the cluster's CA and certificates, or set tls.mode: permissive here as long as it has none")

// refuse answers a client that speaks plain text where TLS is required.
func (p *Port) refuse(c *Conn) error {
	p.o.OnRefused(c.RemoteAddr(), errPlain)
	raw := c.wire.Conn
	_ = raw.SetDeadline(time.Now().Add(answerTime))
	first := bytes.Clone(c.wire.first)
	more := make([]byte, 64)
	if n, err := raw.Read(more); err == nil {
		first = append(first, more[:n]...)
	}
	if answer := p.o.Answer(first); len(answer) > 0 {
		_, _ = raw.Write(answer)
		drain(raw)
	}
	_ = raw.Close()
	return errPlain
}

// hostOf returns an address without its port.
func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// TLSAlert is what a client of HTTP/2 in plain text is answered: a fatal alert of TLS. A Go
// client of Locknode reads it as "TLS is spoken there".
var TLSAlert = []byte{0x15, 3, 3, 0, 2, 2, 70}

// NotHTTP is what a client of HTTP/1 in plain text is answered.
func NotHTTP(text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

// IsHTTP1 reports whether a connection in plain text is one of HTTP/1, by its first bytes.
func IsHTTP1(first []byte) bool {
	method, _, ok := bytes.Cut(first, []byte(" "))
	if !ok || len(method) == 0 || string(method) == "PRI" { // HTTP/2 begins with "PRI * HTTP/2.0"
		return false
	}
	return !bytes.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' })
}

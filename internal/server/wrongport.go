package server

import (
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/secure"
)

// greeter wraps a gRPC connection. It tells a client that speaks HTTP/1 that this is the
// wrong port, and one that speaks TLS that there is none. grpc writes before it has read
// anything; those bytes are held back until the first bytes of the client have arrived.
type greeter struct {
	net.Conn

	mu    sync.Mutex
	known bool   // the client does not speak HTTP/1: everything passes
	seen  []byte // the first bytes, until known
	held  []byte // what grpc has written, until known
}

const (
	sniffBytes   = 4
	maxHeldBytes = 4 << 10
)

// noTLS is what a client gets that speaks TLS to a port without it. Its library makes "this is
// no TLS" of it.
const noTLS = "this port speaks plain text: tls.mode of the node is off\n"

// methods are the first four bytes of HTTP/1 requests. HTTP/2 begins with "PRI ".
var methods = []string{"GET ", "HEAD", "POST", "PUT ", "PATC", "DELE", "OPTI", "CONN", "TRAC"}

const wrongPort = "this port speaks gRPC; HTTP and JSON are on the node's HTTP port, by default the next one\n"

// Read reads from the connection, and answers a client whose first bytes are of HTTP/1.
func (g *greeter) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known || n == 0 {
		return n, err
	}
	g.seen = append(g.seen, b[:min(n, sniffBytes)]...)
	if len(g.seen) < sniffBytes {
		return n, err
	}
	switch {
	case slices.Contains(methods, string(g.seen[:sniffBytes])):
		_, _ = g.Conn.Write(secure.NotHTTP(wrongPort))
		return 0, io.EOF
	case g.seen[0] == secure.RecordHandshake && g.seen[1] == 3:
		_, _ = g.Conn.Write(secure.NotHTTP(noTLS))
		// Closing with unread bytes would make the system drop the answer.
		_ = g.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.CopyN(io.Discard, g.Conn, 64<<10)
		return 0, io.EOF
	}
	if werr := g.passLocked(); werr != nil {
		return n, werr
	}
	return n, err
}

// Write writes to the connection, once the first bytes are read; until then it holds back
// up to maxHeldBytes.
func (g *greeter) Write(b []byte) (int, error) {
	g.mu.Lock()
	if !g.known && len(g.held)+len(b) <= maxHeldBytes {
		g.held = append(g.held, b...)
		g.mu.Unlock()
		return len(b), nil
	}
	err := g.passLocked()
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return g.Conn.Write(b)
}

func (g *greeter) passLocked() error {
	g.known = true
	held := g.held
	g.held, g.seen = nil, nil
	if len(held) == 0 {
		return nil
	}
	_, err := g.Conn.Write(held)
	return err
}

// greeting is a listener whose connections have a greeter.
type greeting struct{ net.Listener }

// Accept waits for the next connection.
func (l greeting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &greeter{Conn: conn}, nil
}

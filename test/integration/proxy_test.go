//go:build unix

package integration

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// proxy is a TCP proxy in front of one address, with faults.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	conns   map[net.Conn]bool // both sides of each connection
	deaf    bool              // answers are thrown away
	stalled chan struct{}     // not nil: nothing moves until it is closed

	// Where it matters who connects, these say who that is, and what to wait for
	// before anything may go in a direction; nil is nothing.
	who     func(net.Conn) string
	blocked func(who string, answers bool) <-chan struct{}
}

// startProxy starts one on a free port; it ends with the test.
func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := newProxy(t, "127.0.0.1:0", target)
	p.serve(t)
	return p
}

// newProxy listens and does not serve yet.
func newProxy(t *testing.T, address, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.who = func(net.Conn) string { return "" }
	p.blocked = func(string, bool) <-chan struct{} {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.stalled
	}
	return p
}

func (p *proxy) serve(t *testing.T) {
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// loseAnswers throws away what the target sends from now on, and what it sends on
// new connections: requests arrive and take effect, and nobody hears of it.
func (p *proxy) loseAnswers() { p.set(func() { p.deaf = true }) }

// stall lets nothing through in either direction; what arrives is kept.
func (p *proxy) stall() {
	p.set(func() {
		if p.stalled == nil {
			p.stalled = make(chan struct{})
		}
	})
}

// mend lets everything through again, and delivers what was kept.
func (p *proxy) mend() {
	p.set(func() {
		p.deaf = false
		if p.stalled != nil {
			close(p.stalled)
			p.stalled = nil
		}
	})
}

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// breakAll ends all connections, and mends: what was lost stays lost.
func (p *proxy) breakAll() {
	p.set(func() {
		for c := range p.conns {
			_ = c.(*net.TCPConn).SetLinger(0) // with a reset
			_ = c.Close()                     // its copying notices and ends
		}
	})
	p.mend()
}

func (p *proxy) close() {
	p.set(func() { p.closed = true })
	_ = p.listener.Close() // says only that it was closed before
	p.breakAll()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.connect(from) })
	}
}

// connect copies in both directions until either side ends.
func (p *proxy) connect(from net.Conn) {
	if !p.keep(from) {
		return
	}
	defer p.drop(from)
	who := p.who(from)
	p.hold(who, false)
	p.hold(who, true)
	to, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(to) {
		return
	}
	defer p.drop(to)
	var both sync.WaitGroup
	both.Go(func() { p.copy(to, from, who, false) })
	both.Go(func() { p.copy(from, to, who, true) })
	both.Wait()
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close() // nothing was sent on it
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close() // it may have been closed before
	p.set(func() { delete(p.conns, c) })
}

// hold waits while nothing may move.
func (p *proxy) hold(who string, answers bool) {
	for blocked := p.blocked(who, answers); blocked != nil; blocked = p.blocked(who, answers) {
		<-blocked
	}
}

// copy copies one direction, and ends both when it ends.
func (p *proxy) copy(to, from net.Conn, who string, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }() // they may have been closed before
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.hold(who, answers)
		p.mu.Lock()
		lost := answers && p.deaf
		p.mu.Unlock()
		if n > 0 && !lost {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func TestProxyLosesAnswersAndNothingElse(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = target.Close() }()
	heard := make(chan byte, 10)
	go echo(target, heard)
	p := startProxy(t, target.Addr().String())
	conn, err := net.Dial("tcp", p.address())
	must(t, err)
	defer func() { _ = conn.Close() }()
	say := func(b byte) {
		t.Helper()
		_, err := conn.Write([]byte{b})
		must(t, err)
	}
	var answer [1]byte
	say(1)
	if _, err := conn.Read(answer[:]); err != nil || answer[0] != 1 || <-heard != 1 {
		t.Fatalf("through the proxy: got %v, %v", answer, err)
	}
	p.loseAnswers()
	say(2)
	if b := <-heard; b != 2 {
		t.Errorf("the target heard %d, want 2", b)
	}
	p.breakAll()
	if n, err := conn.Read(answer[:]); err == nil {
		t.Errorf("after the break: read %d bytes %v, want an error: the answer was to be lost", n, answer)
	}
}

// echo answers every byte with itself.
func echo(l net.Listener, heard chan<- byte) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for {
			var b [1]byte
			if _, err := conn.Read(b[:]); err != nil {
				break
			}
			heard <- b[0]
			if _, err := conn.Write(b[:]); err != nil {
				break
			}
		}
		_ = conn.Close() // the proxy has ended it
	}
}

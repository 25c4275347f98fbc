package proxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Proxy is a TCP proxy in front of one address.
type Proxy struct {
	listener net.Listener
	target   string
	name     string // of the target, in the links
	links    *Links
	who      func(net.Conn) string // who has dialled, in the links
	wg       sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[*connection]bool
}

// connection is one connection through a proxy, which consists of two.
type connection struct {
	who   string
	near  net.Conn // to who has dialled
	far   net.Conn // to the target; nil before it is dialled
	ended chan struct{}
	once  sync.Once
}

// Listen starts a proxy at address, in front of target. In the links the target is name, and
// the dialler is what who returns; without who that is "".
func Listen(address, target, name string, links *Links, who func(net.Conn) string) (*Proxy, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("start a proxy before %s: %w", target, err)
	}
	if who == nil {
		who = func(net.Conn) string { return "" }
	}
	p := &Proxy{listener: l, target: target, name: name, links: links, who: who, conns: map[*connection]bool{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Address is where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Reset ends the connections of those who have dialled and are meant, with a reset.
func (p *Proxy) Reset(meant func(who string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if meant(c.who) {
			c.end()
		}
	}
}

// Close ends all connections and the proxy.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close() // says only that it was closed before
	p.Reset(func(string) bool { return true })
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(near) })
	}
}

// serve carries a connection until either side ends.
func (p *Proxy) serve(near net.Conn) {
	c := &connection{near: near, ended: make(chan struct{})}
	defer c.end()
	if !p.keep(c) {
		return
	}
	defer p.drop(c)
	who := p.who(near)
	p.mu.Lock()
	c.who = who
	p.mu.Unlock()
	// To connect, packets have to go both ways.
	p.links.await(who, p.name, c.ended, open)
	p.links.await(p.name, who, c.ended, open)
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	p.mu.Lock()
	c.far = far
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.carry(c, c.near, c.far, who, p.name) })
	both.Go(func() { p.carry(c, c.far, c.near, p.name, who) })
	both.Wait()
}

func (p *Proxy) keep(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[c] = true
	}
	return !p.closed
}

func (p *Proxy) drop(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	if c.far != nil {
		_ = c.far.Close() // it may have been closed before
	}
}

// end ends both sides, with a reset, and the goroutines that wait for them. The proxy's mutex
// may be held.
func (c *connection) end() {
	c.once.Do(func() {
		close(c.ended)
		for _, conn := range []net.Conn{c.near, c.far} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // with a reset
				_ = tcp.Close()
			}
		}
	})
}

// chunk is bytes that are under way.
type chunk struct {
	data []byte
	due  time.Time // when it arrives
}

const (
	chunkSize = 32 << 10
	underWay  = 32 // chunks: what fits into the network before the sender has to wait
)

// carry carries one direction until it ends, and then ends the connection. When
// the sender has closed its side, what is under way arrives first.
func (p *Proxy) carry(c *connection, from, to net.Conn, sender, receiver string) {
	chunks := make(chan chunk, underWay)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(chunks)
		for {
			buffer := make([]byte, chunkSize)
			n, err := from.Read(buffer)
			if n > 0 {
				rule, _ := p.links.rule(sender, receiver)
				select {
				case chunks <- chunk{buffer[:n], time.Now().Add(rule.Delay)}:
				case <-c.ended:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	p.deliver(c, chunks, to, sender, receiver)
	c.finish(from, to)
	reading.Wait()
}

// finish closes both sides without a reset.
func (c *connection) finish(from, to net.Conn) {
	_, _ = to.Close(), from.Close() // they may have been closed before
	c.once.Do(func() { close(c.ended) })
}

// deliver delivers what is under way, by the rules of the time when it arrives.
func (p *Proxy) deliver(c *connection, chunks <-chan chunk, to net.Conn, sender, receiver string) {
	lost := false
	for ch := range chunks {
		if late := time.Until(ch.due); late > 0 {
			t := time.NewTimer(late)
			select {
			case <-t.C:
			case <-c.ended:
			}
			t.Stop()
		}
		rule := p.links.await(sender, receiver, c.ended, open)
		switch {
		case rule.Lose:
			lost = true
		case lost:
			c.end() // what follows makes no sense without what is missing
			return
		default:
			if _, err := to.Write(ch.data); err != nil {
				return
			}
		}
	}
	// The end of a connection is not heard through a network that is broken.
	p.links.await(sender, receiver, c.ended, sound)
}

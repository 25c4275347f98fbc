package cluster

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gate is a transport from which nothing is heard until it is opened.
//
// memberlist listens before it has entered itself into its own list. If a peer
// that still knows the node from before a restart is heard in between, the node
// may enter itself as dead, never notice, and drop itself from the list some
// seconds later; memberlist v0.7.0 then panics in Leave and UpdateNode. So the
// gate stays closed until memberlist is complete. And what then comes in plain
// text is looked at; see plain.go.
type gate struct {
	memberlist.Transport
	opened  chan struct{}
	once    sync.Once
	refused func(from net.Addr, why error) // nil: gossip is encrypted, nothing is looked at
	packets chan *memberlist.Packet        // that were looked at
	streams chan net.Conn
	done    chan struct{} // closed by Shutdown
	endOnce sync.Once
	pump    sync.WaitGroup
}

func newGate(t memberlist.Transport, refused func(from net.Addr, why error)) *gate {
	return &gate{
		Transport: t, refused: refused, opened: make(chan struct{}),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{}),
	}
}

func (g *gate) open() {
	g.once.Do(func() {
		close(g.opened)
		if g.refused != nil {
			g.pump.Go(g.look)
		}
	})
}

// look hands on what may be heard. It ends with Shutdown.
func (g *gate) look() {
	for {
		select {
		case p := <-g.Transport.PacketCh():
			if err := checkPacket(p.Buf); err != nil {
				g.refused(p.From, err)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case conn := <-g.Transport.StreamCh():
			select {
			case g.streams <- &plainConn{Conn: conn}:
			case <-g.done:
				_ = conn.Close()
				return
			}
		case <-g.done:
			return
		}
	}
}

// PacketCh implements [memberlist.Transport]. memberlist calls it on the
// goroutine that then receives.
func (g *gate) PacketCh() <-chan *memberlist.Packet {
	<-g.opened
	if g.refused == nil {
		return g.Transport.PacketCh()
	}
	return g.packets
}

// StreamCh implements [memberlist.Transport], like PacketCh.
func (g *gate) StreamCh() <-chan net.Conn {
	<-g.opened
	if g.refused == nil {
		return g.Transport.StreamCh()
	}
	return g.streams
}

// DialTimeout implements [memberlist.Transport].
func (g *gate) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil || g.refused == nil {
		return conn, err
	}
	return &plainConn{Conn: conn}, nil
}

// Shutdown implements [memberlist.Transport]. The listeners that it waits for
// may be handing something over, so somebody has to take it.
func (g *gate) Shutdown() error {
	g.open()
	err := g.Transport.Shutdown()
	g.end()
	return err
}

// end ends look, after the transport and not before: it takes what the
// transport's goroutines hand over.
func (g *gate) end() {
	g.endOnce.Do(func() { close(g.done) })
	g.pump.Wait()
}

// abandon ends a transport that memberlist did not take.
func (g *gate) abandon() {
	g.open()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-g.Transport.PacketCh():
			case conn := <-g.Transport.StreamCh():
				_ = conn.Close()
			}
		}
	}()
	_ = g.Transport.Shutdown()
	g.end()
}

// listenTries is how often a free port is looked for: the kernel gives one for
// TCP, and UDP has to get the same.
const listenTries = 10

// listen binds TCP and UDP on one port.
func (c *Cluster) listen(ip string, port int) (*memberlist.NetTransport, error) {
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip}, BindPort: port, Logger: memberlistLogger(c.warn),
		})
		if err == nil {
			return t, nil
		}
		if port != 0 || try == listenTries || !strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("listen on %s: %w", net.JoinHostPort(ip, fmt.Sprint(port)), err)
		}
	}
}

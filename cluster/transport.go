package cluster

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gate is a transport that passes nothing on until it is opened, and then checks what
// comes in plain text; see checkmessages.go.
//
// memberlist listens before it has entered itself into its own list. If a message of a peer
// that knows the node from before a restart arrives in between, the node may enter itself as
// dead, and drop itself from the list some seconds later; memberlist v0.7.0 then panics in
// Leave and UpdateNode. So the gate stays closed until memberlist is complete.
type gate struct {
	memberlist.Transport
	opened  chan struct{}
	once    sync.Once
	keyed   bool // gossip is encrypted: packets are not checked, streams only at their beginning
	refused func(from net.Addr, why error)
	admit   func(net.Conn) error // nil: every connection is accepted

	answerKeys func(net.Conn) // nil: keys are not exchanged

	dialled troubles
	packets chan *memberlist.Packet // that were checked
	streams chan net.Conn
	done    chan struct{} // closed by Shutdown
	endOnce sync.Once
	pump    sync.WaitGroup
}

func newGate(t memberlist.Transport, keyed bool, refused func(from net.Addr, why error), admit func(net.Conn) error) *gate {
	return &gate{
		Transport: t, keyed: keyed, refused: refused, admit: admit, opened: make(chan struct{}),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{}),
	}
}

func (g *gate) open() {
	g.once.Do(func() {
		close(g.opened)
		g.pump.Go(g.look)
	})
}

// look passes on what has passed the checks. It ends with Shutdown.
func (g *gate) look() {
	for {
		select {
		case p := <-g.Transport.PacketCh():
			if err := g.checkPacket(p.Buf); err != nil {
				g.refused(p.From, err)
				continue
			}
			select {
			case g.packets <- p:
			case <-g.done:
				return
			}
		case conn := <-g.Transport.StreamCh():
			if g.admit != nil && g.admit(conn) != nil {
				_ = conn.Close()
				continue
			}
			select {
			case g.streams <- g.accepted(conn):
			case <-g.done:
				_ = conn.Close()
				return
			}
		case <-g.done:
			return
		}
	}
}

// accepted is a connection that another node has made.
func (g *gate) accepted(conn net.Conn) *plainConn {
	c := g.looked(conn, func(why error) { g.refused(conn.RemoteAddr(), why) })
	c.answerKeys = g.answerKeys
	return c
}

func (g *gate) looked(conn net.Conn, tell func(why error)) *plainConn {
	return &plainConn{Conn: conn, keyed: g.keyed, tell: tell}
}

func (g *gate) checkPacket(buf []byte) error {
	if g.keyed {
		return nil
	}
	return checkPacket(buf)
}

// PacketCh implements [memberlist.Transport]. memberlist calls it on the
// goroutine that then receives.
func (g *gate) PacketCh() <-chan *memberlist.Packet {
	<-g.opened
	return g.packets
}

// StreamCh implements [memberlist.Transport], like PacketCh.
func (g *gate) StreamCh() <-chan net.Conn {
	<-g.opened
	return g.streams
}

// DialTimeout implements [memberlist.Transport].
func (g *gate) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	g.dialled.begin(addr)
	conn, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil {
		g.dialled.note(addr, dialTrouble(err))
		return conn, err
	}
	c := g.looked(conn, func(why error) { g.dialled.note(addr, why) })
	c.mute = func(err error) {
		if why := readTrouble(err); why != nil {
			g.dialled.note(addr, why)
		}
	}
	return c, nil
}

// Shutdown implements [memberlist.Transport]. It waits for listeners that may be blocked
// handing something over, so the gate is opened first to receive it.
func (g *gate) Shutdown() error {
	g.open()
	err := g.Transport.Shutdown()
	g.end()
	return err
}

// end ends look. It is called after the transport's Shutdown, because look receives what the
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

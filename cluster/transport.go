package cluster

import (
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// gate is a transport from which nothing is heard until it is opened.
//
// memberlist listens before it has entered itself into its own list. If a peer
// that still knows the node from before a restart is heard in between, the node
// may enter itself as dead, never notice, and drop itself from the list some
// seconds later; memberlist v0.7.0 then panics in Leave and UpdateNode. So the
// gate stays closed until memberlist is complete.
type gate struct {
	memberlist.Transport
	opened chan struct{}
	once   sync.Once
}

func newGate(t memberlist.Transport) *gate {
	return &gate{Transport: t, opened: make(chan struct{})}
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// PacketCh implements [memberlist.Transport]. memberlist calls it on the
// goroutine that then receives.
func (g *gate) PacketCh() <-chan *memberlist.Packet {
	<-g.opened
	return g.Transport.PacketCh()
}

// StreamCh implements [memberlist.Transport], like PacketCh.
func (g *gate) StreamCh() <-chan net.Conn {
	<-g.opened
	return g.Transport.StreamCh()
}

// Shutdown implements [memberlist.Transport]. The listeners that it waits for
// may be handing something over, so somebody has to take it.
func (g *gate) Shutdown() error {
	g.open()
	return g.Transport.Shutdown()
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

package simnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	packetQueue = 1024
	maxPacket   = 65507 // as UDP has it
)

// Packets is a memberlist transport on one port of a host. Datagrams are lost
// with the network's faults and when 1024 wait to be read; they may overtake each
// other.
type Packets struct {
	host     *Host
	addr     *net.UDPAddr
	ch       chan *memberlist.Packet // sent to under Network.mu
	listener *listener
}

var _ memberlist.NodeAwareTransport = (*Packets)(nil)

// Packets returns a transport on a port; 0 picks one. Streams are accepted on the
// same port. A transport that could not get its port, or whose host is down,
// fails in FinalAdvertiseAddr, which memberlist calls first.
func (h *Host) Packets(port int) *Packets {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	t := &Packets{host: h, addr: &net.UDPAddr{IP: slices.Clone(h.ip), Port: port}, ch: make(chan *memberlist.Packet, packetQueue)}
	l, err := h.listenLocked(port)
	if err != nil {
		return t
	}
	t.listener, t.addr.Port = l, l.addr.Port
	h.packets[t.addr.Port] = t
	return t
}

// Gossip is Packets at "ip:port" of the host.
func (h *Host) Gossip(addr string) (memberlist.Transport, error) {
	_, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	return h.Packets(port), nil
}

// Addr returns the *net.UDPAddr of the transport.
func (t *Packets) Addr() net.Addr { return t.addr }

// FinalAdvertiseAddr returns ip and port, or the transport's own if ip is empty.
func (t *Packets) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if t.listener == nil {
		return nil, 0, fmt.Errorf("listen for packets on %v: port is in use, or host %q is down", t.addr, t.host.m.name)
	}
	if ip == "" {
		return t.addr.IP, t.addr.Port, nil
	}
	parsed := net.ParseIP(ip)
	if parsed == nil {
		return nil, 0, fmt.Errorf("advertise address %q: must be an IP address", ip)
	}
	return parsed, port, nil
}

// WriteTo sends a datagram; it does not wait.
func (t *Packets) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if err := t.send(b, addr); err != nil {
		return time.Time{}, &net.OpError{Op: "write", Net: "udp", Source: t.addr, Addr: textAddr(addr), Err: err}
	}
	return now, nil
}

func (t *Packets) send(b []byte, addr string) error {
	if len(b) > maxPacket {
		return os.NewSyscallError("sendto", syscall.EMSGSIZE)
	}
	host, port, err := splitAddr(addr)
	if err != nil {
		return err
	}
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.listener == nil || t.host.packets[t.addr.Port] != t {
		return net.ErrClosed
	}
	to, err := t.host.resolveLocked(host)
	if err != nil {
		return err
	}
	l := n.linkLocked(t.host.m, to)
	d, ok := l.delay()
	if !ok || l.lose() {
		n.stats.Dropped++
		return nil
	}
	p := &memberlist.Packet{Buf: slices.Clone(b), From: t.addr}
	if d == 0 {
		n.deliverLocked(to, port, l, p)
		return nil
	}
	time.AfterFunc(d, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.deliverLocked(to, port, l, p)
	})
	return nil
}

func (n *Network) deliverLocked(to *machine, port int, l *link, p *memberlist.Packet) {
	t := to.life.packets[port]
	if t == nil || l.isCut() {
		n.stats.Dropped++
		return
	}
	p.Timestamp = time.Now()
	select {
	case t.ch <- p:
		n.stats.Packets++
	default:
		n.stats.Dropped++
	}
}

// WriteToAddress is WriteTo; names are not needed.
func (t *Packets) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

// PacketCh returns the datagrams that arrive.
func (t *Packets) PacketCh() <-chan *memberlist.Packet { return t.ch }

// DialTimeout connects to the streams of another transport.
func (t *Packets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.host.Dial(ctx, addr)
}

// DialAddressTimeout is DialTimeout; names are not needed.
func (t *Packets) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}

// StreamCh returns the connections that arrive.
func (t *Packets) StreamCh() <-chan net.Conn {
	if t.listener == nil {
		return nil
	}
	return t.listener.backlog
}

// Shutdown gives the port back. It may be called twice.
func (t *Packets) Shutdown() error {
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	t.closeLocked()
	return nil
}

func (t *Packets) closeLocked() {
	if t.listener != nil {
		t.listener.closeLocked()
	}
	if t.host.packets[t.addr.Port] == t {
		delete(t.host.packets, t.addr.Port)
	}
}

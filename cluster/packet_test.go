package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is a transport whose packets come from the test.
type wire struct {
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	advertise func() // called whenever memberlist asks for the address
}

func newWire() *wire {
	return &wire{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
}

func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	if w.advertise != nil {
		w.advertise()
	}
	return net.IPv4(10, 0, 0, 1), 7403, nil
}
func (w *wire) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (w *wire) PacketCh() <-chan *memberlist.Packet       { return w.packets }
func (w *wire) StreamCh() <-chan net.Conn                 { return w.streams }
func (w *wire) Shutdown() error                           { return nil }
func (w *wire) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, errors.New("nobody there")
}

// alivePacket is memberlist's alive message of node-1 at 10.0.0.2:7403.
func alivePacket(meta []byte) []byte { return alivePacketOf("node-1", meta) }

func alivePacketOf(name string, meta []byte) []byte {
	p := append([]byte{4}, "\x86\xabIncarnation\x01\xa4Node"+string([]byte{0xa0 + byte(len(name))})+name+"\xa4Addr\xa4\x0a\x00\x00\x02\xa4Port\xcd\x1c\xeb\xa4Meta\xda"...)
	p = append(p, byte(len(meta)>>8), byte(len(meta)))
	p = append(p, meta...)
	return append(p, "\xa3Vsn\xa6\x01\x05\x02\x01\x01\x01"...)
}

// The seed of the fuzzer has to be a packet that works, or it tests nothing.
func TestAlivePacketMakesAPeer(t *testing.T) {
	meta, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire()
	c, err := Start(Config{Meta: Meta{NodeID: "self"}, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	w.packets <- &memberlist.Packet{Buf: alivePacket(meta), From: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7403}, Timestamp: time.Now()}
	peers := await(t, c, "node-1", inState(Alive, "node-1"))
	if got := peers["node-1"]; got.Meta != fullMeta() || got.Gossip != "10.0.0.2:7403" {
		t.Errorf("peer is %+v", got)
	}
}

// The last time that memberlist asks for the address is when it is about to enter
// itself into its list; it listens already then. See gate.
func TestNothingIsHeardBeforeTheNodeKnowsItself(t *testing.T) {
	meta, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire()
	asked := 0
	w.advertise = func() {
		asked++
		select {
		case w.packets <- &memberlist.Packet{Buf: alivePacket(meta), From: &net.UDPAddr{}, Timestamp: time.Now()}:
			t.Error("a packet was taken before the node was complete")
		case w.streams <- nil:
			t.Error("a connection was taken before the node was complete")
		case <-time.After(20 * time.Millisecond):
		}
	}
	c, err := Start(Config{Meta: Meta{NodeID: "node-1"}, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if asked < 2 {
		t.Errorf("memberlist asked %d times for its address: this test rests on two", asked)
	}
}

func TestFailedStartFreesThePort(t *testing.T) {
	a := start(t, "a", nil)
	if c, err := Start(Config{Meta: Meta{NodeID: "b"}, Bind: a.Addr()}); err == nil {
		_ = c.Close()
		t.Fatal("two nodes on one port")
	}
	addr := a.Addr()
	crash(a)
	l, err := Listen(addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Start(Config{Meta: Meta{NodeID: "b\x00"}, Listener: l}); err == nil {
		_ = c.Close()
		t.Fatal("started under a name that is no text")
	}
	if l, err = Listen(addr, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, "b", func(cfg *Config) { cfg.Bind = addr })
}

func TestGossipBeginsWhenTheAdvertisedNameHasAnAddress(t *testing.T) {
	var known atomic.Bool
	var log logBuffer
	waiting := func(cfg *Config) {
		cfg.Advertise, cfg.Logger = "soon.example", log.logger()
		cfg.LookupHost = func(_ context.Context, host string) ([]string, error) {
			if host != "soon.example" || !known.Load() {
				return nil, errors.New("no such host")
			}
			return []string{"127.0.0.1"}, nil
		}
	}
	a := start(t, "a", nil)
	c := start(t, "c", func(cfg *Config) { waiting(cfg); seeds(a)(cfg) })
	if hint := c.Hint(); !strings.Contains(hint, `"soon.example": no such host`) || c.Addr() != "soon.example" {
		t.Errorf("it says %q, and its address is %s", hint, c.Addr())
	}
	if log.count("the advertised name has no address yet") != 1 {
		t.Error("the log does not say so, once")
	}
	if c.Settled() || len(a.Peers()) > 0 {
		t.Error("it has no address, and has told others")
	}
	m := c.Meta()
	m.Zone = "z"
	if err := c.SetMeta(m); err != nil {
		t.Fatal(err)
	}
	known.Store(true)
	peers := await(t, a, "c", inState(Alive, "c"))
	// The others may hear of it before its own goroutine has noted that it has begun.
	for end := time.Now().Add(time.Minute); c.Hint() != "" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if peers["c"].Zone != "z" || peers["c"].Gossip != c.Addr() || c.Hint() != "" {
		t.Errorf("a sees %+v; c is at %s and says %q", peers["c"], c.Addr(), c.Hint())
	}
	await(t, c, "a", inState(Alive, "a"))

	known.Store(false)
	addr := c.Addr()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, "c", func(cfg *Config) { waiting(cfg); cfg.Bind = addr })
	if err := again.Leave(t.Context()); err != nil {
		t.Errorf("a node that nobody has heard of leaves: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, "d", func(cfg *Config) { cfg.Bind = addr }) // the port is free
}

// Also while somebody sends to it.
func TestAbandonedTransportFreesThePort(t *testing.T) {
	c := &Cluster{warn: newWarner(slog.New(slog.DiscardHandler))}
	bound, err := listen("127.0.0.1", 0, c.warn)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", bound.GetAutoBindPort())
	for range 3 {
		if _, err := bound.WriteTo([]byte{1, 2, 3}, addr); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	newGate(bound, false, nil, nil).abandon()
	start(t, "b", func(cfg *Config) { cfg.Bind = addr })
}

func TestAdvertisedAddressIsWhatPeersSee(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", func(cfg *Config) {
		seeds(a)(cfg)
		cfg.Bind, cfg.Advertise = "0.0.0.0:0", "127.0.0.1"
	})
	peers := await(t, a, "b", inState(Alive, "b"))
	if got := peers["b"].Gossip; got != b.Addr() || !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("a sees b at %s, b says %s", got, b.Addr())
	}
}

func TestDaemonNoiseIsLoggedOnce(t *testing.T) {
	var buf logBuffer
	w := newWarner(buf.logger())
	l := memberlistLogger(w)
	for i := range 20 {
		l.Printf("[ERR] memberlist: Failed to send ping: attempt %d", i)
		l.Printf("[WARN] memberlist: Was able to connect to n%d but other probes failed", i)
		l.Printf("[ERR] memberlist: Conflicting address for n1. Mine: a Theirs: b")
	}
	if n := buf.count("level="); n != 1 {
		t.Errorf("%d lines:\n%s", n, &buf.buf)
	}
	w.closed.Store(true)
	l.Print("[ERR] memberlist: Failed to do something else: socket is closed")
	if n := buf.count("something else"); n != 0 {
		t.Error("complains of its own end")
	}
	for i := range 3 * maxCauses {
		w.once(fmt.Sprint(i), strings.Repeat("x", 3))
	}
	if len(w.said) > maxCauses {
		t.Errorf("remembers %d causes", len(w.said))
	}
}

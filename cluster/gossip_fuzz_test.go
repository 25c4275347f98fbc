package cluster

import (
	"io"
	"log/slog"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

// listener is a node that hears only what the test says.
type listener struct {
	*Cluster
	wire *wire
}

func startListener(t testing.TB) *listener {
	t.Helper()
	w := newWire()
	c, err := Start(Config{Meta: Meta{NodeID: "self"}, Transport: w, Logger: slog.New(slog.DiscardHandler), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	return &listener{c, w}
}

func (l *listener) packet(data []byte) {
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 7403}
	l.wire.packets <- &memberlist.Packet{Buf: data, From: from, Timestamp: time.Now()}
}

// stream returns what is answered when the other side is done.
func (l *listener) stream(data []byte) []byte {
	ours, theirs := fuzz.Pipe()
	l.wire.streams <- theirs
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = ours.Write(data)
		_ = ours.CloseWrite()
	})
	answer, _ := io.ReadAll(ours)
	_ = ours.Close()
	wg.Wait()
	return answer
}

// settle waits until everything that came before has been taken in, and sees
// that a good peer is still heard.
func (l *listener) settle(t *testing.T) {
	t.Helper()
	const last = "the last one"
	m := fullMeta()
	m.NodeID = last
	meta, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	l.packet(alivePacketOf(last, meta))
	for {
		changes := l.Changes()
		if _, ok := l.Peer(last); ok {
			return
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatal("a good peer is not heard any more")
		}
	}
}

// check sees that what was taken for a peer is one.
func (l *listener) check(t *testing.T) {
	t.Helper()
	all := l.Peers()
	if len(all) > maxAlive+maxGone {
		t.Errorf("%d peers", len(all))
	}
	for _, p := range all {
		if err := p.check(); err != nil || p.NodeID == "self" {
			t.Errorf("took %+v for a peer: %v", p, err)
		}
		if _, _, err := net.SplitHostPort(p.Gossip); err != nil {
			t.Errorf("peer %q is at %q: %v", p.NodeID, p.Gossip, err)
		}
	}
	if m := l.Meta(); m.NodeID != "self" {
		t.Errorf("the node calls itself %q", m.NodeID)
	}
}

// FuzzPacket feeds datagrams through memberlist into the delegates. Whatever
// comes, the node lives on, hears a good peer, takes nothing for a peer that is
// none, and needs no more memory than a multiple of what was sent.
func FuzzPacket(f *testing.F) {
	meta, err := fullMeta().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add([]byte{4, 0x80})
	f.Add(alivePacket(meta))
	f.Add(alivePacket(meta[:20]))
	f.Add(alivePacketOf("self", meta))
	f.Add([]byte("\xf4\x05label\x04"))
	f.Add([]byte("\x03\x83\xabIncarnation\x01\xa4Node\xa4self\xa4From\xa6node-1"))                                 // suspect us
	f.Add([]byte("\x05\x83\xabIncarnation\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4Node\xa4self\xa4From\xa6node-1")) // we are dead
	f.Add([]byte("\x05\x81\xa1x" + hugeExtension))
	f.Add(append([]byte{7, 2, 0, 2, 0, byte(len(alivePacket(meta)))}, append([]byte{8, 'x'}, alivePacket(meta)...)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		l := startListener(t)
		defer crash(l.Cluster)
		if n := fuzz.Allocated(func() { l.packet(data); l.settle(t) }); n > gossipBound+300*uint64(len(data)) {
			t.Errorf("%d bytes allocated for a packet of %d", n, len(data))
		}
		l.check(t)
	})
}

// FuzzFalseWord says something false about a peer that is there, with an incarnation, an
// address and a name near the true ones. Once the peer has answered with the next
// incarnation, everything has to be as it was.
func FuzzFalseWord(f *testing.F) {
	const (
		leaving = 1 << iota
		nonvoter
		otherAPI
		otherRaft
		otherCluster
		elsewhere
		fromItself
		aboutUs
	)
	now := uint32(maxIncarnation(time.Now()))
	for _, incarnation := range []uint32{0, 1, 2, 1 << 20, now - 10, now + 100, 1 << 31, math.MaxUint32 - 1, math.MaxUint32} {
		f.Add(byte(msgDead), incarnation, byte(fromItself), "")
		f.Add(byte(msgSuspect), incarnation, byte(0), "")
		f.Add(byte(msgAlive), incarnation, byte(leaving|nonvoter), "")
		f.Add(byte(msgAlive), incarnation, byte(otherAPI|otherRaft), "10.0.0.9:7400")
		f.Add(byte(msgAlive), incarnation, byte(elsewhere|otherCluster), "other")
		f.Add(byte(msgAlive), incarnation, byte(aboutUs), "")
	}
	f.Fuzz(func(t *testing.T, kind byte, incarnation uint32, what byte, text string) {
		defer fuzz.Watch()()
		l := startListener(t)
		defer crash(l.Cluster)
		is := func(flag byte) bool { return what&flag != 0 }
		truth, here, id := fullMeta(), net.IPv4(10, 0, 0, 2), "node-1"
		truth.Leaving = false
		l.SetMembers([]string{id, "self"})
		l.packet(claim(id, here, 7403, encoded(t, truth), 1))
		l.settle(t)
		lie, at := truth, here
		if is(aboutUs) {
			id, lie.NodeID = "self", "self"
		}
		lie.Leaving, lie.Nonvoter = is(leaving), is(nonvoter)
		if is(otherAPI) {
			lie.API = text
		}
		if is(otherRaft) {
			lie.Raft = text
		}
		if is(otherCluster) {
			lie.ClusterID = text
		}
		if is(elsewhere) {
			at = net.IPv4(10, 0, 0, 9)
		}
		from := "node-2"
		if is(fromItself) {
			from = id
		}
		packet := accusation(kind, id, from, incarnation)
		if meta, err := lie.encode(); kind == msgAlive && err == nil {
			packet = claim(id, at, 7403, meta, incarnation)
		}
		changes := l.Changes()
		l.packet(packet)
		select { // it is taken in beside this
		case <-changes:
		case <-time.After(time.Millisecond):
		}
		answer := uint32(2)
		if uint64(incarnation) < maxIncarnation(time.Now()) {
			answer = max(answer, incarnation+1)
		}
		asItWas := func() bool {
			p, ok := l.Peer("node-1")
			return ok && p.State == Alive && p.Meta == truth && p.Gossip == "10.0.0.2:7403"
		}
		for tries := 0; !asItWas(); tries++ { // memberlist takes packets in out of order
			if tries > 1000 {
				p, _ := l.Peer("node-1")
				t.Fatalf("after %q the peer is %+v", packet, p)
			}
			changes := l.Changes()
			l.packet(accusation(msgDead, "node-1", "node-2", answer-1)) // as who probes it at a false address says
			l.packet(claim("node-1", here, 7403, encoded(t, truth), answer))
			select {
			case <-changes:
			case <-time.After(time.Millisecond):
			}
		}
		l.check(t)
	})
}

// gossipBound is what any message may make a node allocate.
const gossipBound = 4 << 20

// pushPull is the stream on which memberlist exchanges its whole list, with one
// node in it.
func pushPull(name string, meta []byte, state byte) []byte {
	p := append([]byte{6}, "\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3"...)
	p = append(p, "\x87\xa4Name"...)
	p = append(append(p, 0xa0+byte(len(name))), name...)
	p = append(p, "\xa4Addr\xa4\x0a\x00\x00\x02\xa4Port\xcd\x1c\xeb\xabIncarnation\x01\xa5State"...)
	p = append(p, state)
	p = append(p, "\xa3Vsn\xa6\x01\x05\x02\x01\x01\x01\xa4Meta\xda"...)
	return append(append(p, byte(len(meta)>>8), byte(len(meta))), meta...)
}

// FuzzGossipStream does the same with connections.
func FuzzGossipStream(f *testing.F) {
	meta, err := fullMeta().encode()
	if err != nil {
		f.Fatal(err)
	}
	for state := range byte(4) {
		f.Add(pushPull("node-1", meta, state))
	}
	f.Add(pushPull("self", meta, 0))
	f.Add(pushPull("node-1", meta[:20], 0))
	f.Add([]byte("\x06\x83\xa5Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\x00\xa4Join\xc3"))
	f.Add([]byte("\x06\x83\xa5Nodes\x00\xacUserStateLen\xce\x01\x00\x00\x00\xa4Join\xc3"))
	f.Add([]byte("\x08\x81\xaaUserMsgLen\x03abc"))
	f.Add([]byte("\x00\x82\xa5SeqNo\x01\xa4Node\xa4self"))
	f.Add([]byte("\x0a\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		l := startListener(t)
		defer crash(l.Cluster)
		if n := fuzz.Allocated(func() { l.stream(data) }); n > gossipBound+300*uint64(len(data)) {
			t.Errorf("%d bytes allocated for a stream of %d", n, len(data))
		}
		l.settle(t)
		l.check(t)
	})
}

// The seeds have to be what memberlist understands, or they test nothing.
func TestPushPullMakesAPeer(t *testing.T) {
	meta, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	l := startListener(t)
	defer crash(l.Cluster)
	answer := l.stream(pushPull("node-1", meta, 0))
	if p, ok := l.Peer("node-1"); !ok || p.Meta != fullMeta() || len(answer) == 0 {
		t.Errorf("peer is %+v, answered %q", p, answer)
	}
}

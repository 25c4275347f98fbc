package node

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/membership"
)

// Datagrams of a stranger that can reach the gossip ports of a cluster without a key. They
// are built here by hand, because package cluster never sends them.

// falseMeta returns the meta of a member with other flags and addresses; see the encoding in
// package cluster.
func falseMeta(n *Node, flags byte, api, raftAddr string) []byte {
	buf := []byte{1, flags, 3, 1}
	for _, s := range []string{n.ID(), n.clusterID(), api, "", raftAddr, "v", "", "", ""} {
		buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
	}
	return buf
}

const (
	metaNonvoter = 1
	metaFormed   = 2
	metaLeaving  = 4
)

func packetAlive(name, gossip string, meta []byte, incarnation uint32) []byte {
	host, port, _ := net.SplitHostPort(gossip)
	number, _ := strconv.Atoi(port)
	p := append([]byte{4}, "\x86\xabIncarnation\xce"...)
	p = binary.BigEndian.AppendUint32(p, incarnation)
	p = append(append(append(p, "\xa4Node"...), 0xa0+byte(len(name))), name...)
	p = append(append(append(p, "\xa4Addr\xa4"...), net.ParseIP(host).To4()...), "\xa4Port\xcd"...)
	p = binary.BigEndian.AppendUint16(p, uint16(number)) //nolint:gosec // a port
	p = append(append(p, "\xa4Meta\xda"...), byte(len(meta)>>8), byte(len(meta)))
	return append(append(p, meta...), "\xa3Vsn\xa6\x01\x05\x02\x01\x01\x01"...)
}

func packetDead(name, from string, incarnation uint32) []byte {
	p := binary.BigEndian.AppendUint32(append([]byte{5}, "\x83\xabIncarnation\xce"...), incarnation)
	p = append(append(append(p, "\xa4Node"...), 0xa0+byte(len(name))), name...)
	return append(append(append(p, "\xa4From"...), 0xa0+byte(len(from))), from...)
}

// configurations counts the configurations in a node's log, which still has all entries.
func configurations(t *testing.T, n *Node) (count int) {
	t.Helper()
	last, err := n.stores.Log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := n.stores.Log.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if l.Type == raft.LogConfiguration {
			count++
		}
	}
	return count
}

// No such datagram changes a cluster of three: neither with an incarnation that memberlist
// would have to answer with 0, nor with one that is accepted.
func TestDatagramsLeaveTheClusterAsItWas(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	before, changes := membership.Servers(leader.raft.Load()), configurations(t, leader)
	held, err := c.client(leader).Lock(c.ctx(), "held")
	if err != nil {
		t.Fatal(err)
	}
	liar, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	lies := liar.Addr().String()
	send := func(packets ...[]byte) {
		for _, n := range c.nodes {
			conn, err := net.Dial("udp", n.GossipAddr())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range packets {
				_, _ = conn.Write(p)
				time.Sleep(5 * time.Millisecond) // memberlist handles the last one first
			}
			_ = conn.Close()
		}
	}
	for _, incarnation := range []uint32{1 << 20, math.MaxUint32} {
		for i, victim := range c.nodes {
			id, at := victim.ID(), victim.GossipAddr()
			inc := incarnation
			if inc == 1<<20 {
				inc += uint32(100 * i)
			}
			own := func(flags byte) []byte { return falseMeta(victim, flags, victim.APIAddr(), victim.RaftAddr()) }
			send(packetAlive(id, at, own(metaFormed|metaLeaving), inc), packetDead(id, id, inc))                       // leaves
			send(packetAlive(id, at, own(metaFormed|metaNonvoter), inc+10))                                            // wants no vote
			send(packetAlive(id, at, falseMeta(victim, metaFormed, lies, victim.RaftAddr()), inc+20))                  // a false API
			send(packetAlive(id, at, falseMeta(victim, metaFormed, victim.APIAddr(), lies), inc+30))                   // false addresses of Raft
			send(packetDead(id, id, inc+40), packetAlive(id, lies, falseMeta(victim, metaFormed, lies, lies), inc+41)) // is elsewhere
			send(packetDead(id, "x", inc+50))                                                                          // is dead
		}
	}
	for i := range 256 {
		id := fmt.Sprintf("made-up-%d", i)
		meta := []byte{1, metaFormed, 3, 1}
		for _, s := range []string{id, leader.clusterID(), lies, "", lies, "v", "", "", ""} {
			meta = append(binary.AppendUvarint(meta, uint64(len(s))), s...)
		}
		for _, n := range c.nodes {
			conn, err := net.Dial("udp", n.GossipAddr())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(packetAlive(id, lies, meta, 1))
			_ = conn.Close()
		}
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, n := range c.nodes {
			if got := membership.Servers(n.raft.Load()); !slices.Equal(got, before) {
				t.Fatalf("the configuration is %v, and was %v", got, before)
			}
			for _, m := range n.directory().GetMembers() {
				if m.GetApiAddress() == lies {
					t.Fatalf("%s names to clients %s at %s", n.ID(), m.GetId(), lies)
				}
			}
			if api := n.leaderAPI(); api == lies {
				t.Fatalf("%s looks for the leader at %s", n.ID(), lies)
			}
			if err := n.Err(); err != nil {
				t.Fatalf("%s has ended: %v", n.ID(), err)
			}
		}
	}
	if got := configurations(t, leader); got != changes { // also those that were changed and changed back
		t.Errorf("the log has %d configurations, and had %d", got, changes)
	}
	c.leader() // on a busy machine it may be another one
	for _, n := range c.nodes {
		if ok, err := c.client(n).IsLocked(c.ctx(), "held"); err != nil || !ok {
			t.Errorf("through %s: locked %v, %v", n.ID(), ok, err)
		}
		if _, err := c.client(n).TryLock(c.ctx(), "held"); err == nil {
			t.Errorf("through %s: held twice", n.ID())
		}
	}
	if err := held.Unlock(); err != nil {
		t.Error(err)
	}
	c.eventually("gossip has corrected all of it", func() bool {
		for _, n := range c.nodes {
			for _, other := range c.nodes {
				if p, ok := n.cluster.Peer(other.ID()); other != n && (!ok || p.State.String() != "alive" || p.API != other.APIAddr() || p.Leaving) {
					return false
				}
			}
		}
		return true
	})
}

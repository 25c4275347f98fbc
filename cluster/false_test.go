package cluster

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"
)

// What somebody sends who may send to the gossip port and is no node: false words about
// nodes that are there.

// accusation is memberlist's message that a node is suspected (3) or dead (5).
func accusation(kind byte, node, from string, incarnation uint32) []byte {
	p := append([]byte{kind}, "\x83\xabIncarnation\xce"...)
	p = binary.BigEndian.AppendUint32(p, incarnation)
	p = append(append(p, "\xa4Node"...), 0xa0+byte(len(node)))
	p = append(append(p, node...), "\xa4From"...)
	return append(append(p, 0xa0+byte(len(from))), from...)
}

// claim is memberlist's message that a node is alive at an address, with a meta.
func claim(node string, ip net.IP, port uint16, meta []byte, incarnation uint32) []byte {
	p := append([]byte{4}, "\x86\xabIncarnation\xce"...)
	p = binary.BigEndian.AppendUint32(p, incarnation)
	p = append(append(append(p, "\xa4Node"...), 0xa0+byte(len(node))), node...)
	p = append(append(append(p, "\xa4Addr\xa4"...), ip.To4()...), "\xa4Port\xcd"...)
	p = binary.BigEndian.AppendUint16(p, port)
	p = append(append(p, "\xa4Meta\xda"...), byte(len(meta)>>8), byte(len(meta)))
	p = append(p, meta...)
	return append(p, "\xa3Vsn\xa6\x01\x05\x02\x01\x01\x01"...)
}

func encoded(t testing.TB, m Meta) []byte {
	t.Helper()
	buf, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return buf
}

// datagrams sends some.
func datagrams(t testing.TB, to string) func(packet []byte) {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(packet []byte) {
		if _, err := conn.Write(packet); err != nil {
			t.Error(err)
		}
	}
}

func TestAbsurdIncarnationsAreDropped(t *testing.T) {
	meta := encoded(t, fullMeta())
	now := maxIncarnation(time.Now())
	for _, incarnation := range []uint32{1, 57, 1 << 20, uint32(now) - 1, uint32(now) + 3600, 1 << 31, math.MaxUint32} {
		packets := map[string][]byte{
			"suspect": accusation(msgSuspect, "node-1", "node-2", incarnation),
			"dead":    accusation(msgDead, "node-1", "node-2", incarnation),
			"left":    accusation(msgDead, "node-1", "node-1", incarnation),
			"alive":   claim("node-1", net.IPv4(10, 0, 0, 2), 7403, meta, incarnation),
		}
		alone := packets["dead"]
		packets["with a checksum"] = append([]byte{msgCRC, 0, 0, 0, 0}, alone...)
		packets["with a label"] = append([]byte("\xf4\x05label"), alone...)
		packets["second of two"] = append([]byte{msgCompound, 2, 0, 2, 0, byte(len(alone)), 0, 0x80}, alone...)
		packets["64 bits"] = append([]byte{msgDead}, append([]byte("\x81\xabIncarnation\xcf\x00\x00\x00\x00"), binary.BigEndian.AppendUint32(nil, incarnation)...)...)
		for name, p := range packets {
			if err := checkPacket(p); (err == nil) != (uint64(incarnation) <= now) {
				t.Errorf("%s with incarnation %d: %v, and up to %d is accepted", name, incarnation, err, now)
			}
		}
		list := []byte("\x06\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3\x81\xabIncarnation\xce")
		conn := &plainConn{tell: func(error) {}}
		if err := conn.look(binary.BigEndian.AppendUint32(list, incarnation)); (err == nil) != (uint64(incarnation) <= now) {
			t.Errorf("in an exchange, incarnation %d: %v", incarnation, err)
		}
	}
	if err := checkPacket([]byte("\x02\x81\xa5SeqNo\xce\xff\xff\xff\xff")); err != nil {
		t.Errorf("the number of a ping is no incarnation: %v", err)
	}
}

// A node that has accepted a false number accepts the answer to it a second later, and there is
// an answer for a hundred years.
func TestThereIsAlwaysAHigherIncarnation(t *testing.T) {
	for _, now := range []time.Time{{}, time.Unix(0, 0), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if n := maxIncarnation(now); n < 1<<20 || n >= math.MaxUint32 {
			t.Errorf("up to %d is accepted in %d", n, now.Year())
		}
		if later := now.Add(time.Second); now.Year() > 2000 && maxIncarnation(later) != maxIncarnation(now)+1 {
			t.Errorf("the answer to %d is not accepted in %v", maxIncarnation(now), later)
		}
	}
	if n := maxIncarnation(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)); n >= math.MaxUint32 {
		t.Errorf("%d is accepted, and the next one is 0", n)
	}
}

// Three nodes, and datagrams that say of one of them that it is dead, has left, is
// somewhere else: each is corrected.
func TestFalseWordsAboutAPeerAreCorrected(t *testing.T) {
	t.Parallel()
	a := start(t, "a", nil)
	b := start(t, "b", seeds(a))
	c := start(t, "c", seeds(a))
	all := []*Cluster{a, b, c}
	for _, n := range all {
		n.SetMembers([]string{"a", "b", "c"})
	}
	await(t, a, "all", inState(Alive, "b", "c"))
	await(t, c, "all", inState(Alive, "a", "b"))
	truth := b.Meta()
	lie := truth
	lie.Leaving, lie.Nonvoter, lie.API, lie.Raft = true, true, "127.0.0.1:1", "127.0.0.1:2"
	_, port, _ := net.SplitHostPort(b.Addr())
	var own int
	_, _ = fmt.Sscan(port, &own)
	here := net.IPv4(127, 0, 0, 1)
	for name, words := range map[string]func(incarnation uint32) [][]byte{
		"dead":         func(i uint32) [][]byte { return [][]byte{accusation(msgDead, "b", "a", i)} },
		"left":         func(i uint32) [][]byte { return [][]byte{accusation(msgDead, "b", "b", i)} },
		"suspect":      func(i uint32) [][]byte { return [][]byte{accusation(msgSuspect, "b", "a", i)} },
		"another meta": func(i uint32) [][]byte { return [][]byte{claim("b", here, uint16(own), encoded(t, lie), i)} },
		"leaves": func(i uint32) [][]byte {
			return [][]byte{claim("b", here, uint16(own), encoded(t, lie), i), accusation(msgDead, "b", "b", i)}
		},
		"is somewhere": func(i uint32) [][]byte {
			return [][]byte{accusation(msgDead, "b", "b", i), claim("b", here, 9, encoded(t, lie), i+1)}
		},
		"another cluster": func(i uint32) [][]byte {
			m := lie
			m.ClusterID = "other"
			return [][]byte{claim("b", here, uint16(own), encoded(t, m), i)}
		},
	} {
		for _, incarnation := range []uint32{1000, uint32(maxIncarnation(time.Now())) - 1, math.MaxUint32} {
			for _, n := range []*Cluster{a, c} {
				send := datagrams(t, n.Addr())
				for _, p := range words(incarnation) {
					send(p)
					time.Sleep(20 * time.Millisecond) // they are taken in the other way round otherwise
				}
			}
			for _, n := range []*Cluster{a, c} {
				await(t, n, fmt.Sprintf("b as it is, after %q with %d", name, incarnation), func(peers map[string]Peer) bool {
					p := peers["b"]
					return p.State == Alive && p.Meta == truth && p.Gossip == b.Addr()
				})
			}
		}
	}
}

func TestMadeUpPeersDoNotCrowdOutMembers(t *testing.T) {
	var log logBuffer
	c := start(t, "self", func(cfg *Config) {
		cfg.Logger, cfg.Seeds = log.logger(), []string{"10.0.0.7:7403"}
	})
	c.circle.give("10.0.0.7:7403", []string{"10.0.0.7:7403"})
	flood := func(n int) (taken int) {
		for i := range n {
			p := memberNode(t, fresh(fmt.Sprintf("made-up-%05d", i), 3), "10.9.0.1", 1)
			if c.delegate.NotifyAlive(p) == nil {
				c.delegate.NotifyJoin(p)
				taken++
			}
		}
		return taken
	}
	if n := flood(1000); n != maxAlive {
		t.Errorf("%d made-up peers are taken in", n)
	}
	// Before the cluster has formed: who is at the address of a seed.
	founder := memberNode(t, fresh("founder", 3), "10.0.0.7", 7403)
	if err := c.delegate.NotifyAlive(founder); err != nil {
		t.Errorf("a founder at the address of a seed: %v", err)
	}
	c.delegate.NotifyJoin(founder)
	if c.delegate.NotifyAlive(memberNode(t, fresh("another", 3), "10.0.0.7", 7403)) == nil {
		t.Error("any number of made-up peers is taken in at the address of a seed")
	}
	// After that: members.
	c.SetMembers([]string{"self", "founder", "m1", "m2"})
	for _, id := range []string{"m1", "m2"} {
		m := memberNode(t, fresh(id, 3), "10.0.0.8", 7403)
		if err := c.delegate.NotifyAlive(m); err != nil {
			t.Errorf("member %s: %v", id, err)
		}
		c.delegate.NotifyJoin(m)
		c.delegate.NotifyLeave(m)
	}
	for i := range 2 * maxGone {
		p := memberNode(t, fresh(fmt.Sprintf("gone-%05d", i), 3), "10.9.0.2", 1)
		c.table.alive(p)
		c.delegate.NotifyLeave(p)
	}
	for _, id := range []string{"m1", "m2"} {
		if p, ok := c.Peer(id); !ok || p.State != Failed {
			t.Errorf("member %s, which failed, is forgotten: %+v", id, p)
		}
	}
	// The members are looked for before the others.
	for range 20 {
		if targets := strings.Join(c.targets(false), " "); !strings.Contains(targets, "10.0.0.8:7403") {
			t.Fatalf("the lost members are not looked for: %s", targets)
		}
	}
	fresh := start(t, "other", nil)
	fresh.SetMembers([]string{"self", "other"})
	taken := 0
	for i := range 1000 {
		p := memberNode(t, Meta{NodeID: fmt.Sprint("x", i)}, "10.9.0.3", 1)
		if fresh.delegate.NotifyAlive(p) == nil {
			fresh.delegate.NotifyJoin(p)
			taken++
		}
	}
	if taken != maxOthers {
		t.Errorf("a member takes in %d peers that are none", taken)
	}
}

// Names that strangers think up are not a line of the log each.
func TestAFloodOfNamesIsAFewLines(t *testing.T) {
	var log logBuffer
	c := start(t, "self", func(cfg *Config) { cfg.Logger, cfg.Meta.ClusterID = log.logger(), "ours" })
	for i := range 5000 {
		bad := memberNode(t, fresh(fmt.Sprint("bad", i), 3), "10.9.0.1", 1)
		bad.Meta = bad.Meta[:3]
		_ = c.delegate.NotifyAlive(bad)
		other := fresh(fmt.Sprint("other", i), 3)
		other.ClusterID = fmt.Sprint("cluster", i)
		_ = c.delegate.NotifyAlive(memberNode(t, other, "10.9.0.1", 1))
		named := memberNode(t, fresh(fmt.Sprint("name", i), 3), "10.9.0.1", 1)
		named.Name = fmt.Sprint("else", i)
		_ = c.delegate.NotifyAlive(named)
		peer, claims := memberNode(t, fresh(fmt.Sprint("p", i), 3), "10.9.0.1", 1), memberNode(t, fresh(fmt.Sprint("p", i), 3), "10.9.0.2", 1)
		c.delegate.NotifyConflict(peer, claims)
		memberlistLogger(c.warn).Printf("[ERR] memberlist: discarding packet with unacceptable label %q: from=10.9.0.1:%d", fmt.Sprint("l", i), i)
		c.warn.refused(fmt.Sprint("10.9.0.1:", i), tooHigh(uint64(i), 1))
	}
	if n := log.count("level=WARN"); n > 5*maxOfKind+1 {
		t.Errorf("%d lines", n)
	}
	if n := log.count("no more of this kind are logged"); n != 5 {
		t.Errorf("%d lines say that there are more, want one for each of 5 kinds", n)
	}
}

package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/locknode/locknode/internal/proof/simnet"
)

// misleadEvery is how often false gossip is sent.
const misleadEvery = 500 * time.Millisecond

// Mislead lets a stranger send datagrams to the gossip port of every node until the cluster is
// closed. They claim about one node after the other what would end a cluster that trusts
// gossip: that it leaves, is a nonvoter, has other API and Raft addresses, is dead. It may be
// called once, and not together with Intrude.
func (c *Cluster) Mislead() {
	c.startStranger(func(ctx context.Context, host *simnet.Host) {
		c.strangers.Go(func() { c.mislead(ctx, host.Packets(0), net.JoinHostPort(host.IP().String(), raftPort)) })
	})
}

// Misled says what of the false words any node that runs has taken for true: it knows other
// members than those that there were from the beginning, or one at another address, or leads
// clients elsewhere.
func (c *Cluster) Misled(ctx context.Context) (wrong []error) {
	for _, m := range c.nodes {
		n := m.running()
		if n == nil {
			wrong = append(wrong, fmt.Errorf("node %q does not run", m.name))
			continue
		}
		asked := m.asClientsAsk(n)
		res, err := asked.Members(ctx)
		s, failed := asked.Status(ctx)
		if err = errors.Join(err, failed); err != nil {
			wrong = append(wrong, fmt.Errorf("node %q: %w", m.name, err))
			continue
		}
		if !s.GetReady() {
			wrong = append(wrong, fmt.Errorf("node %q is not ready: %s", m.name, s.GetNotReadyReason()))
		}
		voters := 0
		for _, o := range res.GetMembers() {
			if o.GetRole() == "voter" || o.GetRole() == "leader" {
				voters++
			}
			if !c.isNode(o.GetId()) {
				wrong = append(wrong, fmt.Errorf("node %q knows a member %q, which there never was", m.name, o.GetId()))
			} else if at := c.address(o.GetId(), 7402); o.GetRaftAddress() != at {
				wrong = append(wrong, fmt.Errorf("node %q has %q at %s, and it is at %s", m.name, o.GetId(), o.GetRaftAddress(), at))
			}
		}
		if voters != len(c.nodes) {
			wrong = append(wrong, fmt.Errorf("node %q knows %d voters of %d: %v", m.name, voters, len(c.nodes), res.GetMembers()))
		}
		for _, p := range s.GetDirectory().GetMembers() {
			if !c.isNode(p.GetId()) {
				wrong = append(wrong, fmt.Errorf("node %q leads clients to %q, which there never was", m.name, p.GetId()))
			} else if at := c.address(p.GetId(), apiPort); p.GetApiAddress() != at {
				wrong = append(wrong, fmt.Errorf("node %q leads clients of %q to %q, and it is at %s", m.name, p.GetId(), p.GetApiAddress(), at))
			}
		}
	}
	return wrong
}

func (c *Cluster) mislead(ctx context.Context, from *simnet.Packets, lie string) {
	defer func() { _ = from.Shutdown() }()
	for i := uint32(0); ctx.Err() == nil; i++ {
		n := len(c.nodes)
		victim := c.nodes[int(i)%n].name
		for _, p := range falseWords(victim, c.identity().ID, c.address(victim, gossipPort), c.address(victim, apiPort), lie, 10*(i+1), int(i)/n) {
			for _, m := range c.nodes {
				_, _ = from.WriteTo(p, c.address(m.name, gossipPort))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(misleadEvery):
		}
	}
}

// falseWords are datagrams of memberlist with a meta as package cluster encodes it. Each is
// the last word for another turn: what comes before it is heard, and counts for a moment.
func falseWords(name, cluster, gossip, api, lie string, incarnation uint32, turn int) [][]byte {
	const nonvoter, formed, leaving = 1, 2, 4
	meta := func(flags byte, api string) []byte {
		buf := []byte{1, flags, 3, 1}
		for _, s := range []string{name, cluster, api, "", lie, "v", "", "", ""} {
			buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
		}
		return buf
	}
	text := func(p []byte, key, value string) []byte {
		p = append(append(p, 0xa0+byte(len(key))), key...)
		return append(append(p, 0xa0+byte(len(value))), value...)
	}
	number := func(p []byte, key string, value uint32) []byte {
		p = append(append(p, 0xa0+byte(len(key))), key...)
		return binary.BigEndian.AppendUint32(append(p, 0xce), value)
	}
	alive := func(at string, meta []byte, incarnation uint32) []byte {
		host, portText, _ := net.SplitHostPort(at)
		port, _ := strconv.Atoi(portText)
		p := number([]byte{4, 0x86}, "Incarnation", incarnation)
		p = text(p, "Node", name)
		p = text(p, "Addr", string(net.ParseIP(host).To4()))
		p = number(p, "Port", uint32(port)) //nolint:gosec // a port
		p = append(append(p, "\xa4Meta\xda"...), byte(len(meta)>>8), byte(len(meta)))
		return text(append(p, meta...), "Vsn", "\x01\x05\x02\x01\x01\x01")
	}
	dead := func(incarnation uint32) []byte {
		return text(text(number([]byte{5, 0x83}, "Incarnation", incarnation), "Node", name), "From", name)
	}
	words := []func(incarnation uint32) []byte{
		func(n uint32) []byte { return alive(gossip, meta(formed|leaving, api), n) },
		func(n uint32) []byte { return alive(gossip, meta(formed|nonvoter, api), n) },
		func(n uint32) []byte { return alive(gossip, meta(formed, lie), n) },
		func(n uint32) []byte { return alive(gossip, meta(formed|nonvoter|leaving, lie), n) },
		dead,
		func(n uint32) []byte { return alive(lie, meta(formed, lie), n) },
	}
	var packets [][]byte
	for i := range words {
		word := words[(turn+i)%len(words)]
		packets = append(packets, word(incarnation+uint32(i))) //nolint:gosec // a few
	}
	return packets
}

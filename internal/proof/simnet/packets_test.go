package simnet

import (
	"fmt"
	"io"
	"log"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestDatagramsAreDroppedByCutsFullQueuesAndLoss(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, b := n.Host("a").Packets(7), n.Host("b").Packets(7)
		received := func() (all []string) {
			time.Sleep(time.Second)
			for {
				select {
				case p := <-b.PacketCh():
					all = append(all, fmt.Sprintf("%s from %v", p.Buf, p.From))
				default:
					return all
				}
			}
		}
		send := func(text string) {
			t.Helper()
			if _, err := a.WriteTo([]byte(text), b.Addr().String()); err != nil {
				t.Fatal(err)
			}
		}
		send("one")
		if got := fmt.Sprint(received()); got != "[one from 10.1.0.1:7]" {
			t.Errorf("received %v", got)
		}
		send("under way")
		n.Cut("a", "b")
		send("into the cut")
		if got := received(); len(got) != 0 {
			t.Errorf("received %v through a cut", got)
		}
		n.Mend("a", "b")
		if got := received(); len(got) != 0 {
			t.Errorf("received %v after a cut, want them lost", got)
		}
		for range packetQueue + 10 {
			send("x")
		}
		if got := len(received()); got != packetQueue {
			t.Errorf("received %d, want %d", got, packetQueue)
		}
		if _, err := a.WriteTo(make([]byte, maxPacket+1), "b:7"); err == nil {
			t.Error("a datagram of 65508 bytes was sent")
		}
		if s := n.Stats(); s.Dropped != 12 || s.Packets != packetQueue+1 {
			t.Errorf("stats %+v, want 12 dropped and %d handed over", s, packetQueue+1)
		}
	})
	bubble(t, Options{Loss: 0.25}, func(t *testing.T, n *Network) {
		a, b := n.Host("a").Packets(7), n.Host("b").Packets(7)
		for range 1000 {
			_, _ = a.WriteTo([]byte("x"), b.Addr().String())
		}
		if got := len(b.PacketCh()); got < 700 || got > 800 {
			t.Errorf("%d of 1000 arrived at a loss of 0.25", got)
		}
	})
}

func startGossip(t *testing.T, h *Host) *memberlist.Memberlist {
	t.Helper()
	c := memberlist.DefaultLANConfig()
	c.Name = h.Name()
	c.Transport = h.Packets(7946)
	c.AdvertisePort = 7946
	c.Logger = log.New(io.Discard, "", 0)
	m, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestThreeMemberlistsFindEachOtherAndNoticeADeadOne(t *testing.T) {
	bubble(t, Options{Latency: time.Millisecond, Jitter: time.Millisecond, Loss: 0.01}, func(t *testing.T, n *Network) {
		var all []*memberlist.Memberlist
		defer func() {
			for _, m := range all {
				_ = m.Shutdown() // may be called twice
			}
			time.Sleep(time.Minute) // a probe under way outlives Shutdown
		}()
		for _, name := range []string{"a", "b", "c"} {
			m := startGossip(t, n.Host(name))
			all = append(all, m)
			if _, err := m.Join([]string{"10.1.0.1:7946"}); err != nil {
				t.Fatalf("%s joins: %v", name, err)
			}
		}
		within := func(limit time.Duration, what string, ok func() bool) {
			t.Helper()
			start := time.Now()
			for !ok() {
				if time.Since(start) > limit {
					t.Fatalf("not within %v: %s", limit, what)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		within(5*time.Second, "three know three", func() bool {
			return all[0].NumMembers() == 3 && all[1].NumMembers() == 3 && all[2].NumMembers() == 3
		})
		for _, end := range []func(*Network, string){(*Network).PowerOff, (*Network).Kill} {
			end(n, "c")
			if err := all[2].Shutdown(); err != nil {
				t.Error(err)
			}
			within(15*time.Second, "two know two", func() bool { return all[0].NumMembers() == 2 && all[1].NumMembers() == 2 })
			all[2] = startGossip(t, n.Revive("c"))
			if _, err := all[2].Join([]string{"10.1.0.2:7946"}); err != nil {
				t.Fatal(err)
			}
			within(15*time.Second, "three know three again", func() bool {
				return all[0].NumMembers() == 3 && all[1].NumMembers() == 3 && all[2].NumMembers() == 3
			})
		}
		n.Isolate("a")
		within(20*time.Second, "an isolated one is dead", func() bool { return all[1].NumMembers() == 2 && all[0].NumMembers() == 1 })
	})
}

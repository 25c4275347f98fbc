package cluster

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/simnet"
)

// startAt starts a node on a host of a simulated network, in virtual time.
func startAt(t *testing.T, host *simnet.Host, id string, change func(*Config)) *Cluster {
	t.Helper()
	transport, err := host.Gossip(gossipAt(host))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Meta: Meta{NodeID: id, ClusterID: "c", Formed: true, API: "1.1.1.1:1", Raft: "1.1.1.1:3"}, Transport: transport}
	if change != nil {
		change(&cfg)
	}
	c, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func gossipAt(host *simnet.Host) string { return net.JoinHostPort(host.IP().String(), "7403") }

// visitors listens where a node was and counts who calls.
func visitors(t *testing.T, host *simnet.Host) (calls func() int) {
	t.Helper()
	l, err := host.Listen(gossipAt(host))
	if err != nil {
		t.Fatal(err)
	}
	n := make(chan struct{}, 10_000)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n <- struct{}{}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return func() int {
		calls := len(n)
		for range calls {
			<-n
		}
		return calls
	}
}

// inALab runs f with a network and closes the nodes that it returns.
func inALab(t *testing.T, f func(t *testing.T, lab *simnet.Network) []*Cluster) {
	synctest.Test(t, func(t *testing.T) {
		lab := simnet.New(1, simnet.Options{Latency: time.Millisecond})
		defer lab.Close()
		for _, c := range f(t, lab) {
			_ = c.Close()
		}
		time.Sleep(time.Minute) // memberlist's last probes
	})
}

func TestNobodyLooksForWhoIsNoMemberAnyMore(t *testing.T) {
	inALab(t, func(t *testing.T, lab *simnet.Network) []*Cluster {
		a := startAt(t, lab.Host("a"), "a", nil)
		b := startAt(t, lab.Host("b"), "b", seeds(a))
		c := startAt(t, lab.Host("c"), "c", seeds(a))
		d := startAt(t, lab.Host("d"), "d", seeds(a))
		time.Sleep(10 * time.Second)
		for _, n := range []*Cluster{a, b} {
			n.SetMembers([]string{"a", "b", "c", "d"})
		}
		for host, n := range map[string]*Cluster{"c": c, "d": d} {
			lab.Kill(host)
			_ = n.Close()
		}
		atC, atD := visitors(t, lab.Revive("c")), visitors(t, lab.Revive("d"))
		time.Sleep(10 * time.Minute)
		if atC() == 0 || atD() == 0 {
			t.Error("nobody looks for a member that has failed")
		}
		for _, n := range []*Cluster{a, b} {
			n.SetMembers([]string{"a", "b", "c"})
		}
		time.Sleep(time.Minute)
		atD()
		time.Sleep(time.Hour)
		if n := atD(); n > 0 {
			t.Errorf("%d calls in an hour where a removed member was", n)
		}
		if atC() == 0 {
			t.Error("nobody looks for a member that has failed an hour ago")
		}
		for _, n := range []*Cluster{a, b} {
			if _, known := n.Peer("d"); known {
				t.Errorf("%s remembers a removed member", n.cfg.NodeID)
			}
			if p, _ := n.Peer("c"); p.State != Failed {
				t.Errorf("%s calls a failed member %v", n.cfg.NodeID, p.State)
			}
		}
		return []*Cluster{a, b}
	})
}

// A node that stops just before it is let in is remembered for a while, and one that
// does not know the members forgets nobody.
func TestNobodyIsForgottenTooEarly(t *testing.T) {
	inALab(t, func(t *testing.T, lab *simnet.Network) []*Cluster {
		a := startAt(t, lab.Host("a"), "a", nil)
		b := startAt(t, lab.Host("b"), "b", seeds(a))
		c := startAt(t, lab.Host("c"), "c", seeds(a))
		time.Sleep(10 * time.Second)
		a.SetMembers([]string{"a", "b"})
		lab.Kill("c")
		_ = c.Close()
		time.Sleep(30 * time.Second)
		if _, known := a.Peer("c"); !known {
			t.Error("a has forgotten at once who is no member")
		}
		time.Sleep(time.Hour)
		if p, known := b.Peer("c"); !known || p.State != Failed {
			t.Error("b does not know who is a member, and has forgotten somebody")
		}
		return []*Cluster{a, b}
	})
}

func TestMembersAreFoundWhereTheyWereLastSeen(t *testing.T) {
	inALab(t, func(t *testing.T, lab *simnet.Network) []*Cluster {
		b := startAt(t, lab.Host("b"), "b", nil)
		removed := visitors(t, lab.Host("removed"))
		known := map[string]string{"b": b.Addr(), "removed": gossipAt(lab.Host("removed"))}
		a := startAt(t, lab.Host("a"), "a", func(cfg *Config) { cfg.Known = known })
		a.SetMembers([]string{"a", "b"})
		time.Sleep(10 * time.Second)
		if p, _ := a.Peer("b"); p.State != Alive {
			t.Error("a has not found b where it was")
		}
		removed()
		time.Sleep(time.Hour)
		if n := removed(); n > 0 {
			t.Errorf("%d calls in an hour at an address that was remembered of no member", n)
		}
		if got := a.targets(false); slices.Contains(got, b.Addr()) {
			t.Errorf("b is alive, and still asked for at %v", got)
		}
		return []*Cluster{a, b}
	})
}

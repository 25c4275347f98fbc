package cluster

import (
	"io"
	"net"
	"strings"
	"testing"
)

// startFormed starts a cluster of two that has an ID.
func startFormed(t *testing.T, id string, change func(*Config)) (a, b *Cluster) {
	t.Helper()
	member := func(cfg *Config) {
		cfg.Meta.ClusterID, cfg.Meta.Formed = id, true
		if change != nil {
			change(cfg)
		}
	}
	a = start(t, id+"1", member)
	b = start(t, id+"2", func(cfg *Config) { member(cfg); seeds(a)(cfg) })
	await(t, a, id+"2", inState(Alive, id+"2"))
	return a, b
}

// visit has a find b, as one does that remembers somebody at its address.
func visit(t *testing.T, a, b *Cluster) {
	t.Helper()
	a.exchange([]string{b.Addr()})
	awaitTrue(t, a, "who is there", func() bool { _, known := a.Peer(b.cfg.NodeID); return known })
}

func TestAFreshNodeIsNotFoundByStrangers(t *testing.T) {
	brother := start(t, "brother", nil)
	for name, c := range map[string]struct {
		change func(*Config)
		why    string
	}{
		"a founder without seeds":  {nil, "this node was given no address to join: give it one"},
		"a founder with a brother": {seeds(brother), "none of the addresses to join leads there: add one that does"},
		"one that joins": {func(cfg *Config) { seeds(brother)(cfg); cfg.Meta.Expect = 0 },
			"none of the addresses to join leads there: add one that does"},
	} {
		t.Run(name, func(t *testing.T) {
			var log logBuffer
			old, _ := startFormed(t, "old", nil)
			f := start(t, "fresh", func(cfg *Config) {
				cfg.Logger = log.logger()
				if c.change != nil {
					c.change(cfg)
				}
			})
			visit(t, old, f)
			awaitTrue(t, f, "a reason", func() bool { return f.Hint() != "" })
			for _, p := range f.Peers() {
				if p.NodeID != "brother" {
					t.Errorf("it took %s for a peer", p.NodeID)
				}
			}
			if got := f.Hint(); !strings.Contains(got, "cluster old, of which old") || !strings.Contains(got, c.why) {
				t.Errorf("the reason is %q, want %q", got, c.why)
			}
			// The node's own rounds say it, too: one may have begun to when this one comes.
			const said = "a cluster has found this node and is not joined"
			f.tellStrangers()
			log.await(t, said)
			f.tellStrangers()
			if n := log.count(said); n != 1 {
				t.Errorf("the log says %d times that it was found, want once", n)
			}
		})
	}
}

func TestWhoWaitsToBeFoundIsFound(t *testing.T) {
	for name, c := range map[string]struct{ old, fresh func(*Config) }{
		"one that expects nobody and has no seeds": {nil, func(cfg *Config) { cfg.Meta.Expect = 0 }},
		"a founder of the same name":               {func(cfg *Config) { cfg.Label = "blue" }, func(cfg *Config) { cfg.Label = "blue" }},
	} {
		t.Run(name, func(t *testing.T) {
			old, _ := startFormed(t, "old", c.old)
			f := start(t, "fresh", c.fresh)
			visit(t, old, f)
			await(t, f, "both members", inState(Alive, "old1", "old2"))
		})
	}
}

func TestASeedLeadsToAllOfItsCluster(t *testing.T) {
	a, b := startFormed(t, "c", nil)
	f := start(t, "fresh", seeds(b))
	await(t, f, "both members", inState(Alive, "c1", "c2"))
	// Found by one of them before the seed has answered.
	late := start(t, "late", func(cfg *Config) { cfg.Seeds = []string{"127.0.0.1:1"} })
	visit(t, a, late)
	awaitTrue(t, late, "a reason", func() bool { return late.Hint() != "" })
	late.circle.give("127.0.0.1:1", []string{b.Addr()}) // as when a name gets another address
	late.exchange([]string{b.Addr()})
	await(t, late, "both members", inState(Alive, "c1", "c2"))
	if got := late.Hint(); got != "" {
		t.Errorf("it still says %q", got)
	}
}

// A seed that is a fresh node leads where that one has gone.
func TestASeedThatJoinsLeadsToItsCluster(t *testing.T) {
	a, _ := startFormed(t, "c", nil)
	seed := start(t, "seed", seeds(a))
	f := start(t, "fresh", seeds(seed))
	await(t, f, "its seed", inState(Alive, "seed"))
	visit(t, a, f)
	if _, known := f.Peer("c1"); known {
		t.Error("its seed belongs to no cluster yet, and it took c1 for a peer")
	}
	m := seed.Meta()
	m.ClusterID, m.Formed = "c", true
	if err := seed.SetMeta(m); err != nil {
		t.Fatal(err)
	}
	await(t, f, "all members", inState(Alive, "c1", "c2", "seed"))
}

// What answers is behind a port that is mapped, and says that it is elsewhere.
func TestASeedLeadsThroughAMappedPort(t *testing.T) {
	a, _ := startFormed(t, "c", nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", a.Addr())
			if err != nil {
				_ = in.Close()
				continue
			}
			both := make(chan struct{})
			go func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite(); close(both) }()
			_, _ = io.Copy(in, out)
			_ = in.Close()
			<-both
			_ = out.Close()
		}
	}()
	other, _ := startFormed(t, "other", nil)
	f := start(t, "fresh", func(cfg *Config) { cfg.Seeds = []string{l.Addr().String()} })
	other.exchange([]string{f.Addr()}) // it may be too late to be taken for a stranger
	await(t, f, "both members", inState(Alive, "c1", "c2"))
	if _, known := f.Peer("other1"); known {
		t.Error("that the seed answered has led to the cluster that came by itself, too")
	}
}

func TestAFounderFollowsItsPromise(t *testing.T) {
	promise := list("fresh", "c1").Hash()
	a := start(t, "c1", func(cfg *Config) { cfg.Meta.Promise, cfg.Meta.Formed, cfg.Meta.ClusterID = promise, true, "c" })
	b := start(t, "c2", func(cfg *Config) { cfg.Meta.Formed, cfg.Meta.ClusterID = true, "c"; seeds(a)(cfg) }) // it joined
	await(t, a, "c2", inState(Alive, "c2"))
	f := start(t, "fresh", func(cfg *Config) { cfg.Meta.Promise = promise })
	visit(t, b, f)
	await(t, f, "both", inState(Alive, "c1", "c2"))
}

// What counts as alive must not be somebody else at the same address.
func TestAPeerThatBelongsElsewhereIsNotAlive(t *testing.T) {
	for _, id := range []string{"", "c"} { // of the one that looks
		f := start(t, "f", func(cfg *Config) {
			cfg.Seeds = []string{"127.0.0.1:1"} // none leads to the brother
			cfg.Meta.ClusterID, cfg.Meta.Formed = id, id != ""
		})
		brother := start(t, "brother", seeds(f))
		await(t, f, "its brother", inState(Alive, "brother"))
		m := brother.Meta()
		m.ClusterID, m.Formed = "elsewhere", true
		if err := brother.SetMeta(m); err != nil {
			t.Fatal(err)
		}
		gone := func(p map[string]Peer) bool { return p["brother"].State != Alive }
		await(t, f, "that its brother has gone elsewhere", gone)
		m.ClusterID, m.Formed = "", false
		if err := brother.SetMeta(m); err != nil {
			t.Fatal(err)
		}
		await(t, f, "that its brother is back", inState(Alive, "brother"))
	}
}

package cluster

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// founder runs the agreement over real gossip, as package node does.
type founder struct {
	c *Cluster

	mu       sync.Mutex
	promised Founders
	formed   Founders
	last     Decision

	stop chan struct{}
	done chan struct{}
}

func found(t *testing.T, id string, expect int, change func(*Config)) *founder {
	t.Helper()
	f := &founder{stop: make(chan struct{}), done: make(chan struct{})}
	f.c = start(t, id, func(cfg *Config) {
		cfg.Meta.Expect, cfg.Meta.Raft = expect, id+":3"
		if change != nil {
			change(cfg)
		}
	})
	go f.run()
	t.Cleanup(func() { f.halt() })
	return f
}

func (f *founder) halt() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	<-f.done
}

func (f *founder) run() {
	defer close(f.done)
	for {
		changes := f.c.Changes()
		f.mu.Lock()
		d := Agree(Candidate{Meta: f.c.Meta(), Promised: f.promised, Settled: f.c.Settled()}, f.c.Peers())
		f.last = d
		if d.Action == Promise {
			f.promised = d.Founders
		}
		m := f.c.Meta()
		m.Intent, m.Promise = d.Intent, f.promised.Hash()
		if d.Action == Bootstrap {
			f.formed, m.Formed = d.Founders, true
		}
		f.mu.Unlock()
		if err := f.c.SetMeta(m); err != nil {
			panic(err)
		}
		switch d.Action {
		case Promise:
			continue
		case Bootstrap:
			return
		}
		select {
		case <-f.stop:
			return
		case <-changes:
		}
	}
}

func (f *founder) decision() Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// awaitReason waits until the node waits for something.
func (f *founder) awaitReason(t *testing.T, part string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(f.decision().Reason, part) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is at %+v, want reason …%s…", f.c.cfg.NodeID, f.decision(), part)
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *founder) awaitFormed(t *testing.T) Founders {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(15 * time.Second):
		t.Fatalf("%s has not formed: %+v", f.c.cfg.NodeID, f.decision())
	}
	return f.formed
}

func TestNodesFormOverGossip(t *testing.T) {
	apart(t)
	for _, n := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			begin := time.Now()
			first := found(t, "n0", n, nil)
			all := []*founder{first}
			for i := 1; i < n; i++ {
				all = append(all, found(t, fmt.Sprintf("n%d", i), n, seeds(first.c)))
			}
			var hash string
			for _, f := range all {
				got := f.awaitFormed(t)
				if len(got) != n || (hash != "" && got.Hash() != hash) {
					t.Errorf("%s formed %v", f.c.cfg.NodeID, got)
				}
				hash = got.Hash()
			}
			t.Logf("%d nodes formed after %v", n, time.Since(begin).Round(time.Millisecond))
			late := found(t, "late", n, seeds(first.c))
			late.awaitReason(t, "belongs to a cluster")
			if d := late.decision(); d.Action != Join || len(d.Through) == 0 {
				t.Errorf("a late node decides %+v", d)
			}
		})
	}
}

// Four nodes, two on each side of a wall, told to expect four.
func TestHalvesDoNotFormOverGossip(t *testing.T) {
	a := found(t, "a", 4, func(cfg *Config) { cfg.Label = "left" })
	b := found(t, "b", 4, func(cfg *Config) { cfg.Label = "left"; seeds(a.c)(cfg) })
	c := found(t, "c", 4, func(cfg *Config) { cfg.Label = "right" })
	d := found(t, "d", 4, func(cfg *Config) { cfg.Label = "right"; seeds(c.c)(cfg) })
	for _, f := range []*founder{a, b, c, d} {
		f.awaitReason(t, "2 of 4 fresh voters are seen")
		if f.promised != nil {
			t.Errorf("%s promised %v", f.c.cfg.NodeID, f.promised)
		}
	}
}

// One too many: the nodes that met first may have promised, but the cluster forms only once
// the additional one has gone, and then it does.
func TestFourThatExpectThreeFormWhenOneStops(t *testing.T) {
	apart(t)
	a := found(t, "a", 3, nil)
	b := found(t, "b", 3, seeds(a.c))
	all := map[string]*founder{
		"a": a, "b": b,
		"c": found(t, "c", 3, seeds(a.c, b.c)), "d": found(t, "d", 3, seeds(a.c, b.c)),
	}
	for id, f := range all {
		await(t, f.c, "the others", func(p map[string]Peer) bool { return len(p) == 3 })
		deadline := time.Now().Add(time.Minute)
		for {
			f.mu.Lock()
			d, bound := f.last, f.promised != nil
			f.mu.Unlock()
			if bound || strings.Contains(d.Reason, "4 fresh voters are seen but only 3 are expected") || d.Action == Join {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is at %+v", id, d)
			}
			time.Sleep(time.Millisecond)
		}
	}
	surplus := "d"
	for _, f := range all {
		f.mu.Lock()
		for id := range all {
			if f.promised != nil && !f.promised.has(id) {
				surplus = id
			}
		}
		f.mu.Unlock()
	}
	all[surplus].halt()
	crash(all[surplus].c)
	delete(all, surplus)
	hash := ""
	for id, f := range all {
		got := f.awaitFormed(t)
		if len(got) != 3 || got.has(surplus) || (hash != "" && got.Hash() != hash) {
			t.Errorf("%s formed %v", id, got)
		}
		hash = got.Hash()
	}
}

func TestDifferentExpectationsWaitOverGossip(t *testing.T) {
	a := found(t, "a", 3, nil)
	b := found(t, "b", 3, seeds(a.c))
	c := found(t, "c", 5, seeds(a.c))
	a.awaitReason(t, "c expects 5")
	b.awaitReason(t, "c expects 5")
	c.awaitReason(t, "expects 3")
}

// A founder that promised and was killed before it formed comes back at another
// address, and all of them form what was promised.
func TestPromiseOutlivesARestart(t *testing.T) {
	want := list("a", "b")
	a := found(t, "a", 2, nil)
	b := start(t, "b", func(cfg *Config) {
		seeds(a.c)(cfg)
		cfg.Meta.Expect, cfg.Meta.Raft, cfg.Meta.Intent, cfg.Meta.Promise = 2, "b:3", want.Hash(), want.Hash()
	})
	if got := a.awaitFormed(t); got.Hash() != want.Hash() {
		t.Fatalf("a formed %v", got)
	}
	crash(b)
	b2 := &founder{promised: want, stop: make(chan struct{}), done: make(chan struct{})}
	b2.c = start(t, "b", func(cfg *Config) {
		seeds(a.c)(cfg)
		cfg.Meta.Expect, cfg.Meta.Raft, cfg.Meta.Promise = 2, "moved:3", want.Hash()
	})
	go b2.run()
	t.Cleanup(b2.halt)
	if got := b2.awaitFormed(t); got.Hash() != want.Hash() {
		t.Errorf("b formed %v", got)
	}
}

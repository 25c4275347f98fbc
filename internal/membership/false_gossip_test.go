package membership

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/peerapi"
)

// What gossip says of a member, and the member does not say itself, changes nothing.
func TestFalseGossipLeavesTheConfigurationAsItWas(t *testing.T) {
	for name, lie := range map[string]func(p *cluster.Peer){
		"it leaves":          func(p *cluster.Peer) { p.Leaving = true },
		"it has left":        func(p *cluster.Peer) { p.State, p.Leaving, p.Since = cluster.Left, true, time.Now().Add(-time.Hour) },
		"it wants no vote":   func(p *cluster.Peer) { p.Nonvoter = true },
		"it is elsewhere":    func(p *cluster.Peer) { p.API, p.Raft = "false:4", "false:2" },
		"it is at another's": func(p *cluster.Peer) { p.API, p.Raft = "liar:4", "liar:2" },
		"it claims elsewhere": func(p *cluster.Peer) {
			p.Claims = []cluster.Meta{{NodeID: p.NodeID, Formed: true, API: "liar:4", Raft: "liar:2"}}
		},
		"it is fresh": func(p *cluster.Peer) { p.Formed, p.Expect = false, 9 },
		"it failed":   func(p *cluster.Peer) { p.State, p.Since = cluster.Failed, time.Now().Add(-100*time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.voters("a", "b", "c")
				leader := w.leader()
				before := Servers(leader.running())
				for id := range w.nodes {
					if id != leader.id {
						w.lie(id, lie)
					}
				}
				for range 30 {
					time.Sleep(10 * time.Second)
					for _, n := range w.nodes {
						for id := range w.nodes {
							if id == n.id {
								continue
							}
							if got := n.m.APIAddresses(id); len(got) > 0 && !slices.Equal(got, []string{id + ":4"}) {
								t.Fatalf("%s looks for %s at %q", n.id, id, got)
							}
							if got := n.m.RaftAddresses(raft.ServerID(id)); slices.Contains(got, "false:2") || slices.Contains(got, "liar:2") {
								t.Fatalf("Raft of %s looks for %s at %q", n.id, id, got)
							}
						}
					}
				}
				if got := Servers(w.leader().running()); !slices.Equal(got, before) {
					t.Errorf("the configuration is %v, and was %v", got, before)
				}
				for id := range w.nodes {
					if id != leader.id && name != "it failed" && name != "it has left" {
						w.lie(id, func(p *cluster.Peer) { p.API, p.State = "false:4", cluster.Alive })
					}
				}
			})
		})
	}
}

// The other way round: a nonvoter is not given a vote that it does not want.
func TestFalseGossipGivesNoVote(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		w.leader()
		d := w.fresh("d", func(m *cluster.Meta, _ *Config) { m.Nonvoter = true })
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.lie("d", func(p *cluster.Peer) { p.Nonvoter = false })
		time.Sleep(5 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Errorf("d is %q", role)
		}
	})
}

// A founder that is only gossip: two are there, the third one is made up and says whatever
// the others want to see. Nobody promises anything.
func TestFoundersDoNotPromiseToOneThatIsOnlyGossip(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		list := cluster.Founders{"n1": "n1:2", "n2": "n2:2", "n3": "false:2"}
		made := cluster.Meta{NodeID: "n3", API: "n3:4", Raft: "false:2", Expect: 3, Intent: list.Hash()}
		var nodes []*member
		for _, id := range []string{"n1", "n2"} {
			n := w.fresh(id, expecting(3))
			nodes = append(nodes, n)
			go func() { _, _ = n.m.FormOrJoin(t.Context()) }()
		}
		say := func(m cluster.Meta) {
			w.lie("n3", func(p *cluster.Peer) { p.Meta, p.State, p.Gossip = m, cluster.Alive, "false:3" })
		}
		say(made)
		time.Sleep(time.Minute)
		made.Promise = made.Intent
		say(made)
		time.Sleep(time.Minute)
		for _, n := range nodes {
			n.mu.Lock()
			promised, last := n.promised, n.reasons[len(n.reasons)-1]
			n.mu.Unlock()
			if promised != nil {
				t.Errorf("%s has promised %v", n.id, promised)
			}
			if !strings.Contains(last, `gossip says that all founders agree, but: ask node "n3" at n3:4`) {
				t.Errorf("%s waits for %q", n.id, last)
			}
		}
		// The real one comes, and all goes well.
		n3 := w.fresh("n3", expecting(3))
		go func() { _, _ = n3.m.FormOrJoin(t.Context()) }()
		time.Sleep(time.Minute)
		for _, n := range append(nodes, n3) {
			n.mu.Lock()
			if len(n.promised) != 3 || n.promised["n3"] != "n3:2" {
				t.Errorf("%s has promised %v", n.id, n.promised)
			}
			n.mu.Unlock()
		}
	})
}

// Gossip says that the others have promised, and they have not: Raft would start with a
// list that they may never promise.
func TestRaftStartsOnlyWhenTheFoundersSayThatTheyHavePromised(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		list := cluster.Founders{"n1": "n1:2", "n2": "n2:2"}
		n1 := w.fresh("n1", func(m *cluster.Meta, c *Config) { m.Expect, c.Promised = 2, list })
		w.fresh("n2", expecting(2))
		w.lie("n2", func(p *cluster.Peer) { p.Promise = list.Hash() })
		started := make(chan Start, 1)
		go func() {
			if s, err := n1.m.FormOrJoin(t.Context()); err == nil {
				started <- s
			}
		}()
		time.Sleep(time.Minute)
		select {
		case s := <-started:
			t.Fatalf("n1 starts with %v", s.Bootstrap)
		default:
		}
		w.show("n2", func(p *cluster.Peer) { p.Promise = list.Hash() })
		if s := <-started; len(s.Bootstrap) != 2 {
			t.Errorf("n1 starts with %v", s.Bootstrap)
		}
	})
}

// 2,300 made-up joiners in 80 seconds: nobody is taken in, and nobody is dialled for days.
func TestMadeUpJoinersAreNotTakenIn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		for i := range 2300 {
			id := fmt.Sprint("made-up-", i)
			_, err := leader.m.Join(t.Context(), &peerapi.JoinRequest{NodeId: id, RaftAddress: "10.9.0.1:2", ApiAddress: "10.9.0.1:4"})
			if err == nil {
				t.Fatalf("%s is taken in", id)
			}
			time.Sleep(35 * time.Millisecond)
		}
		if n := len(Servers(leader.running())); n != 3 {
			t.Errorf("%d members", n)
		}
		if lines := leader.log.count("level="); lines > 10 {
			t.Errorf("%d lines are logged", lines)
		}
	})
}

// Made-up joiners that answer under any ID: only so many, a few at a time, and not for
// long. A node that was a member before keeps its place.
func TestNonvotersAreBoundedAndDroppedIfRaftDoesNotReachThem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.voters("a", "b", "c")
		leader := w.leader()
		begin := time.Now()
		taken, begged := 0, 0
		for i := range 200 {
			id := fmt.Sprint("x", i)
			w.fresh(id, nil)
			_, err := leader.m.Join(t.Context(), joinRequest(id))
			for ; apiv1.CodeOf(err) == apiv1.CodeOverloaded; begged++ {
				time.Sleep(100 * time.Millisecond)
				_, err = leader.m.Join(t.Context(), joinRequest(id))
			}
			if err == nil {
				taken++
				continue
			}
			wantCode(t, err, apiv1.CodeLimit, "max_nonvoters")
		}
		if took := time.Since(begin); taken != DefaultMaxNonvoters || took < (DefaultMaxNonvoters-joinBurst-1)*joinEvery {
			t.Errorf("%d were taken in within %v", taken, took)
		}
		if n := len(Servers(leader.running())); n != 3+DefaultMaxNonvoters {
			t.Errorf("%d members", n)
		}
		time.Sleep(leader.m.times.reach + time.Minute)
		if n := len(Servers(leader.running())); n != 3 {
			t.Fatalf("%d members are left, want 3: nobody else is taken in while they are there", n)
		}
		if n := leader.log.count("was never reached by Raft"); n != DefaultMaxNonvoters {
			t.Errorf("%d lines say why", n)
		}
		d := w.fresh("d", func(m *cluster.Meta, _ *Config) { m.Nonvoter = true })
		if _, err := d.form(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		d.crash()
		time.Sleep(10 * time.Minute)
		if role := w.role("d"); role != "nonvoter" {
			t.Errorf("d, which was reached once, is %q", role)
		}
	})
}

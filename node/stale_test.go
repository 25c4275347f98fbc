package node

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/seam"
)

// openSimulated starts one node per timing, n1 and so on, in virtual time.
func openSimulated(t *testing.T, network *simnet.Network, timings ...time.Duration) *testCluster {
	t.Helper()
	return openSimulatedWith(t, network, func(string, *seam.Node) {}, timings...)
}

// openSimulatedWith lets the test change each node's world.
func openSimulatedWith(t *testing.T, network *simnet.Network, change func(id string, world *seam.Node), timings ...time.Duration) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	var join []string
	for i := range timings {
		join = append(join, network.Host(fmt.Sprintf("n%d", i+1)).IP().String()+":7403")
	}
	for i, timing := range timings {
		host := network.Host(fmt.Sprintf("n%d", i+1))
		store := raft.NewInmemStore()
		world := seam.Node{
			Network: host,
			Memory:  &disk.Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()},
			Raft:    func(conf *raft.Config) { conf.LeaderLeaseTimeout = conf.HeartbeatTimeout },
		}
		change(host.Name(), &world)
		n, err := Open(seam.With(t.Context(), world), Config{
			ID: host.Name(), Listen: host.IP().String() + ":7400", HTTPAddr: "off", Insecure: true,
			BootstrapExpect: len(timings), Join: join, Timing: timing, Fast: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	c.awaitReady()
	return c
}

// closeSimulated ends what openSimulated has started.
func (c *testCluster) closeSimulated(network *simnet.Network) {
	network.HealAll()
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			c.t.Error(err)
		}
	}
	time.Sleep(time.Minute) // for gossip's goroutines, which end a little later
}

// A leader is paused for so long that the others elect another one, while the answers to its
// heartbeats are on their way. When it goes on, these answers arrive and look like a majority
// for it. raft.VerifyLeader accepts them as one, unless it happens to hear of the new term
// first; a read round never does.
//
// A process cannot be paused in virtual time. Instead, the lease of the old leader is as long
// as the pause, which has the same effect: its timers have not run.
func TestAReadAfterAPauseIsNotStaleWhereRaftsOwnCheckIs(t *testing.T) {
	deceived := 0
	for seed := uint64(1); seed <= 30 && deceived < 3; seed++ {
		if readAfterAPause(t, seed) {
			deceived++
		}
	}
	if deceived == 0 {
		t.Error("VerifyLeader was never wrong: it may have been fixed, or this test shows nothing")
	}
}

// readAfterAPause reports whether raft's own check was wrong.
func readAfterAPause(t *testing.T, seed uint64) (deceived bool) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(seed, simnet.Options{Latency: 200 * time.Microsecond})
		defer network.Close()
		const slow, usual = 10 * time.Second, 2500 * time.Millisecond
		c := openSimulated(t, network, slow, usual, usual)
		defer c.closeSimulated(network)
		old := c.nodes[0]
		c.eventually("n1 leads", func() bool {
			if leader := c.leader(); leader != old {
				_ = leader.transfer(c.ctx(), leader.raft.Load(), old.id)
			}
			return old.epoch.Load() != nil
		})
		c.grow(old, 3)
		term := old.epoch.Load().term

		// The answers of the others are held back. They still receive what is on its way
		// to them, and then nothing, because each heartbeat waits for its answer.
		for _, n := range c.nodes[1:] {
			network.Cut(n.id, old.id)
		}
		next := func() (found *Node) {
			for _, n := range c.nodes[1:] {
				if n.epoch.Load() != nil {
					found = n
				}
			}
			return found
		}
		c.eventually("another node leads", func() bool { return next() != nil })
		leader := next()
		a, err := mux.Do(c.ctx(), wire{leader}.Start, detachedOp("taken meanwhile", time.Hour))
		if err != nil || a.GetAcquire().GetToken() == 0 {
			t.Fatalf("acquire at the new leader = %v, %v", a, err)
		}
		if got, leading := leads(old.raft.Load()); !leading || got != term || old.epoch.Load() == nil {
			t.Fatal("the old leader knows already: its lease must be longer")
		}

		// It goes on: a read comes, and then the old answers arrive.
		verified := old.raft.Load().VerifyLeader()
		round := make(chan error, 1)
		go func() {
			round <- leaderRound{raft: old.raft.Load(), self: old.id, peer: old.peers.peer}.confirmTerm(c.ctx(), term)
		}()
		answered := make(chan *apiv1.Answer, 1)
		op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "taken meanwhile"}}}
		wire{old}.Start(&mux.Call{Op: op, Done: func(a *apiv1.Answer) { answered <- a }})
		time.Sleep(50 * time.Millisecond)
		for _, n := range c.nodes[1:] {
			if n != leader { // messages of the new leader arrive later
				network.Mend(n.id, old.id)
			}
		}
		deceived = verified.Error() == nil
		network.HealAll()
		if err := <-round; err == nil {
			t.Error("a read round confirmed a leader that had been deposed before it began")
		}
		got := <-answered
		if holders := got.GetGet().GetLock().GetHolders(); len(holders) != 1 || holders[0].GetToken() != a.GetAcquire().GetToken() {
			t.Errorf("the read was answered %v, want the lock held with token %d", got, a.GetAcquire().GetToken())
		}
	})
	return deceived
}

package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/membership"
)

func TestAStopThatWouldLeaveNoMajorityWaits(t *testing.T) {
	c := startClusterWith(t, 3, func(cfg *Config) {
		if cfg.ID == "n1" {
			cfg.StopWait = patience
		}
	})
	stopped, dead := c.nodes[0], c.nodes[1]
	c.kill(dead)
	c.eventually("the leader misses the dead one", func() bool { return len(c.leader().whoVotes().Silent) == 1 })
	var back atomic.Bool
	closed := make(chan bool)
	go func() {
		if err := stopped.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		closed <- back.Load()
	}()
	c.eventually("the node waits to stop", func() bool {
		_, err := stopped.voterReadiness()
		return err != nil && err.Error() == "stopping"
	})
	if _, err := c.client(c.nodes[2]).Lock(c.ctx(), "meanwhile"); err != nil {
		t.Fatal(err)
	}
	back.Store(true)
	again := c.reopen(dead)
	if !<-closed {
		t.Error("the second of three was stopped while the first one was down")
	}
	if _, err := c.client(again).Lock(c.ctx(), "after"); err != nil {
		t.Error(err)
	}
}

// reopen starts a node that has ended again on its data, at its addresses: raft reads the
// address of a member without a lock that it writes with one, and the race detector sees it.
func (c *testCluster) reopen(n *Node) *Node {
	c.t.Helper()
	cfg := n.cfg
	cfg.Join = nil
	cfg.APIAddr, cfg.HTTPAddr, cfg.RaftAddr, cfg.GossipAddr = n.apiAddr, n.httpAddr, n.raftAddr, n.GossipAddr()
	for _, o := range c.nodes {
		if o != n && !o.closing.Load() {
			cfg.Join = append(cfg.Join, o.GossipAddr())
		}
	}
	again, err := Open(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = again.Close() })
	c.nodes = append(c.nodes, again)
	return again
}

// A node that may not be stopped stops in the end all the same, and logs why that is bad.
func TestAStopWithoutAMajorityEndsAndIsLogged(t *testing.T) {
	t.Parallel()
	var log officeLog
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.StopWait = 300 * time.Millisecond
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	dead, stopped := c.follower(), c.leader()
	c.kill(dead)
	c.eventually("the leader misses the dead one", func() bool { return len(stopped.whoVotes().Silent) == 1 })
	if err := stopped.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if log.count("too few voters are left for a majority") != 1 {
		t.Error("the log does not say that the majority is gone")
	}
}

// A cluster that is stopped, all at once or one node after the other, stops soon.
func TestTheLastNodesDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, func(cfg *Config) { cfg.StopWait = time.Hour })
	if err := c.nodes[0].Close(); err != nil {
		t.Error(err)
	}
	c = startClusterWith(t, 2, func(cfg *Config) { cfg.StopWait = time.Hour })
	for _, n := range c.nodes { // the second finds no leader
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Its copy of the data is the only one.
func TestTheOnlyVoterDoesNotLeave(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, func(cfg *Config) { cfg.LeaveOnStop = true })
	n := c.nodes[0]
	if _, err := c.client(n).Lock(c.ctx(), "x"); err != nil {
		t.Fatal(err)
	}
	err := n.Close()
	if !errors.Is(err, errOnlyVoter) || !strings.Contains(err.Error(), "stays a member, keep its data directory") {
		t.Errorf("Close of the only voter, which is to leave: %v", err)
	}
	c.nodes = nil
	again := c.reopen(n)
	if err := again.WaitVoter(c.ctx()); err != nil {
		t.Error(err)
	}
	if err := again.Leave(c.ctx()); !errors.Is(err, errOnlyVoter) {
		t.Errorf("Leave of the only voter: %v", err)
	}
	if err := again.Close(); !errors.Is(err, errOnlyVoter) {
		t.Errorf("Close after Leave: %v, want what Leave returned", err)
	}
}

// Instances are replaced too fast: the last old voter is to leave when the new node has just
// joined. It leaves when that one votes.
func TestANodeLeavesOnlyWhenItsReplacementVotes(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, func(cfg *Config) { cfg.LeaveOnStop, cfg.LeaveWait = true, patience })
	old := c.leader()
	old.membership.Follow() // nobody is made a voter
	n2 := c.add("n2", nil)
	if err := n2.WaitReady(c.ctx()); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- old.Close() }()
	c.eventually("the node waits to leave", old.waitsToStop.Load)
	old.membership.Lead(old.ctx)
	if err := <-closed; err != nil {
		t.Fatalf("Close: %v", err)
	}
	c.nodes = c.nodes[1:]
	if _, err := c.client(n2).Lock(c.ctx(), "after"); err != nil {
		t.Fatal(err)
	}
	if servers := membership.Servers(n2.raft.Load()); len(servers) != 1 || string(servers[0].ID) != "n2" || servers[0].Suffrage != raft.Voter {
		t.Errorf("the members are %v", servers)
	}
}

func TestANodeThatTheOthersCannotDoWithoutStays(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, func(cfg *Config) { cfg.LeaveWait = 100 * time.Millisecond })
	dead, leaving := c.follower(), c.leader()
	c.kill(dead)
	rest := c.nodes[0]
	for _, n := range c.nodes {
		if n != dead && n != leaving {
			rest = n
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := leaving.Leave(ctx)
	if err == nil || !strings.Contains(err.Error(), "stays a member") || strings.Contains(err.Error(), "rpc error") {
		t.Errorf("Leave: %v", err)
	}
	if servers := membership.Servers(rest.raft.Load()); len(servers) != 3 {
		t.Errorf("the members are %v", servers)
	}
	c.reopen(leaving)
	if _, err := c.client(rest).Lock(c.ctx(), "after"); err != nil {
		t.Error(err)
	}
}

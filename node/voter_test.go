package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// add opens one more node, which joins.
func (c *testCluster) add(id string, change func(*Config)) *Node {
	c.t.Helper()
	cfg := Config{ID: id, DataDir: c.t.TempDir(), Listen: "127.0.0.1:0", Join: []string{c.leader().GossipAddr()}, Fast: true}
	if change != nil {
		change(&cfg)
	}
	n, err := Open(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = n.Close() })
	c.nodes = append(c.nodes, n)
	return n
}

func (c *testCluster) role(id string) string {
	for _, m := range c.leader().membership.Members().GetMembers() {
		if m.GetId() == id {
			return strings.Replace(m.GetRole(), "leader", "voter", 1)
		}
	}
	return "none"
}

func (c *testCluster) kill(n *Node) {
	n.fail(errors.New("the test ends it"))
	<-n.Done()
}

// A node serves before it votes. If the next voter were stopped as soon as this one serves,
// there would be no majority in the end.
func TestANodeServesBeforeItVotes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	leader.membership.Follow() // nobody is made a voter
	n4 := c.add("n4", nil)
	if err := n4.WaitReady(c.ctx()); err != nil {
		t.Fatal(err)
	}
	c.eventually("n4 knows that it does not vote", func() bool {
		_, err := n4.voterReadiness()
		s := n4.Status()
		return err != nil && strings.Contains(err.Error(), "not a voter yet") && !s.Voter && !s.VoterReady && s.Voters == 3
	})
	leader.membership.Lead(leader.ctx)
	if err := n4.WaitVoter(c.ctx()); err != nil {
		t.Fatal(err)
	}
	if role := c.role("n4"); role != "voter" {
		t.Errorf("n4 is %q when its wait for its vote is over", role)
	}
	for _, n := range c.nodes {
		c.eventually(n.ID()+" knows the four voters", func() bool {
			s := n.Status()
			return s.Voter && s.VoterReady && s.Voters == 4 && s.VotersHealthy == 4
		})
	}
}

func TestANonvoterIsReadyWithoutAVote(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	n4 := c.add("n4", func(cfg *Config) { cfg.Nonvoter = true })
	if err := n4.WaitVoter(c.ctx()); err != nil {
		t.Fatal(err)
	}
	s := n4.Status()
	if s.Voter || !s.Nonvoter || s.Voters != 3 || !strings.Contains(s.VoterReason, "configured not to vote") {
		t.Errorf("status of a nonvoter: %v", s)
	}
}

// One of three has failed: the others serve, neither of them may be stopped, and both name
// the failed one.
func TestNobodyMayBeStoppedWhileAVoterIsDead(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	for _, n := range c.nodes {
		if err := n.WaitVoter(c.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	dead := c.follower()
	c.kill(dead)
	for _, n := range c.nodes {
		if n == dead {
			continue
		}
		c.eventually(n.ID()+" knows that one is dead", func() bool {
			_, err := n.voterReadiness()
			s := n.Status()
			return s.Ready && err != nil && strings.Contains(err.Error(), `"`+dead.ID()+`" does not answer the leader`) &&
				s.Voters == 3 && s.VotersHealthy == 2 && s.Voter && !s.VoterReady
		})
	}
	// A replacement alone does not help: a majority is then three of four.
	n4 := c.add("n4", nil)
	c.eventually("n4 votes", func() bool { return c.role("n4") == "voter" })
	ctx, cancel := context.WithTimeout(t.Context(), 3*freshEvery)
	defer cancel()
	if err := n4.WaitVoter(ctx); err == nil {
		t.Error("the next one may be stopped, and two of four would be left")
	}
	c.eventually("the dead one is removed", func() bool { // the leader may change meanwhile
		_, err := (wire{c.leader()}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: dead.ID()})
		return err == nil || c.role(dead.ID()) == "none"
	})
	if err := n4.WaitVoter(c.ctx()); err != nil {
		t.Error(err)
	}
}

func TestADeadVoterThatWasReplacedIsRemoved(t *testing.T) {
	t.Parallel()
	soon := func(cfg *Config) { cfg.RemoveReplacedAfter = time.Second }
	c := startClusterWith(t, 3, soon)
	dead := c.follower()
	c.kill(dead)
	n4 := c.add("n4", soon) // it may come to lead
	if err := n4.WaitVoter(c.ctx()); err != nil {
		t.Fatal(err)
	}
	if role := c.role(dead.ID()); role != "none" {
		t.Errorf("%s is %q", dead.ID(), role)
	}
}

func TestWaitVoterSaysWhatIsMissing(t *testing.T) {
	n, err := Open(t.Context(), Config{ID: "n1", DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 3, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = n.WaitVoter(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fresh voter") {
		t.Errorf("WaitVoter of a node that waits for others: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := n.WaitVoter(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("WaitVoter of a closed node: %v", err)
	}
}

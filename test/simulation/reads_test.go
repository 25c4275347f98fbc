package simulation

import (
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestALeaderThatIsRemovedWhileItIsCutOffLeavesOneThatCanLead: in a cluster of two, and
// nothing comes back to the leader any more while it is being removed. One that removes
// itself then has its removal in its own log alone, does not campaign, being no voter,
// and votes for nobody with a shorter log. Seeds rarely cut the way in that moment.
func TestALeaderThatIsRemovedWhileItIsCutOffLeavesOneThatCanLead(t *testing.T) {
	for seed := range testall.Pick[uint64](4, 1) {
		p := planOfTwo(t, 2*seed+1)
		const way = 60 * time.Millisecond // two for the barrier, up to five for the heartbeats, two for the removal
		p.Episodes = []Episode{{At: 3 * time.Second, For: 8 * time.Second, Steps: []Step{
			{Kind: "transfer", Who: leader, Other: "n1"},
			{Kind: "slow-link", Who: "n1", After: time.Second, For: 7 * time.Second, Amount: way},
			{Kind: "remove-leader", Who: "n1", After: 2 * time.Second},
			{Kind: "deafen", Who: "n1", After: 2*time.Second + 6*way + time.Duration(seed)*20*time.Millisecond, For: 4 * time.Second},
		}}}
		out := run(t, p)
		for _, v := range out.Violations {
			t.Errorf("seed %d: %+v", seed, v)
		}
		if out.Refused > 0 {
			t.Errorf("seed %d: %d faults were refused", seed, out.Refused)
		}
	}
}

// TestNodesThatWereAllAskedToRemoveThemselvesComeBack: the second one is the last voter.
// It refuses, and can be removed only when the first one is back and votes.
func TestNodesThatWereAllAskedToRemoveThemselvesComeBack(t *testing.T) {
	p := planOfTwo(t, 1)
	p.Episodes = []Episode{{At: 3 * time.Second, For: 12 * time.Second, Steps: []Step{
		{Kind: "transfer", Who: leader, Other: "n2"}, // so that the node that is looked at first is the last voter
		{Kind: "remove-leader", Who: "n2", After: time.Second},
		{Kind: "remove-leader", Who: leader, After: 5 * time.Second},
	}}}
	out := run(t, p)
	for _, v := range out.Violations {
		t.Errorf("%+v", v)
	}
	if out.Refused > 0 {
		t.Errorf("%d faults were refused", out.Refused)
	}
}

// planOfTwo is a plan for two nodes close to each other, with no episodes yet.
func planOfTwo(t *testing.T, seed uint64) Plan {
	t.Helper()
	p, err := NewPlan(seed, "reads", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p.Nodes, p.Latency, p.Jitter = 2, 200*time.Microsecond, 0
	delete(p.Rates, "n3")
	delete(p.Rates, "n4")
	return p
}

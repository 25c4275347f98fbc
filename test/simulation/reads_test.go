package simulation

import (
	"testing"
	"time"
)

// TestALeaderThatIsRemovedWhileItIsCutOffLeavesOneThatCanLead: in a cluster of two, and
// nothing comes back to the leader any more while it is being removed. One that removes
// itself then has its removal in its own log alone, does not campaign, being no voter,
// and votes for nobody with a shorter log. Seeds rarely cut the way in that moment.
func TestALeaderThatIsRemovedWhileItIsCutOffLeavesOneThatCanLead(t *testing.T) {
	for seed := range uint64(4) {
		p, err := NewPlan(2*seed+1, "reads", 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		p.Nodes, p.Latency, p.Jitter = 2, 200*time.Microsecond, 0
		delete(p.Rates, "n3")
		delete(p.Rates, "n4")
		const way = 150 * time.Millisecond
		p.Episodes = []Episode{{At: 3 * time.Second, For: 8 * time.Second, Steps: []Step{
			{Kind: "transfer", Who: leader, Other: "n1"},
			{Kind: "slow-link", Who: "n1", After: time.Second, For: 7 * time.Second, Amount: way},
			{Kind: "remove-leader", Who: "n1", After: 2 * time.Second},
			{Kind: "deafen", Who: "n1", After: 2*time.Second + 5*way/2 + time.Duration(seed)*10*time.Millisecond, For: 4 * time.Second},
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

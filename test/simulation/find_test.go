package simulation

import (
	"slices"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/testall"
)

// TestLyingDisksAreFound: a simulation that finds nothing must be able to. All
// disks lose what they claimed to have written, all at once, which no promise
// covers.
func TestLyingDisksAreFound(t *testing.T) {
	p, err := NewPlan(1, "tight", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p.Episodes = []Episode{{At: 3 * time.Second, For: 10 * time.Second, Steps: []Step{
		{Kind: "lie"},
		{Kind: "power-off-all", After: 8 * time.Second, For: 500 * time.Millisecond},
	}}}
	out := run(t, p)
	var checks []string
	for _, v := range out.Violations {
		checks = append(checks, v.Check)
	}
	if !slices.Contains(checks, "digest") {
		t.Errorf("all disks lied and lost power: found by %v, want the digests among them", checks)
	}
	if len(checks) == 0 {
		t.Error("nothing was found")
	}
}

// TestShrinkLeavesOnlyWhatGoesWrong shrinks a plan that goes wrong if and only if
// one node is killed while another one is paused.
func TestShrinkLeavesOnlyWhatGoesWrong(t *testing.T) {
	p, err := NewPlan(7, "mixed", 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	culprit := Episode{At: time.Minute, For: 10 * time.Second, Steps: []Step{{Kind: "wall-jump"}, {Kind: "kill"}, {Kind: "pause"}}}
	p.Episodes = slices.Insert(p.Episodes, 2, culprit)
	small, runs := Shrink(&Outcome{Plan: p}, time.Minute, func(p Plan) *Outcome {
		out := &Outcome{Plan: p}
		for _, e := range p.Episodes {
			kinds := map[string]bool{}
			for _, s := range e.Steps {
				kinds[s.Kind] = true
			}
			if e.At == culprit.At && kinds["kill"] && kinds["pause"] {
				out.Violations = []history.Violation{{Promise: "S1"}}
			}
		}
		return out
	})
	if len(small.Plan.Episodes) != 1 || len(small.Plan.Episodes[0].Steps) != 2 || len(small.Plan.Workers) != 1 {
		t.Errorf("after %d runs: %+v with %d workers, want one episode of two steps and one worker", runs, small.Plan.Episodes, len(small.Plan.Workers))
	}
	if small.Plan.Duration > culprit.At+culprit.For+20*time.Second {
		t.Errorf("the small plan takes %v", small.Plan.Duration)
	}
}

func TestEveryKindOfFaultCanBeApplied(t *testing.T) {
	testall.Only(t, "runs each fault by itself; random plans have them all")
	for _, kind := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(kinds, addressFaults)))) {
		p, err := NewPlan(3, "mixed", 15*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(addressFaults[:5], kind) && racedetector.ComplainsOfRaft() {
			continue
		}
		s := Step{Kind: kind, For: 3 * time.Second, Who: leader, Other: "n2", Amount: 50 * time.Millisecond}
		if faults[kind].ofClients {
			s.Who = "c1"
		}
		p.Episodes = []Episode{{At: 3 * time.Second, For: 5 * time.Second, Steps: []Step{s}}}
		out := run(t, p)
		if out.Refused > 0 && kind != "transfer" || out.Faults != 1 || len(out.Recoveries) != 2 {
			t.Errorf("%s: %d faults, %d refused, recoveries %v", kind, out.Faults, out.Refused, out.Recoveries)
		}
		for _, v := range out.Violations {
			t.Errorf("%s: %+v", kind, v)
		}
	}
}

// TestARunThatRecordedNothingIsNotRight: no seed passes because its history is lost.
func TestARunThatRecordedNothingIsNotRight(t *testing.T) {
	out := &Outcome{History: &history.History{}}
	if out.Judge(); len(out.Violations) != 2 {
		t.Errorf("found %v, want that there are no entries and no operations", out.Violations)
	}
}

package simulation

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/sim"
	"github.com/locknode/locknode/internal/proof/testall"
)

// told reports whether one of the violations of a promise has all the words.
func told(violations []history.Violation, promise string, words ...string) bool {
	return slices.ContainsFunc(violations, func(v history.Violation) bool {
		return v.Promise == promise && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(v.Text, w) })
	})
}

// steps returns a plan of half a minute with one episode.
func steps(t *testing.T, steps ...Step) Plan {
	t.Helper()
	p, err := NewPlan(5, "mixed", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p.Episodes = []Episode{{At: 3 * time.Second, For: 10 * time.Second, Steps: steps}}
	return p
}

// TestNodeThatEndedByItselfIsFoundWhateverIsDoneToItAfterwards: a fault that comes
// later does not hide it, nor does a restart; only a fault that explains it is one.
func TestNodeThatEndedByItselfIsFoundWhateverIsDoneToItAfterwards(t *testing.T) {
	for _, later := range testall.Pick([]string{"kill", "power-off", "stop", "kill-all", "fail-disk", ""}, []string{"kill-all", ""}) {
		for _, first := range []string{"defect", "fail-disk"} {
			all := []Step{{Kind: first, Who: "n2", For: 10 * time.Second}}
			if later != "" {
				all = append(all, Step{Kind: later, Who: "n2", After: 5 * time.Second, For: time.Second})
			}
			out := run(t, steps(t, all...))
			if found := told(out.Violations, "availability", `"n2" ended by itself`, errDefect.Error()); found != (first == "defect") {
				t.Errorf("%s, then %q: found %v: %+v", first, later, found, out.Violations)
			}
			for _, v := range out.Violations {
				if first == "fail-disk" || v.Promise != "availability" {
					t.Errorf("%s, then %q: %+v", first, later, v)
				}
			}
		}
	}
}

// TestStopThatFailsIsNoRefusal: a node that does not stop in good order is found,
// unless the schedule has broken its disk; one that is down already is refused.
func TestStopThatFailsIsNoRefusal(t *testing.T) {
	faults["stop-badly"] = fault{lift: startAll, apply: func(c *sim.Cluster, s Step) error {
		d, err := c.Disk(s.Who)
		if err != nil {
			return err
		}
		d.Hang() // nobody knows
		defer d.Release()
		time.Sleep(time.Second)
		return c.Stop(s.Who)
	}}
	defer delete(faults, "stop-badly")
	stop := func(kind string) Step {
		return Step{Kind: kind, Who: "n2", After: 3 * time.Second, For: 5 * time.Second}
	}
	for name, c := range map[string]struct {
		steps   []Step
		found   bool
		refused int
	}{
		"for no reason":  {[]Step{stop("stop-badly")}, true, 0},
		"hung disk":      {[]Step{{Kind: "hang-disk", Who: "n2", For: 9 * time.Second}, stop("stop")}, false, 0},
		"another's disk": {[]Step{{Kind: "hang-disk", Who: "n1", For: 9 * time.Second}, stop("stop-badly")}, true, 0},
		"well":           {[]Step{stop("stop")}, false, 0},
		"paused":         {[]Step{{Kind: "pause", Who: "n2", For: 9 * time.Second}, stop("stop")}, false, 0},
		"twice":          {[]Step{stop("stop"), stop("stop")}, false, 1},
	} {
		out := run(t, steps(t, c.steps...))
		if found := told(out.Violations, "close", `"n2"`, sim.ErrUnclean.Error()); found != c.found || out.Refused != c.refused {
			t.Errorf("%s: found %v, %d refused, want %v and %d: %+v", name, found, out.Refused, c.found, c.refused, out.Violations)
		}
		for _, v := range out.Violations {
			if v.Promise != "close" {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
}

package simulation

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/history"
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
	for _, later := range []string{"kill", "power-off", "stop", "kill-all", "fail-disk", ""} {
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

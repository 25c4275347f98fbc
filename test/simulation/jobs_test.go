package simulation

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/sim"
)

// TestEveryJobIsDoneByEveryFewSeeds: a short run with seeds that nobody has seen
// leaves none out.
func TestEveryJobIsDoneByEveryFewSeeds(t *testing.T) {
	const few = 25
	for first := uint64(1); first < 2000; first += 97 {
		done := map[string]bool{}
		for seed := first; seed < first+few; seed++ {
			p, err := NewPlan(seed, "", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range p.Workers {
				done[w.Job] = true
			}
		}
		for _, job := range slices.Concat(lightJobs, []string{"", "modes", "crowd", "greedy"}) {
			if !done[job] {
				t.Errorf("seeds %d to %d: nobody does %q", first, first+few-1, job)
			}
		}
	}
}

// TestSoonCountsWhileNothingIsBroken: what comes late because something was broken
// is right; what does not come while nothing is, is found.
func TestSoonCountsWhileNothingIsBroken(t *testing.T) {
	p := Plan{Timing: 200 * time.Millisecond}
	bound := soonBound(p)
	for name, c := range map[string]struct {
		broken, so time.Duration // until when
		found      bool
	}{
		"in time":        {0, bound / 2, false},
		"too late":       {0, 2 * bound, true},
		"after a fault":  {3 * bound, 3*bound + bound/2, false},
		"too late after": {3 * bound, 5 * bound, true},
		"during a fault": {3 * bound, 2 * bound, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			cluster, err := sim.New(t.Context(), sim.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r := &runner{c: cluster, p: p, out: &Outcome{}}
			w := newWorker(r, Worker{Name: "a"}, 0)
			began := cluster.Now()
			r.setCalm(began)
			if c.broken > 0 {
				r.setCalm(-1)
				time.AfterFunc(c.broken, func() { r.setCalm(cluster.Now()) })
			}
			is := func(context.Context) bool { return cluster.Now()-began >= c.so }
			if w.soon(t.Context(), "it is time", is) == c.found || len(r.out.Violations) > 0 != c.found {
				t.Errorf("%s: found %+v, want %v", name, r.out.Violations, c.found)
			}
			if err := cluster.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

package simulation

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/sim"
)

// TestGreedyReachesEachLimit: what is looked for beside one who takes all that it gets is
// looked for when it has got it.
func TestGreedyReachesEachLimit(t *testing.T) {
	p, err := NewPlan(1, "greedy", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c, err := sim.New(t.Context(), sim.Options{Limits: p.limits()})
		if err != nil {
			t.Fatal(err)
		}
		r := &runner{c: c, p: p, out: &Outcome{Plan: p}}
		w := newWorker(r, Worker{Name: "greedy", TTL: 10 * time.Second, Job: "greedy"}, 0)
		for _, what := range greeds() {
			if !w.take(t.Context(), &what) {
				t.Errorf("%s: one who takes all that it gets is not refused", what.limit)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, v := range r.out.Violations {
			t.Errorf("%+v", v)
		}
	})
}

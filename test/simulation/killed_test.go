package simulation

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/sim"
	"github.com/locknode/locknode/internal/proof/testall"
)

// TestAJobWhoseClientIsKilledFindsNothing: whatever it is doing then. What a killed
// client does not answer says nothing about the cluster.
func TestAJobWhoseClientIsKilledFindsNothing(t *testing.T) {
	for job, do := range map[string]func(w *worker, ctx context.Context, c *client.Client) error{
		"crowd":  (*worker).crowd,
		"values": (*worker).values,
		"vanish": (*worker).vanish,
		"close asking": func(w *worker, ctx context.Context, c *client.Client) error {
			w.closeAsking(ctx, c, w.r.c.Node("n2").Client())
			return nil
		},
		"close a node": func(w *worker, ctx context.Context, c *client.Client) error {
			return w.closeNode(ctx, c, w.r.c.Node("n2").Client(), "n2")
		},
	} {
		ttl := maxHold
		if job == "crowd" {
			ttl = 3 * soonBound(Plan{Timing: 200 * time.Millisecond}) // as in its plans
		}
		for _, after := range testall.Pick([]time.Duration{5 * time.Millisecond, 50 * time.Millisecond, time.Second}, []time.Duration{50 * time.Millisecond}) {
			t.Run(fmt.Sprintf("%s, after %v", job, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, v := range killedIn(t, ttl, after, do) {
						t.Errorf("%+v", v)
					}
				})
			})
		}
	}
}

// killedIn has a worker do something, kills its client some time after it began, and
// returns what the worker has found.
func killedIn(t *testing.T, ttl, after time.Duration, do func(w *worker, ctx context.Context, c *client.Client) error) []history.Violation {
	cluster, err := sim.New(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{c: cluster, p: Plan{Timing: 200 * time.Millisecond, Window: 300}, out: &Outcome{}}
	w := newWorker(r, Worker{Name: "a", TTL: ttl}, 0)
	c, err := w.client()
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() {
		if err := cluster.KillClient("a"); err != nil {
			t.Error(err)
		}
		r.setCalm(cluster.Now())
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w.expect(do(w, ctx, c))
	kill.Stop() // it may have been done before
	if err := cluster.Close(); err != nil {
		t.Error(err)
	}
	return r.out.Violations
}

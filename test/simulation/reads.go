package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/mux"
)

// reads reads the same lock through one node after the other, each time as soon as the
// previous one has answered, whichever node leads. No read may return an older state than
// the previous one, which the check of order compares.
func (w *worker) reads(ctx context.Context, _ *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	nodes := w.r.c.Nodes()
	w.rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	var lines []*line
	for _, node := range nodes {
		l := w.line(node)
		defer l.close()
		lines = append(lines, l)
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: w.name()}}}
	for ctx.Err() == nil {
		for _, l := range lines {
			// Who does not answer is left for the next one.
			once, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
			if conn := l.to(once); conn != nil {
				_, _ = mux.Do(once, conn.Start, &apiv1.Operation{Request: op.GetRequest()})
			}
			cancel()
			sleep(ctx, time.Duration(w.rand.Int64N(int64(5*time.Millisecond))))
		}
	}
	return nil
}

// readFaults are those that reads have to stand above all.
var readFaults = []string{"slow-apply", "slow-apply", "remove-leader", "remove-leader", "deafen", "mute", "isolate", "transfer", "kill"}

// leaseFactor is how much longer the node with the long lease leads than it is heard.
const leaseFactor = 8

// reseed lets nodes that have removed themselves join again, all at a time: when all
// were asked to remove themselves, the last voter has refused, and can be removed only
// when one of the others is back.
func (r *runner) reseed() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, name := range r.c.Nodes() {
		if !r.c.IsRemoved(name) {
			continue
		}
		all.Go(func() {
			if err := r.c.Reseed(ctx, name); err != nil {
				r.violate("availability", "%v", fmt.Errorf("a node that was removed does not come back: %w", err))
			}
		})
	}
	all.Wait()
}

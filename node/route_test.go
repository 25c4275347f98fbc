package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// TestAReadWhoseRoundsFailAtOnceIsAnsweredInTime: a leader that is none any more
// refuses a round at once. The read must not go round as fast as that, and must be
// answered when its patience is over.
func TestAReadWhoseRoundsFailAtOnceIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		n := &Node{id: "n1", waits: newWaits()}
		n.setForming("the test does not form a cluster")
		n.cfg.seams.Mono = func() time.Duration { return time.Since(begin) }
		var tries atomic.Int64
		n.rounds = newRounds(func(context.Context) (uint64, error) {
			tries.Add(1)
			return 0, errors.New("this node leads no more")
		}, n.cfg.seams.Mono)
		n.router = newRouter(n)
		n.epoch.Store(&epoch{})
		ctx, cancel := context.WithCancel(t.Context())
		go n.rounds.run(ctx)
		go n.router.run(ctx)

		op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}}
		a, err := mux.Do(t.Context(), n.Start, op)
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("Get on a leader whose rounds fail = %v, %v; want unavailable", a, err)
		}
		took := time.Since(begin)
		if took > noLeaderPatience+time.Second {
			t.Errorf("it was answered after %v, the patience is %v", took, noLeaderPatience)
		}
		if most := int64(took/rerouteEvery) + 10; tries.Load() > most {
			t.Errorf("%d rounds in %v, at most %d are enough", tries.Load(), took, most)
		}
		cancel()
		synctest.Wait()
	})
}

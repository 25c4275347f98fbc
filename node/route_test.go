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

// TestACommandOfATermThatIsOverDoesNotGoRound: the term's proposer takes nothing any
// more, and the node has not noticed yet. Time must go on meanwhile; without a pause
// between the tries it does not, in a bubble.
func TestACommandOfATermThatIsOverDoesNotGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		n := &Node{id: "n1", waits: newWaits()}
		n.setForming("the test does not form a cluster")
		n.cfg.seams.Mono = func() time.Duration { return time.Since(begin) }
		n.router = newRouter(n)
		over := &epoch{proposer: newProposer(1, newLeaderClock(0, n.cfg.seams.Mono), time.Now, nil)}
		over.proposer.close()
		n.epoch.Store(over)
		ctx, cancel := context.WithCancel(t.Context())
		go n.router.run(ctx)

		answers := make(chan *apiv1.Answer, 1)
		n.Start(&mux.Call{Op: detachedOp("a", time.Minute), Done: func(a *apiv1.Answer) { answers <- a }})
		time.Sleep(time.Second)
		n.epoch.Store(nil)
		if a := <-answers; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("acquire without a leader = %v, want unavailable", a)
		}
		cancel()
		synctest.Wait()
	})
}

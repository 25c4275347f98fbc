package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
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
		}, nil, n.cfg.seams.Mono)
		n.router = routerOf(n)
		n.epoch.Store(&epoch{})
		ctx, cancel := context.WithCancel(t.Context())
		go n.rounds.run(ctx)
		go n.router.run(ctx)

		op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}}
		a, err := mux.Do(t.Context(), wire{n}.Start, op)
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("Get on a leader whose rounds fail = %v, %v; want unavailable", a, err)
		}
		took := time.Since(begin)
		if took > noLeaderPatience+time.Second {
			t.Errorf("it was answered after %v, the patience is %v", took, noLeaderPatience)
		}
		// The pause grows with the time that is lost.
		if tries.Load() < 15 || tries.Load() > 50 {
			t.Errorf("%d rounds in %v, want many in the first tenth of a second and few after that", tries.Load(), took)
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
		n.router = routerOf(n)
		over := &epoch{proposer: newProposer(1, newLeaderClock(0, n.cfg.seams.Mono), time.Now, nil)}
		over.proposer.close()
		n.epoch.Store(over)
		ctx, cancel := context.WithCancel(t.Context())
		go n.router.run(ctx)

		answers := make(chan *apiv1.Answer, 1)
		n.startInSession(&mux.Call{Op: detachedOp("a", time.Minute), Done: func(a *apiv1.Answer) { answers <- a }})
		time.Sleep(time.Second)
		n.epoch.Store(nil)
		if a := <-answers; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("acquire without a leader = %v, want unavailable", a)
		}
		cancel()
		synctest.Wait()
	})
}

// TestAReadOnALeaderThatDoesNotServeYetDoesNotGoRound: the node is elected, its barrier
// is not through, and the last round was a good one.
func TestAReadOnALeaderThatDoesNotServeYetDoesNotGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &Node{id: "n1", waits: newWaits()}
		n.setForming("the test does not form a cluster")
		var looks atomic.Int64
		n.cfg.seams.Mono = func() time.Duration {
			if looks.Add(1) == 100_000 {
				cancel() // time stands still
			}
			return time.Since(begin)
		}
		n.rounds = newRounds(func(context.Context) (uint64, error) { return 0, nil },
			func(_ uint64, f func()) { f() }, n.cfg.seams.Mono)
		n.router = routerOf(n)
		n.raft.Store(elected(t))
		background, end := context.WithCancel(t.Context())
		go n.rounds.run(background)
		go n.router.run(background)

		op := &apiv1.Operation{Redirect: true, Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}}
		a, err := mux.Do(ctx, wire{n}.Start, op)
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("Get before the leader serves = %v, %v, after %d looks; want unavailable", a, err, looks.Load())
		}
		end()
		synctest.Wait()
	})
}

// elected starts a Raft of one voter, and waits until it leads.
func elected(t *testing.T) *raft.Raft {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "n1", hclog.NewNullLogger()
	store, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	addr, transport := raft.NewInmemTransport("n1")
	servers := []raft.Server{{ID: c.LocalID, Address: addr}}
	if err := raft.BootstrapCluster(c, store, store, snapshots, transport, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(c, nothing{}, store, store, snapshots, transport)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	for r.State() != raft.Leader {
		time.Sleep(10 * time.Millisecond)
	}
	return r
}

// routerOf is the router of a node that has no connections.
func routerOf(n *Node) *router {
	return newRouter(routerConfig{id: n.id, mono: n.cfg.seams.Mono, node: n})
}

// nowhere is a node that knows of no leader.
type nowhere struct{ routing }

func (nowhere) redirect(*mux.Call) bool { return false }

// still is a router in whose time nothing moves.
func still(id string) *router {
	return newRouter(routerConfig{id: id, mono: func() time.Duration { return 0 }, node: nowhere{}})
}

// TestNothingIsRefusedBecauseOfAcquiresThatWaitForALeader: but another acquire that
// would wait, too.
func TestNothingIsRefusedBecauseOfAcquiresThatWaitForALeader(t *testing.T) {
	r := still("n1")
	refused := false
	var owner fair.Owner
	add := func(op *apiv1.Operation) bool {
		refused = false
		r.add(&mux.Call{Op: op, Owner: owner, Done: func(a *apiv1.Answer) {
			refused = apiv1.Code(a.GetError().GetCode()) == apiv1.CodeOverloaded
		}})
		return !refused
	}
	wait := &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{WaitNs: -1}}}
	set := &apiv1.Operation{Request: &apiv1.Operation_SetValue{}}
	free := &apiv1.Operation{Request: &apiv1.Operation_Release{}}
	for i := range maxRerouted.Waits / 3 { // the share of one owner
		if !add(wait) {
			t.Fatalf("acquire %d of %d that may wait is refused", i, maxRerouted.Waits/3)
		}
	}
	if add(wait) || !add(set) || !add(free) {
		t.Error("with as many acquires as may wait: want another one to be refused, and nothing else")
	}
	for range maxRerouted.Prompt / 3 {
		add(set)
	}
	if add(set) || !add(free) {
		t.Error("with as many operations as may wait: want another one to be refused, and a release not")
	}
	owner.Connection++
	if !add(set) || !add(wait) {
		t.Error("another connection is refused because of one that has used up its share")
	}
}

// TestARefusalOfALaterTryDoesNotSayThatNothingWasDone: an earlier one may have taken
// effect, whether this node tried it or the leader did.
func TestARefusalOfALaterTryDoesNotSayThatNothingWasDone(t *testing.T) {
	r := still("n1")
	var got apiv1.Code
	start := func() *mux.Call {
		op := &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: "a", Token: 1}}}
		return &mux.Call{Op: op, Done: func(a *apiv1.Answer) { got = apiv1.Code(a.GetError().GetCode()) }}
	}
	refusal := func(code apiv1.Code) *apiv1.Answer {
		return errorAnswer(&apiv1.Operation{}, apiv1.NewError(code, "no"))
	}
	for doubtful, want := range map[bool]apiv1.Code{false: apiv1.CodeOverloaded, true: apiv1.CodeUnknownOutcome} {
		here := start()
		if doubtful {
			r.notDone(here, errOutcomeUnknown) // and so it is tried again
		}
		if r.notDone(here, errOverloaded); got != want {
			t.Errorf("overloaded here, tried before is %v: got %v, want %v", doubtful, got, want)
		}
		there := start()
		if doubtful {
			r.broken([]*mux.Call{r.forwarded(rerouted{call: there})}, errors.New("reset"))
		}
		if r.forwarded(rerouted{call: there}).Done(refusal(apiv1.CodeOverloaded)); got != want {
			t.Errorf("overloaded there, tried before is %v: got %v, want %v", doubtful, got, want)
		}
	}
}

// Clients of a follower take turns at the leader, as those of the leader do.
func TestAForwardedOperationTellsWhoseItIs(t *testing.T) {
	seen := map[uint64]bool{}
	for _, id := range []string{"n1", "n2"} {
		r := still(id)
		for connection := range uint64(2) {
			op := &apiv1.Operation{Owner: "10.0.0.7", Request: &apiv1.Operation_Release{}}
			owner := fair.Owner{Address: fair.AddressOf("10.0.0.7"), Connection: connection}
			sent := r.forwarded(rerouted{call: &mux.Call{Op: op, Owner: owner}})
			if sent.Owner != owner || sent.Op.GetOwner() != "10.0.0.7" || seen[sent.Op.GetConnection()] {
				t.Errorf("connection %d of %s is forwarded as %d of %q, queued as %v; want one of its own of the same address", connection, id, sent.Op.GetConnection(), sent.Op.GetOwner(), sent.Owner)
			}
			seen[sent.Op.GetConnection()] = true
		}
	}
}

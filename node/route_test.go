package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/seam"
)

// TestAReadWhoseRoundsFailAtOnceIsAnsweredInTime: a node that serves a term which is over
// refuses each round at once. The read must not be retried as fast as that, and must be
// answered when its patience is over.
func TestAReadWhoseRoundsFailAtOnceIsAnsweredInTime(t *testing.T) {
	withOneNode(t, func(t *testing.T, n *Node, ctx context.Context) {
		serving := n.epoch.Load()
		n.epoch.Store(&epoch{term: serving.term - 1, proposer: serving.proposer})
		defer n.epoch.Store(serving)
		begin := time.Now()
		a, err := mux.Do(ctx, wire{n}.Start, getOp("a", 0))
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("Get on a leader whose rounds fail = %v, %v; want unavailable", a, err)
		}
		if took := time.Since(begin); took > noLeaderPatience+time.Second {
			t.Errorf("it was answered after %v, the patience is %v", took, noLeaderPatience)
		}
	})
}

// TestWhatFailsIsRetriedLessAndLessOften: many reads may wait for a leader, and each of their
// tries has the node run a round.
func TestWhatFailsIsRetriedLessAndLessOften(t *testing.T) {
	for name, run := range map[string]func(ctx context.Context, mono func() time.Duration, try func()){
		"rounds": func(ctx context.Context, mono func() time.Duration, try func()) {
			newRounds(func(context.Context) (uint64, error) {
				try()
				return 0, errors.New("this node no longer leads")
			}, nil, mono).run(ctx)
		},
		"a read": func(ctx context.Context, mono func() time.Duration, try func()) {
			n := &roundless{try: try}
			n.router = newRouter(routerConfig{id: "n1", mono: mono, node: n})
			n.router.add(&mux.Call{Op: getOp("a", 0), Done: func(*apiv1.Answer) {}})
			n.router.run(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), noLeaderPatience)
				defer cancel()
				begin, tries := time.Now(), 0
				run(ctx, func() time.Duration { return time.Since(begin) }, func() {
					if tries++; tries == 100_000 {
						cancel() // time stands still
					}
				})
				if tries < 15 || tries > 50 {
					t.Errorf("%d tries in %v, want many in the first tenth of a second and few after that", tries, time.Since(begin))
				}
			})
		})
	}
}

// roundless is a node that knows of no leader and whose read rounds fail at once.
type roundless struct {
	nowhere
	router *router
	try    func()
}

func (n *roundless) leadership() (e *epoch, other place, elected bool) { return nil, place{}, false }
func (n *roundless) unavailable() *apiv1.Error                         { return &apiv1.Error{} }

func (n *roundless) startRead(call *mux.Call, since time.Duration) {
	n.try()
	n.router.again(call, since)
}

// TestACommandOfATermThatIsOverIsNotRetriedAtOnce: the proposer of the term takes nothing
// more, and the node has not noticed yet. Without a pause between the tries no time would
// pass in the bubble.
func TestACommandOfATermThatIsOverIsNotRetriedAtOnce(t *testing.T) {
	withOneNode(t, func(t *testing.T, n *Node, ctx context.Context) {
		serving := n.epoch.Load()
		over := &epoch{term: serving.term, proposer: newProposer(serving.term, newLeaderClock(0, n.cfg.seams.Mono), time.Now, nil)}
		over.proposer.close()
		n.epoch.Store(over)
		defer n.epoch.Store(serving)
		time.AfterFunc(time.Second, func() { n.epoch.Store(nil) })
		a, err := mux.Do(ctx, n.startInSession, detachedOp("a", time.Minute))
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("acquire without a leader = %v, %v; want unavailable", a, err)
		}
	})
}

// TestAReadOnALeaderThatDoesNotServeYetIsNotRetriedAtOnce: the node is elected, and has not
// yet applied the log of earlier terms.
func TestAReadOnALeaderThatDoesNotServeYetIsNotRetriedAtOnce(t *testing.T) {
	withOneNode(t, func(t *testing.T, n *Node, ctx context.Context) {
		serving := n.epoch.Swap(nil)
		defer n.epoch.Store(serving)
		op := getOp("a", 0)
		op.Redirect = true
		a, err := mux.Do(ctx, wire{n}.Start, op)
		if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Errorf("Get before the leader serves = %v, %v; want unavailable", a, err)
		}
	})
}

// withOneNode runs f with a node that leads a cluster of its own in virtual time. ctx ends
// if the clock is read so often at one time that no time can pass.
func withOneNode(t *testing.T, f func(t *testing.T, n *Node, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		begin := time.Now()
		var at, looks atomic.Int64
		network := simnet.New(1, simnet.Options{})
		defer network.Close()
		c := openSimulatedWith(t, network, func(_ string, world *seam.Node) {
			world.Mono = func() time.Duration {
				now := time.Since(begin)
				if at.Swap(int64(now)) != int64(now) {
					looks.Store(0)
				}
				if looks.Add(1) > 100_000 {
					cancel(errors.New("time stands still"))
				}
				return now
			}
		}, 200*time.Millisecond)
		defer c.closeSimulated(network)
		f(t, c.leader(), ctx)
	})
}

// nowhere is a node that knows of no leader.
type nowhere struct{ routing }

func (nowhere) redirect(*mux.Call) bool { return false }

// still returns a router whose clock stands still.
func still(id string) *router {
	return newRouter(routerConfig{id: id, mono: func() time.Duration { return 0 }, node: nowhere{}})
}

// TestNothingIsRefusedBecauseOfAcquiresThatWaitForALeader, except another acquire that would
// wait, too.
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
		t.Error("another connection is refused although only the first has used up its share")
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
			r.notDone(here, errOutcomeUnknown) // and so it is retried
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
func TestAForwardedOperationNamesItsOwner(t *testing.T) {
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

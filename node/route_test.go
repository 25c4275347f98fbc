package node

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

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
		}, nil, n.cfg.seams.Mono)
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
		n.router = newRouter(n)
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
		n.router = newRouter(n)
		n.raft.Store(elected(t))
		background, end := context.WithCancel(t.Context())
		go n.rounds.run(background)
		go n.router.run(background)

		op := &apiv1.Operation{Redirect: true, Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}}
		a, err := mux.Do(ctx, n.Start, op)
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

// TestNothingIsRefusedBecauseOfAcquiresThatWaitForALeader: but another acquire that
// would wait, too.
func TestNothingIsRefusedBecauseOfAcquiresThatWaitForALeader(t *testing.T) {
	n := &Node{id: "n1"}
	n.cfg.seams.Mono = func() time.Duration { return 0 }
	n.router = newRouter(n)
	refused := false
	add := func(op *apiv1.Operation) bool {
		refused = false
		n.router.add(&mux.Call{Op: op, Done: func(a *apiv1.Answer) {
			refused = apiv1.Code(a.GetError().GetCode()) == apiv1.CodeOverloaded
		}})
		return !refused
	}
	wait := &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{WaitNs: -1}}}
	set := &apiv1.Operation{Request: &apiv1.Operation_SetValue{}}
	free := &apiv1.Operation{Request: &apiv1.Operation_Release{}}
	for i := range maxRerouted.Waits {
		if !add(wait) {
			t.Fatalf("acquire %d of %d that may wait is refused", i, maxRerouted.Waits)
		}
	}
	if add(wait) || !add(set) || !add(free) {
		t.Error("with as many acquires as may wait: want another one to be refused, and nothing else")
	}
	for range maxRerouted.Prompt - 2 {
		add(set)
	}
	if add(set) || !add(free) {
		t.Error("with as many operations as may wait: want another one to be refused, and a release not")
	}
}

func TestOnlyALeaderSaysThatANodeWasRemoved(t *testing.T) {
	members := func(pairs ...string) *apiv1.MembersResponse {
		var res apiv1.MembersResponse
		for i := 0; i < len(pairs); i += 2 {
			res.Members = append(res.Members, &apiv1.Member{Id: pairs[i], Role: pairs[i+1]})
		}
		return &res
	}
	for name, c := range map[string]struct {
		res  *apiv1.MembersResponse
		want bool
	}{
		"the leader does not know it":                 {members("a", "leader", "b", "voter"), true},
		"the leader hears it by gossip alone":         {members("a", "leader", "x", "none"), true},
		"the leader has it":                           {members("a", "leader", "x", "voter"), false},
		"a follower has not got the configuration":    {members("a", "voter", "b", "leader", "x", "none"), false},
		"nobody leads, as far as the other one knows": {members("a", "voter", "b", "voter"), false},
	} {
		if got := removedFrom(c.res, "a", "x"); got != c.want {
			t.Errorf("%s: removed is %v, want %v", name, got, c.want)
		}
	}
}

// remover is a node that says it leads, without another one in its configuration.
type remover struct {
	apiv1.UnimplementedLocksServer
	apiv1.UnimplementedPeersServer
	leads bool // as its voters see it
}

func (r *remover) Members(context.Context, *apiv1.MembersRequest) (*apiv1.MembersResponse, error) {
	return &apiv1.MembersResponse{Members: []*apiv1.Member{{Id: "a", Role: "leader"}}}, nil
}

func (r *remover) ReadIndex(context.Context, *apiv1.ReadIndexRequest) (*apiv1.ReadIndexResponse, error) {
	if !r.leads {
		return nil, errors.New("1 of 3 voters said yes, 2 are needed")
	}
	return &apiv1.ReadIndexResponse{Index: 1}, nil
}

// TestALeaderThatWasDeposedRemovesNobody: it says from memory that it leads, and may
// have a change in its log that nobody else has.
func TestALeaderThatWasDeposedRemovesNobody(t *testing.T) {
	n := &Node{id: "x", peers: newPeers(func(string) string { return "" }, nil)}
	defer n.peers.close()
	for _, leads := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, r := grpc.NewServer(), &remover{leads: leads}
		apiv1.RegisterLocksServer(s, r)
		apiv1.RegisterPeersServer(s, r)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = s.Serve(l)
		}()
		if got := n.saysRemoved(t.Context(), l.Addr().String(), "a"); got != leads {
			t.Errorf("a leader that its voters confirm: %v; removed: %v", leads, got)
		}
		s.Stop()
		<-served
	}
}

// TestARefusalOfALaterTryDoesNotSayThatNothingWasDone: an earlier one may have taken
// effect, whether this node tried it or the leader did.
func TestARefusalOfALaterTryDoesNotSayThatNothingWasDone(t *testing.T) {
	n := &Node{id: "n1"}
	n.cfg.seams.Mono = func() time.Duration { return 0 }
	n.router = newRouter(n)
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
			n.notDone(here, errOutcomeUnknown) // and so it is tried again
		}
		if n.notDone(here, errOverloaded); got != want {
			t.Errorf("overloaded here, tried before is %v: got %v, want %v", doubtful, got, want)
		}
		there := start()
		if doubtful {
			n.router.broken([]*mux.Call{n.router.forwarded(rerouted{call: there})}, errors.New("reset"))
		}
		if n.router.forwarded(rerouted{call: there}).Done(refusal(apiv1.CodeOverloaded)); got != want {
			t.Errorf("overloaded there, tried before is %v: got %v, want %v", doubtful, got, want)
		}
	}
}

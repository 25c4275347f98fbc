package server

import (
	"context"
	"net"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/proof/testall"
)

func TestMain(m *testing.M) {
	testall.AtOnce(4) // those that may wait for time limits
	goleak.VerifyTestMain(m)
}

// patience bounds waits for what must happen soon, on a machine that is also busy.
const patience = time.Minute

// fakeNode is a Backend with a small lock table: exclusive locks, queues, callers
// that go away, no time. on, if set, is called with every call first and may take it.
type fakeNode struct {
	on func(*mux.Call) (taken bool)

	mu       sync.Mutex
	token    uint64
	granted  map[string]*apiv1.AcquireRequest
	tokens   map[string]uint64
	queues   map[string][]*mux.Call
	started  []*apiv1.Operation
	watchers map[[16]byte]map[int]func(*apiv1.Notice)
	watched  int
	status   *apiv1.StatusResponse
	admin    error // of the administrative calls
	asked    []any // by an operator
	changed  chan struct{}
}

func newFakeNode() *fakeNode {
	return &fakeNode{
		granted: map[string]*apiv1.AcquireRequest{}, tokens: map[string]uint64{}, queues: map[string][]*mux.Call{},
		watchers: map[[16]byte]map[int]func(*apiv1.Notice){},
		status:   &apiv1.StatusResponse{NodeId: "n1", State: "leader", Ready: true, Digest: 0xfedcba9876543210, ClusterTime: int64(90 * time.Second)},
		changed:  make(chan struct{}, 1),
	}
}

const fakeStamp = int64(time.Hour)

func (f *fakeNode) Start(call *mux.Call) {
	if f.on != nil && f.on(call) {
		return
	}
	if isHosted(call.Op) {
		call.OnAbandon(func() { go f.forget(call) })
	}
	f.mu.Lock()
	f.started = append(f.started, call.Op)
	answers := f.apply(call)
	f.mu.Unlock()
	f.wake()
	for _, done := range answers {
		done()
	}
}

// forget gives up an acquire without a session whose caller got no answer.
func (f *fakeNode) forget(call *mux.Call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, q := range f.queues {
		f.queues[name] = slices.DeleteFunc(q, func(c *mux.Call) bool { return c == call })
	}
	for name, a := range f.granted {
		if a == call.Op.GetAcquire() {
			delete(f.granted, name)
			delete(f.tokens, name)
		}
	}
}

func (f *fakeNode) apply(call *mux.Call) (answers []func()) {
	answer := func(c *mux.Call, a *apiv1.Answer) {
		a.Id, a.Stamp = c.Op.GetId(), fakeStamp
		answers = append(answers, func() { c.Done(a) })
	}
	fail := func(code apiv1.Code, format string, args ...any) {
		answer(call, errorAnswer(0, apiv1.NewError(code, format, args...)))
	}
	grant := func(c *mux.Call) {
		r := c.Op.GetAcquire()
		f.token++
		name := r.GetLocks()[0].GetName()
		f.granted[name], f.tokens[name] = r, f.token
		answer(c, &apiv1.Answer{Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
			Token: f.token, Deadline: fakeStamp + r.GetTtlNs(), Queued: fakeStamp, Granted: fakeStamp,
		}}})
	}
	free := func(name string) {
		delete(f.granted, name)
		delete(f.tokens, name)
		if q := f.queues[name]; len(q) > 0 {
			f.queues[name] = q[1:]
			grant(q[0])
		}
	}
	switch r := call.Op.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		name := r.Acquire.GetLocks()[0].GetName()
		switch {
		case name == "":
			fail(apiv1.CodeInvalid, "locks[0].name: is empty")
		case f.granted[name] == nil:
			grant(call)
		case r.Acquire.GetWaitNs() != 0:
			f.queues[name] = append(f.queues[name], call)
		default:
			e := apiv1.NewError(apiv1.CodeBusy, "lock %q: held", name)
			e.Holders = f.holders(name)
			answer(call, errorAnswer(0, e))
		}
	case *apiv1.Operation_Cancel:
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}})
	case *apiv1.Operation_Release:
		if f.tokens[r.Release.GetName()] != r.Release.GetToken() {
			fail(apiv1.CodeNotHeld, "lock %q: not held with this token", r.Release.GetName())
			return answers
		}
		free(r.Release.GetName())
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}})
	case *apiv1.Operation_Renew:
		if f.tokens[r.Renew.GetName()] != r.Renew.GetToken() {
			fail(apiv1.CodeNotHeld, "lock %q: not held with this token", r.Renew.GetName())
			return answers
		}
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: fakeStamp + r.Renew.GetTtlNs()}}})
	case *apiv1.Operation_ForceRelease:
		released := f.holders(r.ForceRelease.GetName())
		free(r.ForceRelease.GetName())
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: released}}})
	case *apiv1.Operation_Resize:
		if f.granted[r.Resize.GetName()] == nil {
			fail(apiv1.CodeNotHeld, "semaphore %q: is not in use", r.Resize.GetName())
			return answers
		}
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_Resize{Resize: &apiv1.ResizeResponse{}}})
	case *apiv1.Operation_Get:
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: f.lock(r.Get.GetName()), AgeNs: r.Get.GetMaxStaleNs() / 2}}})
	case *apiv1.Operation_List:
		list := &apiv1.ListResponse{}
		for name := range f.granted {
			if strings.HasPrefix(name, r.List.GetPrefix()) && name > r.List.GetAfter() {
				list.Locks = append(list.Locks, f.lock(name))
			}
		}
		sort.Slice(list.GetLocks(), func(i, j int) bool { return list.GetLocks()[i].GetName() < list.GetLocks()[j].GetName() })
		if n := int(r.List.GetLimit()); n > 0 && len(list.GetLocks()) > n {
			list.Locks, list.Next = list.GetLocks()[:n], list.GetLocks()[n-1].GetName()
		}
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_List{List: list}})
	case *apiv1.Operation_KeepAlive:
		if r.KeepAlive.GetSession()[0] == 0xee {
			fail(apiv1.CodeNoSession, "no such session")
			return answers
		}
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: 1}}})
	case *apiv1.Operation_OpenSession:
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: 1}}})
	case *apiv1.Operation_EndSession:
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}})
	case *apiv1.Operation_SetValue:
		answer(call, &apiv1.Answer{Result: &apiv1.Answer_SetValue{SetValue: &apiv1.SetValueResponse{}}})
	}
	return answers
}

func (f *fakeNode) holders(name string) []*apiv1.Holder {
	r := f.granted[name]
	if r == nil {
		return nil
	}
	return []*apiv1.Holder{{
		Lock: name, Token: f.tokens[name], Holder: r.GetHolder(), Mode: apiv1.Mode_MODE_EXCLUSIVE,
		RemainingNs: r.GetTtlNs() + 999, SinceUnixMs: 1_700_000_000_123, Value: r.GetValue(), Labels: r.GetLabels(),
	}}
}

func (f *fakeNode) lock(name string) *apiv1.Lock {
	h := f.holders(name)
	return &apiv1.Lock{Name: name, Holders: h, HolderCount: uint32(len(h)), Waiters: uint32(len(f.queues[name]))}
}

func (f *fakeNode) Watch(session [16]byte, notify func(*apiv1.Notice)) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched++
	id := f.watched
	if f.watchers[session] == nil {
		f.watchers[session] = map[int]func(*apiv1.Notice){}
	}
	f.watchers[session][id] = notify
	f.wake()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers[session], id)
		if len(f.watchers[session]) == 0 {
			delete(f.watchers, session)
		}
		f.wake()
	}
}

// wake has await look at its condition.
func (f *fakeNode) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fakeNode) push(session [16]byte, n *apiv1.Notice) {
	f.mu.Lock()
	var all []func(*apiv1.Notice)
	for _, notify := range f.watchers[session] {
		all = append(all, notify)
	}
	f.mu.Unlock()
	for _, notify := range all {
		notify(n)
	}
}

func (f *fakeNode) setReady(ready bool, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = &apiv1.StatusResponse{NodeId: "n1", Ready: ready, NotReadyReason: reason}
}

func (f *fakeNode) Status(context.Context) (*apiv1.StatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, nil
}

func (f *fakeNode) Members(context.Context) (*apiv1.MembersResponse, error) {
	return &apiv1.MembersResponse{Members: []*apiv1.Member{{Id: "n1", Role: "leader", Health: "alive"}}}, f.admin
}

func (f *fakeNode) TransferLeadership(_ context.Context, r *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return &apiv1.TransferLeadershipResponse{LeaderId: r.GetTo()}, f.admin
}

func (f *fakeNode) RemoveMember(context.Context, *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	return &apiv1.RemoveMemberResponse{}, f.admin
}

func (f *fakeNode) Term(context.Context) (*peerapi.TermResponse, error) {
	return &peerapi.TermResponse{Term: 3, NodeId: "n1"}, f.admin
}

func (f *fakeNode) ReadIndex(context.Context) (*peerapi.ReadIndexResponse, error) {
	return &peerapi.ReadIndexResponse{Index: 9}, f.admin
}

func (f *fakeNode) Self(context.Context) (*peerapi.SelfResponse, error) {
	return &peerapi.SelfResponse{NodeId: "n1"}, f.admin
}

func (f *fakeNode) Join(context.Context, *peerapi.JoinRequest) (*peerapi.JoinResponse, error) {
	return &peerapi.JoinResponse{ClusterId: "c"}, f.admin
}

func (f *fakeNode) Digests(context.Context, *peerapi.DigestsRequest) (*peerapi.DigestsResponse, error) {
	return &peerapi.DigestsResponse{NodeId: "n1"}, f.admin
}

// await waits until cond, which is called with the node's mutex, returns true.
func (f *fakeNode) await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		ok := cond()
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.changed:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// running is a server on loopback.
type running struct {
	*Server
	node *fakeNode
	grpc string
	http string
}

func serve(t testing.TB, cfg Config) *running {
	t.Helper()
	node, _ := cfg.Backend.(*fakeNode)
	if cfg.Backend == nil {
		node = newFakeNode()
		cfg.Backend = node
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	r := &running{Server: s, node: node}
	var wg sync.WaitGroup
	for _, l := range []struct {
		addr  *string
		serve func(net.Listener) error
	}{{&r.grpc, s.ServeGRPC}, {&r.http, s.ServeHTTP}} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		*l.addr = lis.Addr().String()
		wg.Go(func() {
			if err := l.serve(lis); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx) // a test may leave requests unanswered
		wg.Wait()
	})
	for deadline := time.Now().Add(patience); budgetOf(r, "grpc") == nil || budgetOf(r, "http") == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not serve its ports within %v", patience)
		}
	}
	return r
}

func (r *running) dial(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(r.grpc, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (r *running) client(t testing.TB) apiv1.LocksClient { return apiv1.NewLocksClient(r.dial(t)) }

func acquireOf(name string, wait int64) *apiv1.AcquireRequest {
	return &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(30 * time.Second), WaitNs: wait}
}

func acquireOp(id uint64, name string, wait int64) *apiv1.Operation {
	return &apiv1.Operation{Id: id, Request: &apiv1.Operation_Acquire{Acquire: acquireOf(name, wait)}}
}

// inSession makes op, an acquire, one of a client that has a session.
func inSession(op *apiv1.Operation, sequence uint64) *apiv1.Operation {
	op.GetAcquire().Id = &apiv1.RequestID{Session: []byte("0123456789abcdef"), Sequence: sequence}
	return op
}

func getOp(id uint64, name string) *apiv1.Operation {
	return &apiv1.Operation{Id: id, Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: name}}}
}

func keepAliveOp(id uint64, session [16]byte) *apiv1.Operation {
	return &apiv1.Operation{Id: id, Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session[:]}}}
}

func receiveWithin[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v", what, patience)
		panic("unreachable")
	}
}

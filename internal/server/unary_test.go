package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

func TestUnaryCallsTakeTheSameRoad(t *testing.T) {
	r := serve(t, Config{})
	c, ctx := r.client(t), t.Context()
	session := make([]byte, 16)
	session[0] = 1
	for _, call := range []struct {
		kind string
		call func() error
	}{
		{"open_session", func() error { _, err := c.OpenSession(ctx, &apiv1.OpenSessionRequest{Session: session}); return err }},
		{"keep_alive", func() error { _, err := c.KeepAlive(ctx, &apiv1.KeepAliveRequest{Session: session}); return err }},
		{"acquire", func() error { _, err := c.Acquire(ctx, acquireOf("a", 0)); return err }},
		{"renew", func() error { _, err := c.Renew(ctx, &apiv1.RenewRequest{Name: "a", Token: 1}); return err }},
		{"set_value", func() error { _, err := c.SetValue(ctx, &apiv1.SetValueRequest{Name: "a", Token: 1}); return err }},
		{"get", func() error { _, err := c.Get(ctx, &apiv1.GetRequest{Name: "a"}); return err }},
		{"list", func() error { _, err := c.List(ctx, &apiv1.ListRequest{}); return err }},
		{"resize", func() error { _, err := c.Resize(ctx, &apiv1.ResizeRequest{Name: "a", Limit: 2}); return err }},
		{"release", func() error { _, err := c.Release(ctx, &apiv1.ReleaseRequest{Name: "a", Token: 1}); return err }},
		{"cancel", func() error { _, err := c.Cancel(ctx, &apiv1.CancelRequest{}); return err }},
		{"force_release", func() error { _, err := c.ForceRelease(ctx, &apiv1.ForceReleaseRequest{Name: "a"}); return err }},
		{"end_session", func() error { _, err := c.EndSession(ctx, &apiv1.EndSessionRequest{Session: session}); return err }},
	} {
		if err := call.call(); err != nil {
			t.Errorf("%s: %v", call.kind, err)
		}
		if got := r.node.started[len(r.node.started)-1].Kind().String(); got != call.kind {
			t.Errorf("%s arrived as %s", call.kind, got)
		}
	}
}

func TestUnaryErrorCarriesCodeAndHolders(t *testing.T) {
	r := serve(t, Config{})
	c := r.client(t)
	first := acquireOf("a", 0)
	first.Holder, first.Value = "alice", make([]byte, 4096)
	for i := range 32 {
		first.Labels = append(first.Labels, &apiv1.Label{Key: fmt.Sprint(i), Value: strings.Repeat("x", 200)})
	}
	if _, err := c.Acquire(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	_, err := c.Acquire(t.Context(), acquireOf("a", 0))
	if status.Code(err) != codes.FailedPrecondition || apiv1.CodeOf(err) != apiv1.CodeBusy {
		t.Errorf("acquire of a held lock: %v (%v), want busy", err, status.Code(err))
	}
	e := apiv1.AsError(err)
	if len(e.GetHolders()) != 1 || e.GetHolders()[0].GetHolder() != "alice" || e.GetHolders()[0].GetToken() != 1 {
		t.Errorf("holders %v, want alice with token 1", e.GetHolders())
	}
	if n := proto.Size(e); n > maxErrorBytes {
		t.Errorf("the error has %d bytes; some clients cannot read more than %d", n, maxErrorBytes)
	}
}

func TestAbortedAcquireLeavesNoWaiter(t *testing.T) {
	seen := &counts{}
	r := serve(t, Config{Observer: seen})
	c := r.client(t)
	if _, err := c.Acquire(t.Context(), acquireOf("a", 0)); err != nil {
		t.Fatal(err)
	}
	t.Run("unary", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { _, err := c.Acquire(ctx, acquireOf("a", int64(time.Hour))); ended <- err }()
		r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
		cancel()
		if err := receiveWithin(t, "the end of the call", ended); status.Code(err) != codes.Canceled {
			t.Errorf("acquire: %v, want cancelled", err)
		}
		r.node.await(t, "an empty queue", func() bool { return len(r.node.queues["a"]) == 0 })
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if _, err := c.Acquire(ctx, acquireOf("a", int64(time.Hour))); !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("acquire: %v, want its deadline", err)
		}
		r.node.await(t, "an empty queue", func() bool { return len(r.node.queues["a"]) == 0 })
	})
	t.Run("batch", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := c.Batch(ctx, &apiv1.BatchRequest{Operations: []*apiv1.Operation{acquireOp(1, "b", 0), acquireOp(2, "a", int64(time.Hour))}})
			ended <- err
		}()
		r.node.await(t, "the waiter and the grant", func() bool { return len(r.node.queues["a"]) == 1 && r.node.tokens["b"] != 0 })
		cancel()
		_ = receiveWithin(t, "the end of the call", ended)
		// The caller did not get the token of b.
		r.node.await(t, "an empty queue and a free b", func() bool { return len(r.node.queues["a"]) == 0 && r.node.tokens["b"] == 0 })
	})
	t.Run("http", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- postAborted(ctx, r, "/v1/acquire", `{"name":"a","wait":"1h"}`) }()
		r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
		cancel()
		if err := receiveWithin(t, "the end of the request", ended); err == nil {
			t.Error("the aborted request got an answer")
		}
		r.node.await(t, "an empty queue", func() bool { return len(r.node.queues["a"]) == 0 })
	})
	r.node.await(t, "the cancellations", func() bool { return seen.cancelled.Load() == 5 })
}

func TestAbortedTryOfASessionIsLeftToItsClient(t *testing.T) {
	r := serve(t, Config{})
	c := r.client(t)
	if _, err := c.Acquire(t.Context(), acquireOf("a", 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		a := acquireOf("a", -1)
		a.Id = &apiv1.RequestID{Session: []byte("0123456789abcdef"), Sequence: 1}
		_, err := c.Acquire(ctx, a)
		ended <- err
	}()
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	cancel()
	_ = receiveWithin(t, "the end of the call", ended)
	r.node.await(t, "the end of the call at the node", func() bool { return r.node.queues["a"][0].Abandoned() })
}

// TestAnAnswerForACallerThatIsGoneIsLost: the answer comes in the moment at which the call
// is cut off.
func TestAnAnswerForACallerThatIsGoneIsLost(t *testing.T) {
	for road, ask := range map[string]func(ctx context.Context, s *Server) error{
		"unary": func(ctx context.Context, s *Server) error {
			decode := func(request any) error {
				proto.Merge(request.(proto.Message), acquireOf("a", 0))
				return nil
			}
			_, err := unary(apiv1.KindAcquire, "")(&locks{server: s}, ctx, decode, nil)
			return err
		},
		"batch": func(ctx context.Context, s *Server) error {
			_, err := (&locks{server: s}).Batch(ctx, &apiv1.BatchRequest{Operations: []*apiv1.Operation{acquireOp(1, "a", 0)}})
			return err
		},
	} {
		node := newFakeNode()
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		node.on = func(c *mux.Call) bool {
			c.OnAbandon(func() { close(left) })
			cancel()
			c.Done(&apiv1.Answer{Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: 1}}})
			return true
		}
		r := serve(t, Config{Backend: node})
		if err := ask(ctx, r.Server); status.Code(err) != codes.Canceled {
			t.Errorf("%s: %v, want an error that the call was cut off", road, err)
		}
		receiveWithin(t, road+": the word that nobody got the answer", left)
	}
}

func TestAStoppingServerTellsWhatARequestIDIsGoodFor(t *testing.T) {
	r := serve(t, Config{})
	post(t, r, "/v1/acquire", `{"name":"a"}`)
	answers := make(chan string, 1)
	go func() {
		_, body := post(t, r, "/v1/acquire", `{"name":"a","wait":"1h","request_id":"r"}`)
		answers <- body
	}()
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	if err := closeWithin(t, r, patience); err != nil {
		t.Errorf("Close: %v", err)
	}
	if body := receiveWithin(t, "the answer", answers); !strings.Contains(body, "unavailable") || !strings.Contains(body, "same request ID") {
		t.Errorf("answered %s, want unavailable and what a request ID is good for", body)
	}
}

func TestBatchAnswersInOrder(t *testing.T) {
	r := serve(t, Config{Limits: Limits{BatchOperations: 5}})
	c := r.client(t)
	resp, err := c.Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{
		acquireOp(7, "a", 0), acquireOp(7, "a", 0), getOp(9, "a"), {Id: 4}, acquireOp(5, "", 0),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range resp.GetAnswers() {
		got = append(got, fmt.Sprintf("%d %s", a.GetId(), apiv1.Code(a.GetError().GetCode())))
	}
	if want := "7 ok, 7 busy, 9 ok, 4 invalid, 5 invalid"; strings.Join(got, ", ") != want {
		t.Errorf("answers %s, want %s", strings.Join(got, ", "), want)
	}
	if resp, err := c.Batch(t.Context(), &apiv1.BatchRequest{}); err != nil || len(resp.GetAnswers()) != 0 {
		t.Errorf("empty batch: %v, %v", resp, err)
	}
	if _, err := c.Batch(t.Context(), &apiv1.BatchRequest{Operations: make6()}); apiv1.CodeOf(err) != apiv1.CodeInvalid || !strings.Contains(err.Error(), "at most 5") {
		t.Errorf("a batch over the limit: %v, want invalid and the limit", err)
	}
}

func make6() []*apiv1.Operation {
	return []*apiv1.Operation{getOp(1, "a"), getOp(2, "a"), getOp(3, "a"), getOp(4, "a"), getOp(5, "a"), getOp(6, "a")}
}

func TestBatchOfLongReadsStaysBelowTheMessageLimit(t *testing.T) {
	var ops []*apiv1.Operation
	var answers []*apiv1.Answer
	for i := range 10 {
		ops = append(ops, getOp(uint64(i), "a"))
		answers = append(answers, &apiv1.Answer{Id: uint64(i), Result: &apiv1.Answer_Get{
			Get: &apiv1.GetResponse{Lock: &apiv1.Lock{Holders: []*apiv1.Holder{{Value: make([]byte, 900<<10)}}}},
		}})
	}
	got := bounded(ops, answers)
	if n := proto.Size(&apiv1.BatchResponse{Answers: got}); n > maxBatchBytes+4096 {
		t.Errorf("%d bytes, want at most %d", n, maxBatchBytes)
	}
	if got[0].GetGet() == nil || apiv1.Code(got[9].GetError().GetCode()) != apiv1.CodeTooLarge || got[9].GetId() != 9 {
		t.Errorf("first answer has a result: %v, last is %v", got[0].GetGet() != nil, got[9])
	}
}

func TestMessageOverLimitIsRefused(t *testing.T) {
	r := serve(t, Config{})
	_, err := r.client(t).SetValue(t.Context(), &apiv1.SetValueRequest{Name: "a", Token: 1, Value: make([]byte, 2<<20)})
	if apiv1.CodeOf(err) != apiv1.CodeTooLarge {
		t.Errorf("a message of 2 MiB: %v, want too_large", err)
	}
}

func TestOperationTooLongForTheNodesIsRefusedOnEveryRoad(t *testing.T) {
	r := serve(t, Config{})
	long := &apiv1.SetValueRequest{Name: "a", Token: 1, Value: make([]byte, 100<<10)}
	op := &apiv1.Operation{Id: 3, Request: &apiv1.Operation_SetValue{SetValue: long}}
	if _, err := r.client(t).SetValue(t.Context(), long); apiv1.CodeOf(err) != apiv1.CodeTooLarge {
		t.Errorf("unary: %v, want too_large", err)
	}
	resp, err := r.client(t).Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{op, getOp(4, "a")}})
	if err != nil || apiv1.Code(resp.GetAnswers()[0].GetError().GetCode()) != apiv1.CodeTooLarge || resp.GetAnswers()[1].GetGet() == nil {
		t.Errorf("batch: %v, %v, want too_large and an answer", resp, err)
	}
	stream := openStream(t, r)
	sendOps(t, stream, op)
	if a := receiveAnswers(t, stream, 1)[0]; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeTooLarge || a.GetId() != 3 {
		t.Errorf("stream: %v, want too_large", a)
	}
}

func TestBackendErrorsKeepTheirCode(t *testing.T) {
	r := serve(t, Config{})
	ctx := t.Context()
	c, p := r.client(t), peerapi.NewPeersClient(r.dial(t))
	calls := map[string]func() error{
		"members":  func() error { _, err := c.Members(ctx, &apiv1.MembersRequest{}); return err },
		"transfer": func() error { _, err := c.TransferLeadership(ctx, &apiv1.TransferLeadershipRequest{}); return err },
		"remove":   func() error { _, err := c.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: "n9"}); return err },
		"term":     func() error { _, err := p.Term(ctx, &peerapi.TermRequest{}); return err },
		"index":    func() error { _, err := p.ReadIndex(ctx, &peerapi.ReadIndexRequest{}); return err },
		"self":     func() error { _, err := p.Self(ctx, &peerapi.SelfRequest{}); return err },
		"join":     func() error { _, err := p.Join(ctx, &peerapi.JoinRequest{}); return err },
		"digests":  func() error { _, err := p.Digests(ctx, &peerapi.DigestsRequest{}); return err },
	}
	for _, want := range []struct {
		err  error
		code apiv1.Code
		grpc codes.Code
	}{
		{nil, apiv1.CodeOK, codes.OK},
		{fmt.Errorf("remove: %w", apiv1.NewError(apiv1.CodeNoMember, "n9")), apiv1.CodeNoMember, codes.NotFound},
		{errors.New("boom"), apiv1.CodeInternal, codes.Internal},
		{status.Error(codes.Unavailable, "from the leader"), apiv1.CodeUnavailable, codes.Unavailable},
		{context.DeadlineExceeded, apiv1.CodeUnknownOutcome, codes.DeadlineExceeded},
	} {
		r.node.admin = want.err
		for name, call := range calls {
			if err := call(); apiv1.CodeOf(err) != want.code || status.Code(err) != want.grpc {
				t.Errorf("%s with %v: %v, want %v and %v", name, want.err, err, want.code, want.grpc)
			}
		}
	}
}

func TestReflectionNamesTheServices(t *testing.T) {
	r := serve(t, Config{})
	stream, err := grpc_reflection_v1.NewServerReflectionClient(r.dial(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); err == nil {
		t.Error("reflection goes on after its stream has ended")
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if all := strings.Join(names, " "); !strings.Contains(all, "locknode.v1.Locks") || !strings.Contains(all, "grpc.health.v1.Health") {
		t.Errorf("services %v, want Locks and Health among them", names)
	}
}

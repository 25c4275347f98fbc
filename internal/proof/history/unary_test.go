package history

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// call makes a recorded unary call that is answered with reply or err at a time.
func (b *bench) call(req, reply proto.Message, err error) {
	b.t.Helper()
	into := reply
	if into == nil {
		into = &apiv1.AcquireResponse{}
	}
	got := b.unary("c")(b.t.Context(), "", req, into, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		b.now++
		return err
	})
	if !errors.Is(got, err) {
		b.t.Fatalf("the call returned %v, want %v", got, err)
	}
}

func onceRequest(once string) *apiv1.AcquireRequest {
	return &apiv1.AcquireRequest{Id: &apiv1.RequestID{Once: []byte(once)}, Locks: []*apiv1.Want{{Name: "a"}}, TtlNs: 9, Holder: "h", DelayNs: 3, Value: []byte("v")}
}

// TestEachUnaryCallIsAnOperation, also under one ID; after one that failed on its way its caller
// is gone.
func TestEachUnaryCallIsAnOperation(t *testing.T) {
	b := newBench(t)
	id := "0123456789abcdef"
	b.call(onceRequest(id), nil, io.ErrUnexpectedEOF)
	b.call(onceRequest(id), nil, apiv1.NewError(apiv1.CodeUnavailable, "no leader"))
	b.call(onceRequest(id), &apiv1.AcquireResponse{Token: 7, Deadline: 90, Queued: 81, Granted: 81}, nil)
	b.call(onceRequest(""), nil, apiv1.NewError(apiv1.CodeBusy, "held"))
	b.call(&apiv1.RenewRequest{Token: 7, TtlNs: 20}, &apiv1.RenewResponse{Deadline: 99}, nil)
	b.call(&apiv1.ReleaseRequest{Token: 7}, &apiv1.ReleaseResponse{}, nil)
	b.call(&apiv1.ResizeRequest{Name: "s", Limit: 3}, &apiv1.ResizeResponse{}, nil)
	b.call(&apiv1.StatusRequest{}, &apiv1.StatusResponse{}, nil)
	request := "once/" + "30313233343536373839616263646566"
	for i, want := range []Op{
		{Kind: Acquire, Request: request, Detached: true, Outcome: Unknown, Return: Never, Left: 1},
		{Kind: Acquire, Request: request, Detached: true, Outcome: Unknown, Return: Never, Left: 2},
		{Kind: Acquire, Request: request, Detached: true, Outcome: OK, Return: 3, Token: 7, Until: 90, Came: 81},
		{Kind: Acquire, Detached: true, Outcome: Busy, Return: 4},
		{Kind: Renew, Outcome: OK, Return: 5, Token: 7, Until: 99},
		{Kind: Release, Outcome: OK, Return: 6, Token: 7},
		{Kind: Resize, Outcome: OK, Return: 7},
	} {
		ops := b.History().Ops
		if len(ops) != 7 {
			t.Fatalf("recorded %d operations, want 7", len(ops))
		}
		got := ops[i]
		if got.Kind != want.Kind || got.Request != want.Request || got.Detached != want.Detached || got.Outcome != want.Outcome || got.Left != want.Left ||
			got.Return != want.Return || got.Token != want.Token || got.Until != want.Until || got.Came != want.Came || got.Bare != (got.Outcome != Unknown || i == 1) {
			t.Errorf("operation %d: recorded %+v, want %+v", i, got, want)
		}
		if got.Kind == Acquire && (got.Holder != "h" || got.Delay != 3 || got.Value != "v" || got.TTL != 9) {
			t.Errorf("operation %d: recorded %+v, want the whole request", i, got)
		}
	}
}

// TestOperationsOfABatchAreRecorded, with the index that each answer names.
func TestOperationsOfABatchAreRecorded(t *testing.T) {
	b := newBench(t)
	batch := &apiv1.BatchRequest{Operations: []*apiv1.Operation{
		{Id: 1, Request: &apiv1.Operation_Acquire{Acquire: onceRequest("0123456789abcdef")}},
		{Id: 2, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: 3}}},
	}}
	b.call(batch, &apiv1.BatchResponse{Answers: []*apiv1.Answer{grantAnswer(1, 3), refusalAnswer(2, apiv1.CodeNotHeld)}}, nil)
	b.call(batch, nil, apiv1.NewError(apiv1.CodeNotReady, "the node is stopping"))
	ops := b.History().Ops
	if len(ops) != 4 || ops[0].Index != 13 || ops[0].Bare || ops[1].Outcome != NotHeld || ops[1].Index != 5 || ops[2].Left != 2 || ops[3].Outcome != Unknown {
		t.Errorf("recorded %+v", ops)
	}
}

// TestTriesOfOneIDAreOperations: each session and sequence in which an ID is sent is
// one, and so is each sending that has none; the end of their stream is known.
func TestTriesOfOneIDAreOperations(t *testing.T) {
	b := newBench(t)
	first, second := b.stream(), b.stream()
	one := func(session []byte, sequence uint64) *apiv1.Operation {
		q := onceRequest("0123456789abcdef")
		q.Id.Session, q.Id.Sequence, q.Detached = session, sequence, true
		return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: q}}
	}
	b.send(first, 1, one(session(1), 1))
	b.send(first, 2, one(nil, 0))
	b.send(second, 1, one(session(1), 1))
	b.send(second, 2, one(session(2), 1))
	b.send(second, 3, one(nil, 0))
	b.now = 4
	if err := first.RecvMsg(&apiv1.SessionResponse{}); err == nil {
		t.Fatal("the stream has not ended")
	}
	ops := b.History().Ops
	if len(ops) != 4 {
		t.Fatalf("recorded %d operations, want 4: %+v", len(ops), ops)
	}
	for i, want := range []struct {
		try  string
		left bool
	}{{tryOf(hexOf([16]byte(session(1))), 1), false}, {"", true}, {tryOf(hexOf([16]byte(session(2))), 1), false}, {"", false}} {
		if ops[i].Try != want.try || ops[i].Session != "" || (ops[i].Left == 4) != want.left {
			t.Errorf("operation %d: recorded %+v, want %+v", i, ops[i], want)
		}
	}
}

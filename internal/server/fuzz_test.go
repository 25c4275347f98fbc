package server

import (
	"context"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// oneMessage is the server's side of a stream that receives one message and is
// then half-closed.
type oneMessage struct {
	grpc.ServerStream
	ctx      context.Context
	mu       sync.Mutex
	request  *apiv1.SessionRequest
	received []*apiv1.Answer
}

func (o *oneMessage) Context() context.Context { return o.ctx }

func (o *oneMessage) Recv() (*apiv1.SessionRequest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.request == nil {
		return nil, io.EOF
	}
	r := o.request
	o.request = nil
	return r, nil
}

func (o *oneMessage) Send(r *apiv1.SessionResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.received = append(o.received, r.GetAnswers()...)
	return nil
}

func FuzzSessionRequest(f *testing.F) {
	for _, ops := range [][]*apiv1.Operation{
		nil,
		{{Id: 1}},
		{acquireOp(1, "a", 0), acquireOp(1, "a", -1), getOp(2, "a")},
		{keepAliveOp(3, [16]byte{1}), {Id: 4, Request: &apiv1.Operation_KeepAlive{}}},
		{{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Target: &apiv1.RequestID{Session: []byte{1}}}}}},
		{{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Prefix: "a", Limit: 1 << 31}}}, {Request: &apiv1.Operation_SetValue{}}},
	} {
		b, err := proto.Marshal(&apiv1.SessionRequest{Operations: ops})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x0a, 0x03, 0x9a, 0x06, 0x00}) // an operation of a later version
	node := newFakeNode()
	node.on = func(c *mux.Call) bool {
		c.Done(errorAnswer(c.Op.GetId(), apiv1.NewError(apiv1.CodeNoSession, "%s", c.Op.Kind())))
		return true
	}
	s, err := New(Config{Backend: node, Limits: Limits{WatchesPerStream: 5}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var request apiv1.SessionRequest
		if proto.Unmarshal(message, &request) != nil {
			return
		}
		want := map[uint64]int{}
		for _, op := range request.GetOperations() {
			want[op.GetId()]++
		}
		g := &oneMessage{ctx: t.Context(), request: &request}
		err := (&locks{server: s}).Session(g)
		if n := len(request.GetOperations()); n > mux.MaxOperations {
			if apiv1.CodeOf(err) != apiv1.CodeTooLarge {
				t.Fatalf("%d operations: %v, want too_large", n, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("the stream ended with %v", err)
		}
		for _, a := range g.received {
			want[a.GetId()]--
		}
		for id, n := range want {
			if n != 0 {
				t.Fatalf("operation %d has %d answers too few", id, n)
			}
		}
		if err := s.receivers.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		node.mu.Lock()
		defer node.mu.Unlock()
		if len(node.watchers) != 0 {
			t.Fatalf("%d sessions are watched after the end", len(node.watchers))
		}
	})
}

package mux

import (
	"context"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proof/fuzz"
)

// scriptedNode is a connection to a node with one stream, which sends the given messages once
// from is closed, and then ends.
type scriptedNode struct {
	messages [][]byte
	from     chan struct{}
	ctx      context.Context
}

func (n *scriptedNode) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	panic("not a call of a stream")
}

func (n *scriptedNode) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	n.ctx = ctx
	return n, nil
}

func (n *scriptedNode) Header() (metadata.MD, error) { return nil, nil }
func (n *scriptedNode) Trailer() metadata.MD         { return nil }
func (n *scriptedNode) CloseSend() error             { return nil }
func (n *scriptedNode) Context() context.Context     { return n.ctx }

// SendMsg fails as grpc's does if the message cannot be encoded.
func (n *scriptedNode) SendMsg(m any) error {
	_, err := proto.Marshal(m.(proto.Message))
	return err
}

func (n *scriptedNode) RecvMsg(m any) error {
	select {
	case <-n.from:
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
	if len(n.messages) == 0 {
		return io.EOF
	}
	message := n.messages[0]
	n.messages = n.messages[1:]
	return proto.Unmarshal(message, m.(proto.Message))
}

// ends counts how each call ended.
type ends struct {
	mu   sync.Mutex
	done map[*Call]int
	late map[*Call]int
}

// FuzzSessionResponse lets a node send anything on a stream: every call gets one
// answer, under its own ID, or is passed to OnBreak, never both, and the conn ends.
func FuzzSessionResponse(f *testing.F) {
	message := func(r *apiv1.SessionResponse) []byte {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{byte(len(b))}, b...)
	}
	answer := func(id uint64) *apiv1.Answer {
		return &apiv1.Answer{Id: id, Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{Name: "a"}}}}
	}
	f.Add([]byte{})
	f.Add(message(&apiv1.SessionResponse{Answers: []*apiv1.Answer{answer(1), answer(2), answer(3), answer(4)}}))
	f.Add(message(&apiv1.SessionResponse{Answers: []*apiv1.Answer{answer(2), answer(2), answer(99), answer(0)}}))
	f.Add(append(message(&apiv1.SessionResponse{Answers: []*apiv1.Answer{answer(3)}}), message(&apiv1.SessionResponse{
		Answers: []*apiv1.Answer{answer(3)}, Notices: []*apiv1.Notice{{Session: []byte{1}}, {Revocation: &apiv1.Revocation{Number: 1}}},
	})...))
	f.Add([]byte{3, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		node := &scriptedNode{from: make(chan struct{})}
		for b := (&fuzz.Bytes{Data: data}); !b.Empty(); {
			node.messages = append(node.messages, b.Take())
		}
		e := &ends{done: map[*Call]int{}, late: map[*Call]int{}}
		conn, err := Open(t.Context(), node, Config{
			OnNotice: func(*apiv1.Notice) {},
			OnBreak: func(calls []*Call, _ error) {
				e.mu.Lock()
				defer e.mu.Unlock()
				for _, c := range calls {
					e.late[c]++
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		calls := e.start(t, conn, get("a"), waitingAcquire("b"), release(3), get("d"))
		close(node.from)
		<-conn.Done()
		e.mu.Lock()
		defer e.mu.Unlock()
		for i, c := range calls {
			if e.done[c]+e.late[c] != 1 {
				t.Errorf("call %d was answered %d times and handed back %d times", i, e.done[c], e.late[c])
			}
		}
	})
}

func (e *ends) start(t *testing.T, conn *Conn, ops ...*apiv1.Operation) (calls []*Call) {
	for i, op := range ops {
		op.Id = uint64(100 + i)
		c := &Call{Op: op}
		c.Done = func(a *apiv1.Answer) {
			if a.GetId() != op.GetId() {
				t.Errorf("call %d got answer %d", op.GetId(), a.GetId())
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.done[c]++
		}
		conn.Start(c)
		calls = append(calls, c)
	}
	return calls
}

// FuzzOperation takes any operation that can be decoded. An operation that passes the check
// can be encoded and is no longer than the check says: otherwise it would break the
// stream, with all calls on it, and each stream after that.
func FuzzOperation(f *testing.F) {
	id := &apiv1.RequestID{Session: make([]byte, 16), Sequence: 1 << 63, Acknowledged: 1 << 63}
	label := []*apiv1.Label{{Key: "k", Value: "v"}}
	for _, op := range []*apiv1.Operation{
		get("a"), release(1 << 63), waitingAcquire("b"),
		{Id: 1 << 63, Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
			Id: id, Locks: []*apiv1.Want{{Name: "a", Mode: -1, Permits: 1<<32 - 1, Limit: 1<<32 - 1}}, TtlNs: -1, WaitNs: -1, Holder: "h",
			Value: []byte("v"), Labels: label, DelayNs: -1, Detached: true,
		}}},
		{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: make([]byte, 16), TtlNs: -1, Holder: "h", Labels: label}}},
		{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: make([]byte, 16)}}},
		{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: make([]byte, 16), Undelivered: []uint64{1, 1 << 63}}}},
		{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: id, Target: id}}},
		{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Id: id, Name: "a", Token: 1, TtlNs: -1}}},
		{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Id: id, Name: "a", Token: 1, Value: []byte("v")}}},
		{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Id: id, Name: "a", Reason: "r", Who: "w"}}},
		{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Id: id, Name: "a", Limit: 1<<32 - 1}}},
		{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Prefix: "a", Limit: 1<<32 - 1, After: "b", MaxStaleNs: -1}}},
	} {
		f.Add(encoded(f, op))
	}
	f.Add(encoded(f, withUnknownFields(200)))
	f.Fuzz(func(t *testing.T, data []byte) {
		op := &apiv1.Operation{}
		if proto.Unmarshal(data, op) != nil {
			return
		}
		estimate, problem := inspect(op)
		if problem != nil {
			return
		}
		sent := &apiv1.Operation{Id: 1<<64 - 1, Redirect: op.GetRedirect(), Request: op.GetRequest()} // as the sender does
		b, err := proto.Marshal(&apiv1.SessionRequest{Operations: []*apiv1.Operation{sent}})
		if err != nil {
			t.Fatalf("%v passed the check and cannot be encoded: %v", op, err)
		}
		if len(b) > estimate {
			t.Errorf("%v has %d bytes, the check says at most %d", op, len(b), estimate)
		}
	})
}

func encoded(t testing.TB, op *apiv1.Operation) []byte {
	t.Helper()
	b, err := proto.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withUnknownFields is a release that a newer client sent with a field that this
// version does not know.
func withUnknownFields(bytes int) *apiv1.Operation {
	op := release(1)
	unknown := protowire.AppendTag(nil, 1000, protowire.BytesType)
	op.GetRelease().ProtoReflect().SetUnknown(protowire.AppendBytes(unknown, make([]byte, bytes)))
	return op
}

// Two of these once fitted into one message, because only their known fields were counted;
// the node refused the message and ended the stream, and they were sent again on the next.
func TestUnknownFieldsCount(t *testing.T) {
	if _, problem := inspect(withUnknownFields(1000)); problem != nil {
		t.Errorf("an operation of 1000 bytes: %v", problem)
	}
	_, problem := inspect(withUnknownFields(900 << 10))
	if apiv1.Code(problem.GetCode()) != apiv1.CodeTooLarge {
		t.Errorf("an operation of 900 KiB, most of them unknown: %v, want too_large", problem)
	}
}

// Only hostile operations have numbers in their longest form.
func TestLongestNumbersAreCounted(t *testing.T) {
	span := &apiv1.Span{First: 1 << 63, Last: 1 << 63}
	id := &apiv1.RequestID{Session: make([]byte, 16), Sequence: 1 << 63, Acknowledged: 1 << 63, Answered: []*apiv1.Span{span, span}}
	acquire := &apiv1.AcquireRequest{Id: id, TtlNs: -1, WaitNs: -1, Holder: "h", Value: []byte("v"), DelayNs: -1, Detached: true}
	end := &apiv1.EndSessionRequest{Session: make([]byte, 16)}
	for range 64 {
		end.Undelivered = append(end.Undelivered, 1<<63)
	}
	for range 64 {
		acquire.Locks = append(acquire.Locks, &apiv1.Want{Mode: -1, Permits: 1<<32 - 1, Limit: 1<<32 - 1})
	}
	for _, op := range []*apiv1.Operation{
		{Id: 1 << 63, Redirect: true, Request: &apiv1.Operation_Acquire{Acquire: acquire}},
		{Id: 1 << 63, Redirect: true, Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: id, Target: id}}},
		{Id: 1 << 63, Redirect: true, Request: &apiv1.Operation_EndSession{EndSession: end}},
	} {
		size, _ := inspect(op)
		if got := proto.Size(&apiv1.SessionRequest{Operations: []*apiv1.Operation{op}}); got > size {
			t.Errorf("%T has %d bytes, the check says at most %d", op.GetRequest(), got, size)
		}
	}
}

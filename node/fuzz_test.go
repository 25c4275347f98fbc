package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/fuzz"
)

// rawCodec sends bytes as they are and decodes what it receives.
type rawCodec struct{}

func (rawCodec) Name() string                    { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

// target is a node that leads a cluster of one and has small limits.
type target struct {
	*Node
	cc   *grpc.ClientConn
	runs int
}

func startTarget(f *testing.F) *target {
	f.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "node-fuzz-")
	if err != nil {
		dir = f.TempDir()
	}
	n, err := Open(context.Background(), Config{
		DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true, Timing: time.Second,
		Limits: fsm.Limits{
			Sessions: 16, Grants: 100, Waiters: 40, WaitersPerLock: 10, GrantsPerSession: 30, OnceRemembered: 64, EndedRemembered: 64, RequestsWindow: 50,
			MaxTTL: int64(3 * time.Second), MaxWait: int64(2 * time.Second),
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	cc, err := grpc.NewClient(n.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := errors.Join(cc.Close(), n.Close(), os.RemoveAll(dir)); err != nil {
			f.Errorf("end of the node: %v", err)
		}
	})
	return &target{Node: n, cc: cc}
}

// wellAfterwards checks that the node still serves, and now and then that its table
// is intact: a snapshot is restored only if every invariant holds.
func (n *target) wellAfterwards(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatalf("the node no longer serves: %v, %v", err, n.Err())
	}
	if n.runs++; n.runs%32 != 1 {
		return
	}
	var snapshot bytes.Buffer
	n.machine.View(func(table *fsm.Table) { _, _ = table.Snapshot().WriteTo(&snapshot) })
	if _, err := fsm.Restore(&snapshot); err != nil {
		t.Fatalf("the table no longer holds its invariants: %v", err)
	}
}

// unaryCalls are the calls that change nothing but the table.
var unaryCalls = []struct {
	name   string
	answer func() proto.Message
}{
	{"OpenSession", func() proto.Message { return &apiv1.OpenSessionResponse{} }},
	{"KeepAlive", func() proto.Message { return &apiv1.KeepAliveResponse{} }},
	{"EndSession", func() proto.Message { return &apiv1.EndSessionResponse{} }},
	{"Acquire", func() proto.Message { return &apiv1.AcquireResponse{} }},
	{"Cancel", func() proto.Message { return &apiv1.CancelResponse{} }},
	{"Release", func() proto.Message { return &apiv1.ReleaseResponse{} }},
	{"Renew", func() proto.Message { return &apiv1.RenewResponse{} }},
	{"SetValue", func() proto.Message { return &apiv1.SetValueResponse{} }},
	{"ForceRelease", func() proto.Message { return &apiv1.ForceReleaseResponse{} }},
	{"Resize", func() proto.Message { return &apiv1.ResizeResponse{} }},
	{"Get", func() proto.Message { return &apiv1.GetResponse{} }},
	{"List", func() proto.Message { return &apiv1.ListResponse{} }},
	{"Batch", func() proto.Message { return &apiv1.BatchResponse{} }},
	{"Status", func() proto.Message { return &apiv1.StatusResponse{} }},
	{"Members", func() proto.Message { return &apiv1.MembersResponse{} }},
}

// fuzzedOperations has one or more of each kind.
func fuzzedOperations() []*apiv1.Operation {
	session := bytes.Repeat([]byte{7}, 16)
	id := func(sequence uint64) *apiv1.RequestID { return &apiv1.RequestID{Session: session, Sequence: sequence} }
	want := func(mode apiv1.Mode) []*apiv1.Want { return []*apiv1.Want{{Name: "a", Mode: mode}} }
	ttl := int64(2 * time.Second)
	return []*apiv1.Operation{
		{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: session, TtlNs: ttl, Holder: "h", Labels: []*apiv1.Label{{Key: "k", Value: "v"}}}}},
		{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session, RevocationsSeen: 1}}},
		{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Id: id(1), Locks: want(0)}}},
		{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Id: id(2), Locks: want(apiv1.Mode_MODE_SHARED), WaitNs: -1, TtlNs: ttl, Value: []byte("v"), DelayNs: 1}}},
		{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: "c", Mode: apiv1.Mode_MODE_PERMITS, Permits: 1, Limit: 2}, {Name: "d"}}, TtlNs: ttl, WaitNs: 1e6, Detached: true}}},
		{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Id: id(3), Name: "a", Token: 1, Value: []byte("w")}}},
		{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Id: id(4), Token: 2, TtlNs: ttl}}},
		{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: id(5), Target: id(2)}}},
		{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: id(6), Name: "a", Token: 1}}},
		{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "a", Reason: "r", Who: "w"}}},
		{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Id: id(7), Name: "c", Limit: 3}}},
		{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}},
		{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Limit: 2, MaxStaleNs: 1e9}}},
		{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: session}}},
	}
}

func mustMarshal(f *testing.F, m proto.Message) []byte {
	f.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzUnary sends any bytes as the request of any call to a node that leads. The answer is
// the call's or an error that has a code, and the node goes on serving.
func FuzzUnary(f *testing.F) {
	byName := map[string]byte{}
	for i, call := range unaryCalls {
		byName[call.name] = byte(i)
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0xff})
	}
	var all []*apiv1.Operation
	for _, op := range fuzzedOperations() {
		m := op.ProtoReflect()
		field := m.WhichOneof(m.Descriptor().Oneofs().ByName("request"))
		name := string(m.Get(field).Message().Descriptor().Name())
		f.Add(byName[name[:len(name)-len("Request")]], mustMarshal(f, m.Get(field).Message().Interface()))
		all = append(all, op)
	}
	f.Add(byName["Batch"], mustMarshal(f, &apiv1.BatchRequest{Operations: all}))
	f.Add(byName["Batch"], mustMarshal(f, &apiv1.BatchRequest{Operations: []*apiv1.Operation{{Id: 3}, {Id: 3}}}))
	n := startTarget(f)
	f.Fuzz(func(t *testing.T, which byte, request []byte) {
		defer fuzz.Watch()()
		call := unaryCalls[int(which)%len(unaryCalls)]
		var acquire apiv1.AcquireRequest
		var batch apiv1.BatchRequest
		mayWait := call.name == "Acquire" && proto.Unmarshal(request, &acquire) == nil && acquire.GetWaitNs() != 0
		if call.name == "Batch" && proto.Unmarshal(request, &batch) == nil {
			mayWait = anyWaits(batch.GetOperations())
		}
		ctx, cancel := patienceFor(t, mayWait)
		defer cancel()
		answer := call.answer()
		err := n.cc.Invoke(ctx, "/locknode.v1.Locks/"+call.name, request, answer)
		if err != nil {
			checkStatus(t, err, mayWait)
		}
		if got, ok := answer.(*apiv1.BatchResponse); ok && err == nil {
			if len(got.GetAnswers()) != len(batch.GetOperations()) {
				t.Fatalf("%d answers to %d operations", len(got.GetAnswers()), len(batch.GetOperations()))
			}
			for i, op := range batch.GetOperations() {
				checkAnswer(t, op, got.GetAnswers()[i])
			}
		}
		n.wellAfterwards(t)
	})
}

// patienceFor returns a deadline: short for a call that may wait, and otherwise one that only
// a call that hangs exceeds.
func patienceFor(t *testing.T, mayWait bool) (context.Context, context.CancelFunc) {
	limit := 15 * time.Second
	if mayWait {
		limit = 5 * time.Millisecond
	}
	return context.WithTimeout(t.Context(), limit)
}

func anyWaits(ops []*apiv1.Operation) bool {
	for _, op := range ops {
		if op.GetAcquire().GetWaitNs() != 0 {
			return true
		}
	}
	return false
}

// checkStatus checks that an error is one of the protocol's, or grpc's because it could not
// decode the request or the caller has gone away.
func checkStatus(t *testing.T, err error, mayWait bool) {
	t.Helper()
	s := status.Convert(err)
	switch s.Code() {
	case codes.DeadlineExceeded, codes.Canceled:
		if mayWait || apiv1.CodeOf(err) == apiv1.CodeCancelled {
			return
		}
	case codes.Internal:
		if bytes.Contains([]byte(s.Message()), []byte("unmarshal")) {
			return
		}
	}
	code := apiv1.CodeOf(err)
	if fmt.Sprintf("code_%d", uint32(code)) == code.String() || code == apiv1.CodeOK || code == apiv1.CodeInternal || s.Message() == "" {
		t.Fatalf("answered %v, code %v", err, code)
	}
}

// checkAnswer checks that an answer is one to the operation.
func checkAnswer(t *testing.T, op *apiv1.Operation, a *apiv1.Answer) {
	t.Helper()
	if a.GetId() != op.GetId() {
		t.Fatalf("operation %d got answer %d", op.GetId(), a.GetId())
	}
	if e := a.GetError(); e != nil {
		code := apiv1.Code(e.GetCode())
		if fmt.Sprintf("code_%d", e.GetCode()) == code.String() || code == apiv1.CodeOK || code == apiv1.CodeInternal || code == apiv1.CodeQueued || e.GetMessage() == "" {
			t.Fatalf("%v was answered %v", op, e)
		}
		return
	}
	asked, got := op.ProtoReflect(), a.ProtoReflect()
	kind := asked.WhichOneof(asked.Descriptor().Oneofs().ByName("request"))
	result := got.WhichOneof(got.Descriptor().Oneofs().ByName("result"))
	switch {
	case kind == nil && result == nil: // a ping
	case kind == nil || result == nil || kind.Name() != result.Name():
		t.Fatalf("%v was answered %v", op, a)
	}
	if got := a.GetAcquire(); got != nil && (got.GetToken() == 0 || got.GetGranted() < got.GetQueued()) {
		t.Fatalf("%v was granted as %v", op, got)
	}
}

// FuzzSessionStream sends any bytes as messages of a stream. Each operation gets
// one answer of its kind, or the stream ends with an error that has a code.
func FuzzSessionStream(f *testing.F) {
	frame := func(ops ...*apiv1.Operation) []byte {
		b := mustMarshal(f, &apiv1.SessionRequest{Operations: ops})
		return append([]byte{byte(len(b))}, b...)
	}
	var all []byte
	for i, op := range fuzzedOperations() {
		op.Id = uint64(i)
		all = append(all, frame(op)...)
	}
	f.Add(all)
	f.Add(frame(&apiv1.Operation{Id: 1}, &apiv1.Operation{Id: 1, Redirect: true}))
	f.Add([]byte{1, 0xff})
	f.Add([]byte{0, 0, 0})
	n := startTarget(f)
	description := &grpc.StreamDesc{StreamName: "Session", ServerStreams: true, ClientStreams: true}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		asked := map[uint64]*question{}
		var messages [][]byte
		mayWait := false
		for b := (&fuzz.Bytes{Data: data}); !b.Empty(); {
			messages = append(messages, b.Take())
			var q apiv1.SessionRequest
			if proto.Unmarshal(messages[len(messages)-1], &q) != nil {
				continue
			}
			mayWait = mayWait || anyWaits(q.GetOperations())
			for _, op := range q.GetOperations() {
				if asked[op.GetId()] == nil {
					asked[op.GetId()] = &question{}
				}
				same := asked[op.GetId()]
				same.ops = append(same.ops, op)
			}
		}
		ctx, cancel := patienceFor(t, mayWait)
		defer cancel()
		stream, err := n.cc.NewStream(ctx, description, "/locknode.v1.Locks/Session")
		if err != nil {
			t.Skip("the machine is too slow at the moment")
		}
		for _, message := range messages {
			if stream.SendMsg(message) != nil {
				break // RecvMsg returns why
			}
		}
		_ = stream.CloseSend()
		for {
			var got apiv1.SessionResponse
			err := stream.RecvMsg(&got)
			for _, a := range got.GetAnswers() {
				asked[a.GetId()].answer(t, a)
			}
			if errors.Is(err, io.EOF) {
				for id, q := range asked {
					if q.answered < len(q.ops) {
						t.Fatalf("operation %d was not answered", id)
					}
				}
				break
			}
			if err != nil {
				checkStatus(t, err, mayWait)
				break
			}
		}
		n.wellAfterwards(t)
	})
}

// question holds the operations of one ID, and how many of them were answered.
type question struct {
	ops      []*apiv1.Operation
	answered int
}

// answer checks an answer. Answers come in any order, so it may belong to any of several
// operations of the ID.
func (q *question) answer(t *testing.T, a *apiv1.Answer) {
	t.Helper()
	if q == nil || q.answered == len(q.ops) {
		t.Fatalf("answer %v to no request", a)
	}
	if len(q.ops) == 1 {
		checkAnswer(t, q.ops[0], a)
	}
	q.answered++
}

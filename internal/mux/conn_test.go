package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/locknode/locknode/api/v1"

	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/testall"
)

func TestMain(m *testing.M) {
	racedetector.OneThread()
	testall.AtOnce(10) // they wait for time limits
	goleak.VerifyTestMain(m)
}

// patience bounds waits for what must happen soon, on a machine that is also busy.
const patience = time.Minute

type sessionStream = grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionResponse]

// sessionServer serves Session streams by a function.
type sessionServer struct {
	apiv1.UnimplementedLocksServer
	session func(sessionStream) error
}

func (s *sessionServer) Session(stream sessionStream) error { return s.session(stream) }

// connect serves session on an in-memory listener and returns a connection to it.
func connect(t testing.TB, session func(sessionStream) error) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	apiv1.RegisterLocksServer(srv, &sessionServer{session: session})
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(func() { _ = cc.Close(); srv.Stop(); <-served })
	return cc
}

// refuse is an HTTP/2 server that sends GOAWAY at the first stream, as one that it has not
// handled: gRPC may open it again on another connection.
func refuse(conn net.Conn) error {
	frame := func(kind byte, payload ...byte) []byte {
		return append([]byte{0, 0, byte(len(payload)), kind, 0, 0, 0, 0, 0}, payload...)
	}
	const headers, settings, goAway = 1, 4, 7
	if _, err := io.CopyN(io.Discard, conn, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return err
	}
	if _, err := conn.Write(frame(settings)); err != nil {
		return err
	}
	for head := [9]byte{}; head[3] != headers; {
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, length); err != nil {
			return err
		}
	}
	_, err := conn.Write(frame(goAway, make([]byte, 8)...)) // after stream 0, without an error
	return errors.Join(err, conn.Close())
}

// echo answers a get with its name and everything else with an empty result.
func echo(stream sessionStream) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil
		}
		var resp apiv1.SessionResponse
		for _, op := range req.GetOperations() {
			resp.Answers = append(resp.Answers, echoAnswer(op))
		}
		if err := stream.Send(&resp); err != nil {
			return nil
		}
	}
}

func echoAnswer(op *apiv1.Operation) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId()}
	if get := op.GetGet(); get != nil {
		a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{Name: get.GetName()}}}
	}
	return a
}

func open(t testing.TB, cc grpc.ClientConnInterface, cfg Config) *Conn {
	t.Helper()
	conn, err := Open(t.Context(), cc, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { conn.Close(); <-conn.Done() })
	return conn
}

func get(name string) *apiv1.Operation {
	return &apiv1.Operation{Id: 7, Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: name}}}
}

func release(token uint64) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: token}}}
}

func waitingAcquire(name string) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
		Locks: []*apiv1.Want{{Name: name}}, WaitNs: -1,
	}}}
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

func TestAnswersFindTheirCallers(t *testing.T) {
	conn := open(t, connect(t, echo), Config{})
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := range 100 {
				name := fmt.Sprintf("%d/%d", worker, i)
				a, err := Do(t.Context(), conn.Start, get(name)) // every caller uses id 7
				if err != nil || a.GetId() != 7 || a.GetGet().GetLock().GetName() != name {
					t.Errorf("get %q: answer %v, error %v", name, a, err)
				}
			}
		})
	}
	wg.Wait()
	if err := conn.Err(); err != nil {
		t.Errorf("Err() = %v, want nil while the conn works", err)
	}
}

func TestTheCallersOperationIsNotChanged(t *testing.T) {
	conn := open(t, connect(t, echo), Config{})
	op := get("a")
	for range 3 {
		if _, err := Do(t.Context(), conn.Start, op); err != nil || op.GetId() != 7 {
			t.Fatalf("operation id after the call = %d (%v), want 7", op.GetId(), err)
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	type message struct{ operations, bytes int }
	messages := make(chan message, 10_000)
	var gate sync.WaitGroup
	gate.Add(1)
	cc := connect(t, func(stream sessionStream) error {
		gate.Wait()
		for {
			req, err := stream.Recv()
			if err != nil {
				return nil
			}
			m := message{operations: len(req.GetOperations())}
			var resp apiv1.SessionResponse
			for _, op := range req.GetOperations() {
				m.bytes += len(op.GetSetValue().GetValue())
				resp.Answers = append(resp.Answers, echoAnswer(op))
			}
			messages <- m
			if stream.Send(&resp) != nil {
				return nil
			}
		}
	})
	conn := open(t, cc, Config{Patience: NewPatience(time.Minute)})
	var wg sync.WaitGroup
	start := func(n, valueBytes int) {
		for range n {
			wg.Add(1)
			conn.Start(&Call{
				Op: &apiv1.Operation{Request: &apiv1.Operation_SetValue{
					SetValue: &apiv1.SetValueRequest{Value: make([]byte, valueBytes)},
				}},
				Done: func(*apiv1.Answer) { wg.Done() },
			})
		}
	}
	start(3000, 0)
	start(100, 32<<10)
	gate.Done()
	wg.Wait()
	close(messages)
	full := 0
	for m := range messages {
		if m.operations > MaxOperations || m.bytes > maxMessageBytes {
			t.Errorf("a message has %d operations and %d bytes; at most %d and %d", m.operations, m.bytes, MaxOperations, maxMessageBytes)
		}
		if m.operations > 100 {
			full++
		}
	}
	if full == 0 {
		t.Error("3,000 operations started at once were not packed into big messages")
	}
}

func TestWhatCannotBeSentIsAnsweredAndBreaksNothing(t *testing.T) {
	conn := open(t, connect(t, echo), Config{})
	for _, c := range []struct {
		name string
		op   *apiv1.Operation
		want apiv1.Code
	}{
		{"name", get("a\xff"), apiv1.CodeInvalid},
		{"lock", waitingAcquire("\xc3\x28"), apiv1.CodeInvalid},
		{"holder", &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Holder: "\xff"}}}, apiv1.CodeInvalid},
		{"label", &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Labels: []*apiv1.Label{{Value: "\xff"}}}}}, apiv1.CodeInvalid},
		{"reason", &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Reason: "\xff"}}}, apiv1.CodeInvalid},
		{"prefix", &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Prefix: "\xff"}}}, apiv1.CodeInvalid},
		{"long", get(strings.Repeat("a", maxOperationBytes)), apiv1.CodeTooLarge},
		{"long value", &apiv1.Operation{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Value: make([]byte, 8<<20)}}}, apiv1.CodeTooLarge},
	} {
		a, err := Do(t.Context(), conn.Start, c.op)
		if got := apiv1.Code(a.GetError().GetCode()); err != nil || got != c.want || a.GetId() != c.op.GetId() {
			t.Errorf("%s: answer %v, error %v, want %v", c.name, a, err, c.want)
		}
		if a, err := Do(t.Context(), conn.Start, get("b")); err != nil || a.GetGet() == nil {
			t.Fatalf("after %s: answer %v, error %v", c.name, a, err)
		}
	}
}

// broken collects what OnBreak gets.
type broken struct {
	calls []*Call
	err   error
}

func TestBreakHandsOverInTheOrderStarted(t *testing.T) {
	const n = 1500
	received := make(chan struct{})
	var count atomic.Int32
	cc := connect(t, func(stream sessionStream) error {
		for {
			req, err := stream.Recv()
			if err != nil {
				return nil
			}
			if count.Add(int32(len(req.GetOperations()))) >= n {
				close(received)
				return errors.New("gone")
			}
		}
	})
	breaks := make(chan broken, 10)
	conn := open(t, cc, Config{Patience: NewPatience(time.Minute), OnBreak: func(calls []*Call, err error) { breaks <- broken{calls, err} }})
	var want []*Call
	for range n {
		want = append(want, &Call{Op: get("a"), Done: func(*apiv1.Answer) { t.Error("a call was answered") }})
		conn.Start(want[len(want)-1])
	}
	receiveWithin(t, "the last operation's arrival", received)
	b := receiveWithin(t, "the hand-over", breaks)
	if b.err == nil || len(b.calls) != n {
		t.Fatalf("handed over %d calls with error %v, want %d", len(b.calls), b.err, n)
	}
	for i := range want {
		if b.calls[i] != want[i] {
			t.Fatalf("call %d is not the one started as number %d", i, i)
		}
		if !want[i].Doubtful() {
			t.Fatalf("call %d may have taken effect, and is not Doubtful", i)
		}
	}
	receiveWithin(t, "the end", conn.Done())
	late := &Call{Op: get("late")}
	conn.Start(late)
	if b := receiveWithin(t, "the late hand-over", breaks); len(b.calls) != 1 || b.calls[0] != late || b.err == nil || late.Doubtful() {
		t.Errorf("late call: handed over %d calls, error %v; it is doubtful: %v, though it was never sent", len(b.calls), b.err, late.Doubtful())
	}
	if conn.Err() == nil {
		t.Error("Err() = nil after the break")
	}
}

func TestEveryCallIsAnsweredOrHandedOverOnce(t *testing.T) {
	cc := connect(t, func(stream sessionStream) error {
		lives := rand.IntN(20)
		for range lives {
			req, err := stream.Recv()
			if err != nil {
				return nil
			}
			var resp apiv1.SessionResponse
			for _, op := range req.GetOperations() {
				if rand.IntN(4) > 0 {
					resp.Answers = append(resp.Answers, echoAnswer(op))
				}
			}
			_ = stream.Send(&resp)
		}
		return errors.New("gone")
	})
	for range 30 { // at once: most of their time passes until answers are late
		t.Run("round", func(t *testing.T) {
			t.Parallel()
			var ends sync.WaitGroup
			var counts [400]atomic.Int32
			index := map[*Call]int{}
			calls := make([]*Call, len(counts))
			for i := range calls {
				ends.Add(1)
				calls[i] = &Call{Op: get("a"), Done: func(*apiv1.Answer) {
					if counts[i].Add(1) == 1 {
						ends.Done()
					}
				}}
				index[calls[i]] = i
			}
			conn := open(t, cc, Config{Patience: NewPatience(50 * time.Millisecond), OnBreak: func(calls []*Call, _ error) {
				for _, call := range calls {
					call.Done(nil)
				}
			}})
			for part := range 4 {
				go func() {
					for _, call := range calls[part*100 : part*100+100] {
						conn.Start(call)
					}
				}()
			}
			ends.Wait()
			conn.Close()
			receiveWithin(t, "the end", conn.Done())
			for i := range counts {
				if n := counts[i].Load(); n != 1 {
					t.Fatalf("call %d ended %d times", i, n)
				}
			}
		})
	}
}

func TestCloseAnswersUnknownOutcomeWithoutOnBreak(t *testing.T) {
	conn := open(t, connect(t, func(stream sessionStream) error { <-stream.Context().Done(); return nil }), Config{})
	answers := make(chan *apiv1.Answer, 1)
	conn.Start(&Call{Op: get("a"), Done: func(a *apiv1.Answer) { answers <- a }})
	conn.Close()
	conn.Close()
	a := receiveWithin(t, "the answer", answers)
	if got := apiv1.Code(a.GetError().GetCode()); got != apiv1.CodeUnknownOutcome || a.GetId() != 7 {
		t.Errorf("answer %v, want id 7 and unknown_outcome", a)
	}
	receiveWithin(t, "the end", conn.Done())
	if err := conn.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("Err() = %v, want ErrClosed", err)
	}
}

func TestCallbacksMayUseTheConn(t *testing.T) {
	conn := open(t, connect(t, echo), Config{})
	answers := make(chan *apiv1.Answer, 1)
	conn.Start(&Call{Op: get("a"), Done: func(*apiv1.Answer) {
		conn.Start(&Call{Op: get("b"), Done: func(a *apiv1.Answer) { conn.Close(); answers <- a }})
	}})
	if a := receiveWithin(t, "the second answer", answers); a.GetGet().GetLock().GetName() != "b" {
		t.Errorf("answer %v, want that of b", a)
	}
}

func TestNoticesAreDelivered(t *testing.T) {
	cc := connect(t, func(stream sessionStream) error {
		_ = stream.Send(&apiv1.SessionResponse{Notices: []*apiv1.Notice{{Session: []byte("0123456789abcdef")}}})
		<-stream.Context().Done()
		return nil
	})
	notices := make(chan *apiv1.Notice, 1)
	open(t, cc, Config{OnNotice: func(n *apiv1.Notice) { notices <- n }})
	if n := receiveWithin(t, "the notice", notices); string(n.GetSession()) != "0123456789abcdef" {
		t.Errorf("notice %v", n)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	cc, err := grpc.NewClient("passthrough:///nowhere",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, cc, Config{}); err == nil {
		t.Error("Open of a node that does not answer the dial: no error")
	}
}

func TestTheStreamOutlivesOpensContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := Open(ctx, connect(t, echo), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.Close(); <-conn.Done() }()
	cancel()
	if a, err := Do(t.Context(), conn.Start, get("a")); err != nil || a.GetGet() == nil {
		t.Errorf("after the end of Open's context: answer %v, error %v", a, err)
	}
}

func TestEndOfStreamIsABreak(t *testing.T) {
	breaks := make(chan broken, 1)
	open(t, connect(t, func(sessionStream) error { return nil }), Config{OnBreak: func(c []*Call, err error) { breaks <- broken{c, err} }})
	if b := receiveWithin(t, "the break", breaks); !errors.Is(b.err, io.EOF) || len(b.calls) != 0 {
		t.Errorf("handed over %d calls, error %v; want none and the end of the stream", len(b.calls), b.err)
	}
}

// gRPC would open such a stream again by itself, without a time limit, and block the
// sender meanwhile, while another node may be available.
func TestGRPCDoesNotOpenAStreamAgain(t *testing.T) {
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- refuse(far) }()
	first := make(chan net.Conn, 1)
	first <- near
	cc, err := grpc.NewClient("passthrough:///pipe",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}))
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	breaks := make(chan broken, 1)
	open(t, cc, Config{OnBreak: func(calls []*Call, err error) { breaks <- broken{calls, err} }})
	receiveWithin(t, "the break", breaks)
	if err := receiveWithin(t, "the end of the server", served); err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	conn := open(t, connect(t, func(stream sessionStream) error { <-stream.Context().Done(); return nil }), Config{OnBreak: func([]*Call, error) {}})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	var started *Call
	a, err := Do(ctx, func(c *Call) { started = c; conn.Start(c) }, get("a"))
	if a != nil || !errors.Is(err, cause) || !started.Abandoned() {
		t.Errorf("Do = %v, %v, abandoned %v; want the context's cause and an abandoned call", a, err, started.Abandoned())
	}
}

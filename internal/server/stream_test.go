package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

type clientStream = grpc.BidiStreamingClient[apiv1.SessionRequest, apiv1.SessionResponse]

func openStream(t testing.TB, r *running) clientStream {
	t.Helper()
	return openStreamOn(t, r.dial(t))
}

func openStreamOn(t testing.TB, cc grpc.ClientConnInterface) clientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := apiv1.NewLocksClient(cc).Session(ctx)
	if err != nil {
		t.Fatalf("Session: %v", err)
	}
	return stream
}

func sendOps(t testing.TB, stream clientStream, ops ...*apiv1.Operation) {
	t.Helper()
	if err := stream.Send(&apiv1.SessionRequest{Operations: ops}); err != nil {
		t.Fatalf("Send: %v", err)
	}
}

// receiveAnswers reads until n answers have come.
func receiveAnswers(t testing.TB, stream clientStream, n int) []*apiv1.Answer {
	t.Helper()
	var all []*apiv1.Answer
	for len(all) < n {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d of %d answers: %v", len(all), n, err)
		}
		all = append(all, resp.GetAnswers()...)
	}
	return all
}

func openMux(t testing.TB, cc grpc.ClientConnInterface, cfg mux.Config) *mux.Conn {
	t.Helper()
	conn, err := mux.Open(t.Context(), cc, cfg)
	if err != nil {
		t.Fatalf("mux.Open: %v", err)
	}
	t.Cleanup(func() { conn.Close(); <-conn.Done() })
	return conn
}

func TestManyCallersShareAStream(t *testing.T) {
	r := serve(t, Config{})
	conn := openMux(t, r.dial(t), mux.Config{})
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			name := fmt.Sprintf("orders/%d", worker)
			for range 50 {
				a, err := mux.Do(t.Context(), conn.Start, acquireOp(0, name, 0))
				if err != nil || a.GetAcquire() == nil {
					t.Errorf("acquire %q: answer %v, error %v", name, a, err)
					return
				}
				a, err = mux.Do(t.Context(), conn.Start, &apiv1.Operation{Request: &apiv1.Operation_Release{
					Release: &apiv1.ReleaseRequest{Name: name, Token: a.GetAcquire().GetToken()},
				}})
				if err != nil || a.GetRelease() == nil {
					t.Errorf("release %q: answer %v, error %v", name, a, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestQueuedAcquireDoesNotHoldUpTheStream(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0), acquireOp(2, "a", -1), getOp(3, "a"))
	answers := receiveAnswers(t, stream, 2)
	token := answers[0].GetAcquire().GetToken()
	if answers[0].GetId() != 1 || answers[1].GetId() != 3 || answers[1].GetGet().GetLock().GetWaiters() != 1 {
		t.Fatalf("answers %v, want the grant and the read that sees one waiter", answers)
	}
	sendOps(t, stream, &apiv1.Operation{Id: 4, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: "a", Token: token}}})
	for _, a := range receiveAnswers(t, stream, 2) {
		if a.GetId() == 2 && a.GetAcquire().GetToken() <= token {
			t.Errorf("the waiter got token %d, want more than %d", a.GetAcquire().GetToken(), token)
		}
	}
}

func TestPingIsAnsweredAndUnknownOperationRefused(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	unknown := &apiv1.Operation{Id: 2}
	unknown.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("new")))
	sendOps(t, stream, &apiv1.Operation{Id: 1}, unknown)
	answers := receiveAnswers(t, stream, 2)
	if a := answers[0]; a.GetId() != 1 || a.GetResult() != nil {
		t.Errorf("answer to a ping: %v, want only its id", a)
	}
	if a := answers[1]; a.GetId() != 2 || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnknownCommand {
		t.Errorf("answer to an unknown operation: %v, want unknown_command", a)
	}
}

func TestHalfClosedStreamGetsItsAnswers(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0), acquireOp(2, "a", -1))
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	token := receiveAnswers(t, stream, 1)[0].GetAcquire().GetToken()
	if _, err := r.client(t).Release(t.Context(), &apiv1.ReleaseRequest{Name: "a", Token: token}); err != nil {
		t.Fatal(err)
	}
	if a := receiveAnswers(t, stream, 1)[0]; a.GetId() != 2 || a.GetAcquire() == nil {
		t.Errorf("answer %v, want the grant", a)
	}
	if resp, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, %v, want the end", resp, err)
	}
}

func TestMessageOfTooManyOperationsEndsTheStream(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	ops := make([]*apiv1.Operation, mux.MaxOperations+1)
	for i := range ops {
		ops[i] = getOp(uint64(i), "a")
	}
	sendOps(t, stream, ops...)
	if _, err := stream.Recv(); apiv1.CodeOf(err) != apiv1.CodeTooLarge {
		t.Errorf("Recv: %v, want too_large", err)
	}
}

func releaseOp(id uint64, name string, token uint64) *apiv1.Operation {
	return &apiv1.Operation{Id: id, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: name, Token: token}}}
}

// An acquire that may wait is refused because others wait, and nothing else is.
func TestWaitsOfAStreamAreBoundedAndLeaveRoomForTheRest(t *testing.T) {
	r := serve(t, Config{Limits: Limits{InFlight: 5, WaitsPerStream: 10}})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0))
	token := receiveAnswers(t, stream, 1)[0].GetAcquire().GetToken()
	for i := range 15 {
		sendOps(t, stream, acquireOp(uint64(100+i), "a", -1))
	}
	for _, a := range receiveAnswers(t, stream, 5) {
		if apiv1.Code(a.GetError().GetCode()) != apiv1.CodeOverloaded || a.GetId() < 110 {
			t.Errorf("answer %v, want overloaded for the last five", a)
		}
	}
	sendOps(t, stream, acquireOp(2, "b", 0), keepAliveOp(3, [16]byte{1}))
	for _, a := range receiveAnswers(t, stream, 2) {
		if a.GetError() != nil {
			t.Errorf("beside as many waits as there may be: %v, want it to be served", a)
		}
	}
	sendOps(t, stream, releaseOp(4, "a", token))
	got := map[uint64]bool{}
	for _, a := range receiveAnswers(t, stream, 2) {
		got[a.GetId()] = a.GetError() == nil
	}
	if !got[4] || !got[100] {
		t.Errorf("answered: %v, want the release and the first that waits", got)
	}
	sendOps(t, stream, acquireOp(5, "a", -1)) // one may wait again
	sendOps(t, stream, acquireOp(6, "a", -1))
	if a := receiveAnswers(t, stream, 1)[0]; a.GetId() != 6 {
		t.Errorf("answer %v, want a refusal of the second one", a)
	}
}

// Unanswered operations fill a stream; those that free have places beyond them.
func TestOperationsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	node := newFakeNode()
	node.on = func(*mux.Call) bool { return true } // and never answers
	r := serve(t, Config{Backend: node, Limits: Limits{InFlight: 10}})
	stream := openStream(t, r)
	for i := range uint64(15) {
		sendOps(t, stream, getOp(100+i, "a"))
	}
	for i, a := range receiveAnswers(t, stream, 5) {
		if apiv1.Code(a.GetError().GetCode()) != apiv1.CodeOverloaded || a.GetId() != uint64(110+i) {
			t.Errorf("answer %v, want overloaded for the last five", a)
		}
	}
	frees := []*apiv1.Operation{
		keepAliveOp(0, [16]byte{1}), releaseOp(0, "a", 1),
		{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{}}},
		{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{}}},
		{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{}}},
		{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{}}},
	}
	for i := range uint64(12) {
		op := frees[i%6]
		sendOps(t, stream, &apiv1.Operation{Id: 200 + i, Request: op.GetRequest()})
	}
	for i, a := range receiveAnswers(t, stream, 2) {
		if apiv1.Code(a.GetError().GetCode()) != apiv1.CodeOverloaded || a.GetId() != uint64(210+i) {
			t.Errorf("answer %v, want overloaded for the last two", a)
		}
	}
}

// When a leader steps down, all waits on a stream are answered at once: more answers than
// may be unsent otherwise.
func TestAnswersOfWaitsDoNotCutAStream(t *testing.T) {
	st, _ := newStream(t, Config{Limits: Limits{UnsentAnswers: 10, UnsentBytes: 1000, WaitsPerStream: 100}})
	var calls []*mux.Call
	st.server.backend.(*fakeNode).on = func(c *mux.Call) bool { calls = append(calls, c); return true }
	for i := range uint64(100) {
		st.accept(acquireOp(i, "a", -1), time.Now())
	}
	for _, c := range calls {
		c.Done(errorAnswer(0, apiv1.NewError(apiv1.CodeNotLeader, "not here any more")))
	}
	if st.cut || len(calls) != 100 || st.unsent != (mux.Load{Waits: 100}) || st.bytes != 0 {
		t.Errorf("of %d waits answered at once: cut %v, unsent %v of %d bytes; want them to wait to be sent", len(calls), st.cut, st.unsent, st.bytes)
	}
	if a := acquireOp(100, "a", -1); st.enter(&inflight{stream: st, class: mux.ClassOf(a)}) == nil {
		t.Error("an answer that is not sent yet is no longer counted")
	}
	st.end()
}

func TestStreamThatDoesNotReadIsCut(t *testing.T) {
	cuts := &counts{}
	r := serve(t, Config{Observer: cuts, Limits: Limits{UnsentAnswers: 2000, InFlight: 1000}})
	cc := r.dial(t, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	stream, err := apiv1.NewLocksClient(cc).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Another client of the same node is served.
	other := openStream(t, r)
	pings := make([]*apiv1.Operation, 500)
	for i := range pings {
		pings[i] = &apiv1.Operation{Id: uint64(i)}
	}
	cut := make(chan error, 1)
	go func() {
		for {
			if err := stream.Send(&apiv1.SessionRequest{Operations: pings}); err != nil {
				cut <- err
				return
			}
		}
	}()
	_ = receiveWithin(t, "the end of the stream that does not read", cut)
	for {
		if _, err := stream.Recv(); err != nil {
			break
		}
	}
	if n := cuts.cut.Load(); n != 1 {
		t.Errorf("%d cuts were counted, want 1", n)
	}
	sendOps(t, other, getOp(1, "a"))
	if a := receiveAnswers(t, other, 1)[0]; a.GetGet() == nil {
		t.Errorf("the other client's answer: %v", a)
	}
}

func TestReadsAreRefusedWhileTheirAnswersAreNotReceived(t *testing.T) {
	st := &stream{caller: &caller{}, known: true, server: &Server{cfg: Config{Limits: Limits{UnsentBytes: 1000, UnsentAnswers: 100}}}}
	big := func() *apiv1.Answer {
		return &apiv1.Answer{Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{Name: string(make([]byte, 600))}}}}
	}
	for range 3 {
		a := big()
		if st.pushLocked(outgoing{answer: a, size: sizeOf(apiv1.KindGet, a), kind: apiv1.KindGet}) {
			t.Fatal("reads alone cut the stream")
		}
	}
	var got []apiv1.Code
	for _, o := range st.out {
		got = append(got, apiv1.Code(o.answer.GetError().GetCode()))
	}
	if want := []apiv1.Code{apiv1.CodeOK, apiv1.CodeOverloaded, apiv1.CodeOverloaded}; !slices.Equal(got, want) {
		t.Errorf("codes %v, want %v", got, want)
	}
}

func TestLongListIsCutIntoPages(t *testing.T) {
	list := &apiv1.ListResponse{Next: "later"}
	for i := range 1000 {
		list.Locks = append(list.Locks, &apiv1.Lock{Name: fmt.Sprintf("l%04d", i), Holders: []*apiv1.Holder{{Value: make([]byte, 4000)}}})
	}
	a := &apiv1.Answer{Result: &apiv1.Answer_List{List: list}}
	apiv1.KindList.Shorten(a, maxAnswerBytes)
	n := len(list.GetLocks())
	if n < 25 || n > 34 || sizeOf(apiv1.KindList, a) > maxAnswerBytes+1000 || list.GetNext() != list.GetLocks()[n-1].GetName() {
		t.Errorf("%d locks in %d bytes, next %q; want about 32 in 128 KiB and the last name", n, sizeOf(apiv1.KindList, a), list.GetNext())
	}
	short := &apiv1.Answer{Result: &apiv1.Answer_List{List: &apiv1.ListResponse{Next: "later", Locks: list.GetLocks()[:2]}}}
	apiv1.KindList.Shorten(short, maxAnswerBytes)
	if got := short.GetList(); len(got.GetLocks()) != 2 || got.GetNext() != "later" {
		t.Errorf("a short page was changed: %v", got)
	}
}

func TestNoticesOfNamedSessionsArePushed(t *testing.T) {
	r := serve(t, Config{})
	notices := make(chan *apiv1.Notice, 10)
	conn := openMux(t, r.dial(t), mux.Config{OnNotice: func(n *apiv1.Notice) { notices <- n }})
	mine, others := [16]byte{1}, [16]byte{2}
	for range 2 { // named twice, watched once
		if _, err := mux.Do(t.Context(), conn.Start, keepAliveOp(1, mine)); err != nil {
			t.Fatal(err)
		}
	}
	r.node.push(others, &apiv1.Notice{Session: others[:]})
	r.node.push(mine, &apiv1.Notice{Session: mine[:], Revocation: &apiv1.Revocation{Number: 1, Token: 7}})
	r.node.push(mine, &apiv1.Notice{Session: mine[:]})
	if n := receiveWithin(t, "the revocation", notices); n.GetRevocation().GetToken() != 7 {
		t.Errorf("first notice %v, want the revocation of token 7", n)
	}
	if n := receiveWithin(t, "the end of the session", notices); n.GetRevocation() != nil || [16]byte(n.GetSession()) != mine {
		t.Errorf("second notice %v, want the session's end", n)
	}
	r.node.await(t, "the end of the watch", func() bool { return len(r.node.watchers) == 0 })
}

func TestWatchesEndWithTheStream(t *testing.T) {
	r := serve(t, Config{Limits: Limits{WatchesPerStream: 3}})
	stream := openStream(t, r)
	for i := range byte(5) {
		sendOps(t, stream, keepAliveOp(1, [16]byte{1, i}))
		receiveAnswers(t, stream, 1)
	}
	r.node.await(t, "three watches", func() bool { return len(r.node.watchers) == 3 })
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	r.node.await(t, "the end of the watches", func() bool { return len(r.node.watchers) == 0 })
}

func TestSessionThatDoesNotExistIsNotWatched(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	sendOps(t, stream, keepAliveOp(1, [16]byte{0xee}))
	receiveAnswers(t, stream, 1)
	r.node.await(t, "the end of the watch", func() bool { return r.node.watched == 1 && len(r.node.watchers) == 0 })
}

func TestForwardingStreamWatchesNothing(t *testing.T) {
	r := serve(t, Config{})
	conn := openMux(t, r.dial(t), mux.Config{})
	if _, err := mux.Do(t.Context(), conn.Start, keepAliveOp(1, [16]byte{1})); err != nil {
		t.Fatal(err)
	}
	if r.node.mu.Lock(); r.node.watched != 0 {
		t.Errorf("%d watches for a stream that asked for no notices", r.node.watched)
	}
	r.node.mu.Unlock()
}

func TestEndOfStreamCancelsNothing(t *testing.T) {
	r := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.client(t).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sendOps(t, stream, acquireOp(1, "a", 0), inSession(acquireOp(2, "a", -1), 1))
	receiveAnswers(t, stream, 1)
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	cancel()
	r.node.await(t, "the end of the call", func() bool { return r.node.queues["a"][0].Abandoned() })
	if len(r.node.queues["a"]) != 1 {
		t.Error("the end of a stream ended a wait in a session")
	}
}

func TestEndOfStreamGivesUpWaitsWithoutASession(t *testing.T) {
	r := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.client(t).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sendOps(t, stream, acquireOp(1, "a", 0), acquireOp(2, "a", int64(time.Hour)))
	receiveAnswers(t, stream, 1)
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	cancel()
	r.node.await(t, "an empty queue", func() bool { return len(r.node.queues["a"]) == 0 })
}

func TestRequestIDsAreLeftToTheNode(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	own := acquireOp(2, "b", 0)
	own.GetAcquire().Id = &apiv1.RequestID{Session: make([]byte, 16), Sequence: 5}
	sendOps(t, stream, acquireOp(1, "a", 0), own)
	receiveAnswers(t, stream, 2)
	first, second := r.node.started[0].GetAcquire(), r.node.started[1].GetAcquire()
	if first.GetId() != nil {
		t.Errorf("a request without an ID became %v", first)
	}
	if len(second.GetId().GetSession()) != 16 || second.GetId().GetSequence() != 5 {
		t.Errorf("a request of a session became %v", second)
	}
}

// pinger can write HTTP/2 pings besides those of grpc.
type pinger struct {
	net.Conn
	mu     sync.Mutex
	writes atomic.Int32
}

func (p *pinger) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes.Add(1)
	return p.Conn.Write(b)
}

func (p *pinger) ping() error {
	frame := []byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 'l', 'o', 'c', 'k', 'n', 'o', 'd', 'e'}
	_, err := p.Write(frame)
	return err
}

// queueAndPing queues an acquire, pings n times, and returns how the acquire ended after
// its lock was released.
func queueAndPing(t *testing.T, r *running, n int, every time.Duration) error {
	t.Helper()
	if _, err := r.client(t).Acquire(t.Context(), acquireOf("a", 0)); err != nil {
		t.Fatal(err)
	}
	pingers := make(chan *pinger, 10)
	cc := r.dial(t, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		p := &pinger{Conn: conn}
		pingers <- p
		return p, nil
	}))
	queued := make(chan error, 1)
	go func() {
		_, err := apiv1.NewLocksClient(cc).Acquire(t.Context(), acquireOf("a", int64(time.Hour)))
		queued <- err
	}()
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	p := <-pingers
	for range n {
		time.Sleep(every) // the rate of pings is what is tested
		if p.ping() != nil {
			break
		}
	}
	_, _ = r.client(t).ForceRelease(t.Context(), &apiv1.ForceReleaseRequest{Name: "a"})
	return receiveWithin(t, "the end of the queued acquire", queued)
}

func TestQueuedAcquireSurvivesKeepalivePings(t *testing.T) {
	t.Parallel()
	if err := queueAndPing(t, serve(t, Config{Limits: Limits{PingMinTime: time.Millisecond}}), 20, 5*time.Millisecond); err != nil {
		t.Errorf("with pings at an allowed rate: %v", err)
	}
	// The limit on pings is what makes the difference.
	if err := queueAndPing(t, serve(t, Config{Limits: Limits{PingMinTime: time.Minute}}), 20, 5*time.Millisecond); status.Code(err) != codes.Unavailable {
		t.Errorf("with too many pings: %v, want the connection to be cut", err)
	}
	if got := (Limits{}).withDefaults().PingMinTime; got != 5*time.Second {
		t.Errorf("by default clients may ping every %v, want 5 s", got)
	}
}

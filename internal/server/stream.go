package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// stream is the server's side of one Session stream.
type stream struct {
	server *Server
	grpc   grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionResponse]
	ctx    context.Context
	conn   *limitedConn  // nil: not known
	sever  func()        // closes the connection
	woken  chan struct{} // holds a token when there is something to send, or the stream is over
	quiet  bool          // the client requested no notices
	peer   bool          // the client is another node: its operations name their owners
	caller *caller
	use    *quotaUse // whose quotas count; nil: nobody's
	known  bool      // the caller is sent the directory of the members

	mu      sync.Mutex // guards what follows
	first   *inflight  // operations that were not answered, oldest first
	last    *inflight
	open    mux.Load           // of them
	shares  map[fair.Owner]int // of open.Prompt, where peer; no zero entries
	brake   brake
	out     []outgoing
	ahead   []outgoing // sent before those: answers of pings and keep-alives
	unsent  mux.Load   // answers in both and in the sender's hands
	waits   bool       // the connection counts as one on which acquires wait
	bytes   int        // of the same, but for those of waits
	notices []*apiv1.Notice
	sent    uint64              // number of the edition that was sent; 0: none
	owed    int                 // bytes in the connection's account of answers that are of this stream
	watches map[[16]byte]func() // session → stop
	gone    [][16]byte          // watched sessions that have ended
	input   error               // why nothing more is received; io.EOF: the client has closed its side
	drained bool                // the server stops: nothing is started any more
	cut     bool                // the client does not read
	over    bool                // the handler has returned
}

type outgoing struct {
	answer *apiv1.Answer
	size   int
	kind   apiv1.Kind // of the operation
	ahead  bool       // sent before other answers: it says that the node, or a session, is alive
	class  mux.Class
}

// inflight is one operation that was not answered yet.
type inflight struct {
	call       mux.Call
	stream     *stream
	id         uint64 // the client's
	class      mux.Class
	begun      time.Time
	next, prev *inflight // guarded by stream.mu
	ended      bool      // no longer in the list
	bytes      int       // in the connection's account of operations
}

// Session serves one stream until the client ends it, it is cut, or the server stops.
func (l *locks) Session(g grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionResponse]) error {
	s := l.server
	st := &stream{
		server: s, grpc: g, ctx: g.Context(), sever: func() {},
		woken: make(chan struct{}, 1), watches: map[[16]byte]func(){},
		shares: map[fair.Owner]int{}, brake: newBrake(s.cfg.Limits.InFlight),
	}
	if st.conn = grpcConn(st.ctx); st.conn != nil {
		st.sever = func() { _ = st.conn.Close() }
	}
	if md, ok := metadata.FromIncomingContext(st.ctx); ok {
		st.quiet = len(md.Get(mux.NoNoticesHeader)) > 0
	}
	st.caller = s.caller(st.ctx)
	if st.peer = st.caller.member; st.peer {
		st.conn.trust()
	}
	if err := s.mayOpen(st.ctx, st.caller); err != nil {
		return err
	}
	st.known = s.mayCall(st.ctx, st.caller, access{call: "Members", open: "members", quiet: true}) == nil
	if !st.peer { // the node at which they have entered counts what other nodes send
		use, refusal := s.quotas.enter(st.caller.owner(), st.conn, false)
		if refusal != nil {
			return grpcError(refusal)
		}
		st.use = use
		defer use.leave(st.conn)
	}
	if !s.addStream(st) {
		return stopping()
	}
	defer s.removeStream(st)
	s.receivers.add(1)
	go st.receive()
	st.wake() // there may be a directory to send
	defer st.end()
	return st.send()
}

// receive is the receiver's goroutine: it starts the operations that arrive.
func (st *stream) receive() {
	defer st.server.receivers.add(-1)
	for {
		req, err := st.grpc.Recv()
		if err == nil && len(req.GetOperations()) > mux.MaxOperations {
			err = apiv1.NewError(apiv1.CodeTooLarge, "operations: are %d in one message, must be at most %d", len(req.GetOperations()), mux.MaxOperations)
		}
		if err != nil {
			st.mu.Lock()
			st.input = err
			st.mu.Unlock()
			st.wake()
			return
		}
		begun := time.Now()
		for _, op := range req.GetOperations() {
			st.accept(op, begun)
		}
		st.slowDown(len(req.GetOperations()))
	}
}

// accept starts one operation, or answers it at once.
func (st *stream) accept(op *apiv1.Operation, begun time.Time) {
	if op.GetRequest() == nil {
		st.answerPing(op)
		return
	}
	o := &inflight{stream: st, id: op.GetId(), class: mux.ClassOf(op), begun: begun}
	o.call.Op, o.call.Done = op, o.done
	if st.peer {
		o.call.Owner = turnsOf(op)
	} else if refusal := st.server.admit(st.ctx, st.caller, &o.call); refusal != nil {
		if refusal.GetCode() == uint32(apiv1.CodeUnauthenticated) && st.caller.shown {
			st.refuse(refusal) // the client opens another stream, perhaps with another access token
			return
		}
		st.mu.Lock()
		st.brake.refused++ // each refusal is logged and counted: many of them are slowed down
		st.mu.Unlock()
		st.answer(errorAnswer(op.GetId(), refusal))
		return
	}
	if problem := mux.Check(op); problem != nil {
		st.answer(errorAnswer(op.GetId(), problem))
		return
	}
	if !op.GetChecked() { // otherwise the answer shows whose session it is
		st.watch(op.Watches())
	}
	refusal := st.use.start(o.class, begun)
	if refusal != nil {
		st.refused()
	} else {
		refusal = st.enter(o)
	}
	if refusal != nil {
		st.answer(errorAnswer(op.GetId(), refusal))
		return
	}
	st.server.start(st.caller, &o.call)
}

// refuse ends the stream once what is queued is sent, because the caller is not who he said.
func (st *stream) refuse(err *apiv1.Error) {
	st.mu.Lock()
	if st.input == nil {
		st.input = err
	}
	st.mu.Unlock()
	st.wake()
}

// answerPing says that the node works, or why it does not.
func (st *stream) answerPing(op *apiv1.Operation) {
	a := &apiv1.Answer{Id: op.GetId()}
	if len(op.ProtoReflect().GetUnknown()) > 0 {
		a = errorAnswer(op.GetId(), apiv1.NewError(apiv1.CodeUnknownCommand, "request: is of a kind that this node does not know"))
	} else if err := st.server.cfg.Unfit(); err != nil {
		a = errorAnswer(op.GetId(), apiv1.NewError(apiv1.CodeUnavailable, "%v", err))
	}
	st.push(outgoing{answer: a, size: sizeOf(apiv1.KindPing, a), ahead: true})
}

// enter puts o into the list, if there is room.
func (st *stream) enter(o *inflight) (refusal *apiv1.Error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	l := st.server.cfg.Limits
	load := mux.Load{Prompt: st.open.Prompt + st.unsent.Prompt, Waits: st.open.Waits + st.unsent.Waits}
	switch {
	case st.drained || st.over:
		return stopping()
	case !st.fitsLocked(o.call.Owner, o.class, l.InFlight):
		st.brake.refused++
		return apiv1.NewError(apiv1.CodeOverloaded, "%d operations of this client are under way on a stream that it shares with others; nothing was done", st.shares[o.call.Owner])
	case load.Takes(o.class, mux.Load{Prompt: l.InFlight, Waits: l.WaitsPerStream}):
	case o.class == mux.Waits:
		st.brake.refused++
		return apiv1.NewError(apiv1.CodeOverloaded, "%d acquires of this stream wait; nothing was done", load.Waits)
	default:
		st.brake.refused++
		return apiv1.NewError(apiv1.CodeOverloaded, "%d operations of this stream are under way; nothing was done", load.Prompt)
	}
	if o.class == mux.Waits && !st.waits {
		if refusal := st.conn.startWait(); refusal != nil {
			st.brake.refused++
			return refusal
		}
		st.waits = true
	}
	if o.bytes = longBytes(o.call.Op); !st.conn.takeOp(o.bytes, o.class) {
		if st.waits && st.open.Waits == 0 {
			st.waits = false
			st.conn.endWait()
		}
		return st.conn.listener.ops.full()
	}
	if refusal := st.conn.afford(expected(o.call.Op), true); refusal != nil {
		st.conn.giveOp(o.bytes)
		return refusal
	}
	st.conn.work()
	o.prev = st.last
	if st.last == nil {
		st.first = o
	} else {
		st.last.next = o
	}
	st.last = o
	st.open.Add(o.class, 1)
	st.countShareLocked(o.call.Owner, o.class, 1)
	return nil
}

// leaveLocked takes o out of the list and reports whether it was there.
func (st *stream) leaveLocked(o *inflight) bool {
	if o.ended {
		return false
	}
	o.ended = true
	if o.prev == nil {
		st.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		st.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	o.next, o.prev = nil, nil
	st.open.Add(o.class, -1)
	st.conn.giveOp(o.bytes)
	st.countShareLocked(o.call.Owner, o.class, -1)
	st.releaseLocked()
	st.conn.paid(expected(o.call.Op))
	if st.waits && st.open.Waits == 0 {
		st.waits = false
		st.conn.endWait()
	}
	return true
}

// done is the call's Done.
func (o *inflight) done(a *apiv1.Answer) {
	st := o.stream
	kind := o.call.Op.Kind()
	kind.Shorten(a, maxAnswerBytes)
	a.Id = o.id
	if !st.peer && o.call.Op.GetChecked() && a.GetError() == nil {
		st.watch(o.call.Op.Watches())
	}
	size := sizeOf(kind, a)
	st.mu.Lock()
	ok := st.leaveLocked(o)
	if isOverloaded(a) {
		st.brake.refused++
	}
	cut := ok && st.pushLocked(outgoing{a, size, kind, kind == apiv1.KindKeepAlive, o.class})
	if a.GetError().GetCode() == uint32(apiv1.CodeNoSession) {
		if id := o.call.Op.Watches(); len(id) == 16 {
			st.gone = append(st.gone, [16]byte(id))
		}
	}
	st.mu.Unlock()
	if ok {
		st.server.answered(RoadStream, st.caller, o.call.Op, a, o.begun)
		st.afterPush(cut)
	}
}

// answer queues the error of an operation for which no call was started.
func (st *stream) answer(a *apiv1.Answer) {
	st.push(outgoing{answer: a, size: sizeOf(apiv1.KindPing, a)})
}

func (st *stream) push(o outgoing) {
	st.mu.Lock()
	cut := st.pushLocked(o)
	st.mu.Unlock()
	st.afterPush(cut)
}

// pushLocked queues an answer and reports whether the stream is to be cut.
func (st *stream) pushLocked(o outgoing) (cut bool) {
	if st.cut || st.over {
		return false
	}
	l := st.server.cfg.Limits
	if st.bytes+o.size > l.UnsentBytes && isRead(o.kind, o.answer) {
		o.answer = errorAnswer(o.answer.GetId(), apiv1.NewError(apiv1.CodeOverloaded, "%d bytes of answers on this stream are not read yet", st.bytes))
		o.size = sizeOf(o.kind, o.answer)
	}
	if refusal := st.affordLocked(o.size, isRead(o.kind, o.answer)); refusal != nil {
		o.answer = errorAnswer(o.answer.GetId(), refusal)
		o.size = sizeOf(o.kind, o.answer)
		_ = st.affordLocked(o.size, false)
	}
	st.owed += o.size
	if o.ahead {
		st.ahead = append(st.ahead, o)
	} else {
		st.out = append(st.out, o)
	}
	st.countLocked(o, 1)
	st.cut = st.unsent.Prompt > l.UnsentAnswers || st.bytes > 2*l.UnsentBytes
	return st.cut
}

// countLocked counts an answer in or out. Answers of waits come all at once when the
// leader changes or their session ends, however fast the client reads. So they are
// counted in the place that the wait had, and are no reason to cut a stream or to refuse
// a release.
func (st *stream) countLocked(o outgoing, n int) {
	st.unsent.Add(o.class, n)
	if n < 0 {
		st.releaseLocked()
		st.owed -= o.size
		st.payLocked(o.size)
	}
	if o.class != mux.Waits {
		st.bytes += n * o.size
	}
}

// affordLocked counts bytes of an answer for the connection and for the caller. If they may be
// refused and there is no room, it returns the error to answer instead.
func (st *stream) affordLocked(bytes int, mayRefuse bool) *apiv1.Error {
	if refusal := st.use.afford(bytes, mayRefuse); refusal != nil {
		return refusal
	}
	refusal := st.conn.afford(bytes, mayRefuse)
	if refusal != nil {
		st.use.paid(bytes)
	}
	return refusal
}

// payLocked gives them back.
func (st *stream) payLocked(bytes int) {
	st.use.paid(bytes)
	st.conn.paid(bytes)
}

func (st *stream) afterPush(cut bool) {
	if cut {
		st.server.cfg.Observer.Cut()
		st.server.cfg.Logger.Warn("cutting a stream that does not read its answers", "peer", peerOf(st.ctx))
		// The sender may block in Send for as long as the connection is open, and
		// grpc keeps what it has buffered for it as long.
		st.sever()
	}
	st.wake()
}

// wake has the sender look again.
func (st *stream) wake() {
	select {
	case st.woken <- struct{}{}:
	default:
	}
}

// drain answers the acquires that wait, oldest first, and lets the stream end when the
// rest has its answers.
func (st *stream) drain() {
	st.mu.Lock()
	st.drained = true
	cut := false
	for o := st.first; o != nil; {
		next := o.next
		if o.class == mux.Waits {
			st.leaveLocked(o)
			st.server.lose(&o.call)
			a := errorAnswer(o.id, stopping())
			cut = st.pushLocked(outgoing{answer: a, size: sizeOf(apiv1.KindAcquire, a), kind: apiv1.KindAcquire, class: mux.Waits}) || cut
		}
		o = next
	}
	st.mu.Unlock()
	st.afterPush(cut)
}

// end abandons the calls that are left, and forgets what is queued. It cancels nothing.
func (st *stream) end() {
	st.mu.Lock()
	st.over = true
	for o := st.first; o != nil; o = st.first {
		st.leaveLocked(o)
		st.server.lose(&o.call)
	}
	st.out, st.ahead, st.notices = nil, nil, nil
	st.payLocked(st.owed)
	st.owed = 0
	watches := st.watches
	st.watches = nil
	st.mu.Unlock()
	for _, stop := range watches {
		if stop != nil {
			stop()
		}
	}
}

// overLocked reports whether nothing more is to be sent after what is queued,
// and how the stream ends then.
func (st *stream) overLocked() (over bool, err error) {
	switch {
	case st.cut:
		return true, apiv1.NewError(apiv1.CodeOverloaded, "the stream's answers are not read")
	case st.input != nil && !errors.Is(st.input, io.EOF):
		return true, st.input
	case st.open != mux.Load{}:
		return false, nil
	case st.input != nil:
		return true, nil
	case st.drained:
		return true, stopping()
	}
	return false, nil
}

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// isHosted reports whether op is an acquire that the node sends in a session of its own:
// if its caller goes away, the node gives it up.
func isHosted(op *apiv1.Operation) bool {
	id := op.GetAcquire().GetId()
	return op.GetAcquire() != nil && len(id.GetSession()) == 0 && id.GetSequence() == 0
}

func errorAnswer(id uint64, err *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: id, Result: &apiv1.Answer_Error{Error: err}}
}

func stopping() *apiv1.Error {
	return apiv1.NewError(apiv1.CodeUnavailable, "the node is stopping: send the request again, to another node")
}

// stoppingUnder is the error for an operation that waits when the server stops.
func stoppingUnder(op *apiv1.Operation) *apiv1.Error {
	e := stopping()
	if len(op.GetAcquire().GetId().GetOnce()) > 0 {
		e.Message += "; under the same request ID it keeps its place in the queue for some seconds"
	}
	return e
}

// maxAnswerBytes bounds one answer: well below what clients accept, and so little that
// the server can hold many answers for clients that read slowly.
const maxAnswerBytes = 128 << 10

// smallAnswer is more than an answer without names, values or holders needs.
const smallAnswer = 64

// sizeOf estimates the encoded size of an answer to an operation of a kind.
func sizeOf(kind apiv1.Kind, a *apiv1.Answer) int {
	e := a.GetError()
	switch {
	case e != nil && len(e.GetHolders()) == 0:
		return smallAnswer + len(e.GetMessage()) + len(e.GetLeader())
	case e == nil && !kind.Long():
		return smallAnswer
	}
	return proto.Size(a)
}

// isRead reports whether a is the result of an operation that changes nothing:
// another answer may then be given instead.
func isRead(kind apiv1.Kind, a *apiv1.Answer) bool { return kind.Reads() && a.GetError() == nil }

// do runs one operation for a caller that waits. An error is an *apiv1.Error, or
// the cause of ctx's end.
func (s *Server) do(ctx context.Context, road Road, op *apiv1.Operation) (*apiv1.Answer, error) {
	return s.run(ctx, road, &mux.Call{Op: op})
}

// run is do for a caller that keeps the call, to call lose if it cannot send the answer.
func (s *Server) run(ctx context.Context, road Road, call *mux.Call) (*apiv1.Answer, error) {
	op := call.Op
	conn := connOf(ctx)
	c := s.callerIn(ctx)
	if refusal := s.admit(ctx, c, call); refusal != nil {
		pause(ctx, refusedPause)
		return nil, refusal
	}
	if problem := mux.Check(op); problem != nil {
		return nil, problem
	}
	if road == RoadHTTP && mux.MayWait(op) {
		if refusal := conn.startWait(); refusal != nil {
			return nil, refusal
		}
		defer conn.endWait()
	}
	held := tallyOf(ctx)
	if refusal := held.startOp(op); refusal != nil {
		if refusal.GetRetryAfterNs() > 0 {
			pause(ctx, refusedPause)
		}
		return nil, refusal
	}
	begun := time.Now()
	// Only acquires that wait are ended when the server stops; everything else gets its
	// answer.
	var stop, revoked <-chan struct{}
	if mux.MayWait(op) {
		var leave func()
		revoked, leave = s.wait(c)
		defer leave()
		stop = s.stopping
	}
	answers := make(chan *apiv1.Answer, 1)
	call.Done = func(a *apiv1.Answer) { answers <- held.answered(op, a) }
	if op.Kind().Pages() { // it may be answered at once
		s.turns.take(func() { s.start(c, call) })
	} else {
		s.start(c, call)
	}
	var a *apiv1.Answer
	select {
	case a = <-answers:
	case <-ctx.Done():
	case <-stop:
		s.lose(call)
		return nil, stoppingUnder(op)
	case <-revoked:
		s.lose(call)
		return nil, revokedMeanwhile()
	}
	if ctx.Err() != nil { // the caller is gone, even if there is an answer
		s.lose(call)
		return nil, context.Cause(ctx)
	}
	s.answered(road, c, op, a, begun)
	if isOverloaded(a) {
		pause(ctx, refusedPause)
	}
	if e := a.GetError(); e != nil {
		return nil, e
	}
	return a, nil
}

// lose abandons a call whose answer nobody gets; every road gives up calls through it. A
// call in a session goes on: its client retries or cancels. An acquire without a session
// is given up by the node (see package host).
func (s *Server) lose(call *mux.Call) {
	if isHosted(call.Op) {
		s.cfg.Observer.Cancelled()
	}
	call.Abandon()
}

func (s *Server) answered(road Road, c *caller, op *apiv1.Operation, a *apiv1.Answer, begun time.Time) {
	s.cfg.Observer.Answered(road, op.Kind().String(), apiv1.Code(a.GetError().GetCode()), time.Since(begun))
	s.noteAnswer(c, op, a)
}

// counter is a count of which a caller can wait for zero. Unlike a sync.WaitGroup it may
// grow from zero while a caller waits.
type counter struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // not nil while a caller waits
}

func (c *counter) add(delta int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += delta
	if c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// wait waits until the count is zero or ctx ends.
func (c *counter) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

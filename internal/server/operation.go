package server

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// kindOf names an operation as locknode.proto does; "ping" if it is none.
func kindOf(op *apiv1.Operation) string {
	switch op.GetRequest().(type) {
	case *apiv1.Operation_OpenSession:
		return "open_session"
	case *apiv1.Operation_KeepAlive:
		return "keep_alive"
	case *apiv1.Operation_EndSession:
		return "end_session"
	case *apiv1.Operation_Acquire:
		return "acquire"
	case *apiv1.Operation_Cancel:
		return "cancel"
	case *apiv1.Operation_Release:
		return "release"
	case *apiv1.Operation_Renew:
		return "renew"
	case *apiv1.Operation_SetValue:
		return "set_value"
	case *apiv1.Operation_ForceRelease:
		return "force_release"
	case *apiv1.Operation_Get:
		return "get"
	case *apiv1.Operation_List:
		return "list"
	default:
		return "ping"
	}
}

// waits reports whether op may stand in line.
func waits(op *apiv1.Operation) bool { return op.GetAcquire().GetWaitNs() != 0 }

// identify gives a request without an ID a random one: the nodes may then send
// it again among themselves, and it still takes effect once.
func identify(op *apiv1.Operation) {
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		identifyRequest(&r.Acquire.Id)
	case *apiv1.Operation_Cancel:
		identifyRequest(&r.Cancel.Id)
	case *apiv1.Operation_Release:
		identifyRequest(&r.Release.Id)
	case *apiv1.Operation_Renew:
		identifyRequest(&r.Renew.Id)
	case *apiv1.Operation_SetValue:
		identifyRequest(&r.SetValue.Id)
	case *apiv1.Operation_ForceRelease:
		identifyRequest(&r.ForceRelease.Id)
	}
}

func identifyRequest(id **apiv1.RequestID) {
	if len((*id).GetSession()) > 0 || (*id).GetSequence() != 0 || len((*id).GetOnce()) > 0 {
		return
	}
	once := make([]byte, 16)
	_, _ = rand.Read(once)
	*id = &apiv1.RequestID{Once: once}
}

func errorAnswer(id uint64, err *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: id, Result: &apiv1.Answer_Error{Error: err}}
}

func stopping() *apiv1.Error {
	return apiv1.NewError(apiv1.CodeUnavailable, "the node is stopping")
}

// maxAnswerBytes is what one answer may have: well below what clients accept.
const maxAnswerBytes = 1 << 20

// fit shortens the page of a list answer that would be too long for a message.
// The next page begins where it was cut.
func fit(a *apiv1.Answer) {
	list := a.GetList()
	if list == nil || proto.Size(list) <= maxAnswerBytes {
		return
	}
	size := 0
	for i, l := range list.GetLocks() {
		size += proto.Size(l) + 8
		if size > maxAnswerBytes && i > 0 {
			list.Locks, list.Next = list.GetLocks()[:i], list.GetLocks()[i-1].GetName()
			return
		}
	}
}

// smallAnswer is more than an answer without names, values or holders needs.
const smallAnswer = 64

// sizeOf estimates the encoded size of an answer.
func sizeOf(a *apiv1.Answer) int {
	switch r := a.GetResult().(type) {
	case *apiv1.Answer_Error:
		if len(r.Error.GetHolders()) == 0 {
			return smallAnswer + len(r.Error.GetMessage()) + len(r.Error.GetLeader())
		}
	case *apiv1.Answer_Get, *apiv1.Answer_List, *apiv1.Answer_ForceRelease, *apiv1.Answer_KeepAlive:
	default:
		return smallAnswer
	}
	return proto.Size(a)
}

// isRead reports whether a is the answer to an operation that changes nothing:
// another answer may then be given instead.
func isRead(a *apiv1.Answer) bool { return a.GetGet() != nil || a.GetList() != nil }

// do runs one operation for a caller that waits. An error is an *apiv1.Error, or
// the cause of ctx's end. An acquire without a session that was not answered is
// cancelled.
func (s *Server) do(ctx context.Context, road Road, op *apiv1.Operation) (*apiv1.Answer, error) {
	if problem := mux.Check(op); problem != nil {
		return nil, problem
	}
	identify(op)
	begun := time.Now()
	// Only parked acquires are told to go when the server stops; what is already
	// on its way gets its answer.
	var stop <-chan struct{}
	if waits(op) {
		stop = s.stopping
	}
	answers := make(chan *apiv1.Answer, 1)
	call := &mux.Call{Op: op, Done: func(a *apiv1.Answer) { answers <- a }}
	s.backend.Start(call)
	select {
	case a := <-answers:
		s.answered(road, op, a, begun)
		fit(a)
		if e := a.GetError(); e != nil {
			return nil, e
		}
		return a, nil
	case <-ctx.Done():
		call.Abandon()
		s.abort(op)
		return nil, context.Cause(ctx)
	case <-stop:
		call.Abandon()
		s.abort(op)
		return nil, stopping()
	}
}

func (s *Server) answered(road Road, op *apiv1.Operation, a *apiv1.Answer, begun time.Time) {
	s.cfg.Observer.Answered(road, kindOf(op), apiv1.Code(a.GetError().GetCode()), time.Since(begun))
}

// abort cancels op in the background if it is an acquire without a session.
func (s *Server) abort(op *apiv1.Operation) {
	r := op.GetAcquire()
	if r == nil || len(r.GetId().GetSession()) > 0 {
		return
	}
	s.cfg.Observer.Cancelled()
	cancel := &apiv1.CancelRequest{Target: r.GetId()}
	identifyRequest(&cancel.Id)
	c := &cancellation{
		server: s, until: time.Now().Add(cancelPatience),
		op: &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: cancel}},
	}
	s.cancels.add(1)
	c.start()
}

const (
	// cancelPatience is how long a cancellation is tried. After that the
	// request's own wait limit and TTL end it.
	cancelPatience = time.Minute
	cancelRetry    = 100 * time.Millisecond
)

// cancellation is the cancel of an aborted acquire, sent until it is answered.
// It has no goroutine: between tries there is only a timer.
type cancellation struct {
	server *Server
	op     *apiv1.Operation
	until  time.Time
	once   sync.Once
}

func (c *cancellation) start() {
	if c.server.isClosed() {
		c.end()
		return
	}
	call := &mux.Call{Op: c.op}
	giveUp := time.AfterFunc(time.Until(c.until), func() { call.Abandon(); c.end() })
	call.Done = func(a *apiv1.Answer) {
		giveUp.Stop()
		switch apiv1.Code(a.GetError().GetCode()) {
		case apiv1.CodeUnavailable, apiv1.CodeOverloaded, apiv1.CodeNotLeader, apiv1.CodeUnknownOutcome, apiv1.CodeNotReady:
			if time.Now().Before(c.until) {
				time.AfterFunc(cancelRetry, c.start)
				return
			}
		}
		c.end()
	}
	c.server.backend.Start(call)
}

func (c *cancellation) end() { c.once.Do(func() { c.server.cancels.add(-1) }) }

// counter is a count that can be waited for. Unlike a sync.WaitGroup it may
// grow from zero while somebody waits.
type counter struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // not nil while somebody waits
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

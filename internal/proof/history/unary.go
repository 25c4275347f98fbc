package history

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Pending is an operation that was sent and not answered yet, on a path that the recorder does
// not see.
type Pending struct {
	r    *Recorder
	sent sending
	ok   bool // it is recorded
	bare bool // its answer names no index
}

// Began records an operation that a client sends now on a path that the recorder does not
// see. bare: the answers on it name no index.
func (r *Recorder) Began(client string, o *apiv1.Operation, bare bool) Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	i, ok := r.noteLocked(client, o, now, sendingTakes)
	return Pending{r, sending{i, now}, ok, bare}
}

// Answered records the answer.
func (p Pending) Answered(a *apiv1.Answer) {
	if !p.ok {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.r.records[p.sent.record].op.Bare = p.bare
	p.r.answerLocked(p.sent, a, p.r.now())
}

// Left records that the caller no longer waits for the answer, and that the node can notice it.
func (p Pending) Left() {
	if !p.ok {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.r.leftLocked(p.sent, p.r.now())
}

// leftLocked records that the caller of an operation is gone. A caller with a session sends
// it again.
func (r *Recorder) leftLocked(s sending, now time.Duration) {
	rec := &r.records[s.record]
	if !rec.final && rec.id.request.session == [16]byte{} {
		rec.op.Left = now
	}
}

// unary records the calls that are one operation, and those of a batch.
func (r *Recorder) unary(name string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		var all []Pending
		_, batch := req.(*apiv1.BatchRequest)
		for _, o := range operationsOf(req) {
			all = append(all, r.Began(name, o, !batch))
		}
		err := invoke(ctx, method, req, reply, cc, opts...)
		var answers []*apiv1.Answer
		if err == nil || !batch {
			answers = answersOf(reply, err)
		}
		for i, p := range all {
			if i < len(answers) {
				p.Answered(answers[i])
			} else {
				p.Left()
			}
		}
		return err
	}
}

// operationsOf returns the operations of a request of the service Locks.
func operationsOf(req any) []*apiv1.Operation {
	one := func(o *apiv1.Operation) []*apiv1.Operation { return []*apiv1.Operation{o} }
	switch q := req.(type) {
	case *apiv1.BatchRequest:
		return q.GetOperations()
	case *apiv1.AcquireRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: q}})
	case *apiv1.CancelRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: q}})
	case *apiv1.ReleaseRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_Release{Release: q}})
	case *apiv1.RenewRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: q}})
	case *apiv1.ForceReleaseRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: q}})
	case *apiv1.ResizeRequest:
		return one(&apiv1.Operation{Request: &apiv1.Operation_Resize{Resize: q}})
	}
	return nil
}

// answersOf returns the answers: none if the call failed on its way.
func answersOf(reply any, err error) []*apiv1.Answer {
	if err != nil {
		if s, ok := status.FromError(err); !ok || len(s.Details()) == 0 {
			return nil // not from a node
		}
		return []*apiv1.Answer{{Result: &apiv1.Answer_Error{Error: apiv1.AsError(err)}}}
	}
	var a apiv1.Answer
	switch p := reply.(type) {
	case *apiv1.BatchResponse:
		return p.GetAnswers()
	case *apiv1.AcquireResponse:
		a.Result = &apiv1.Answer_Acquire{Acquire: p}
	case *apiv1.CancelResponse:
		a.Result = &apiv1.Answer_Cancel{Cancel: p}
	case *apiv1.ReleaseResponse:
		a.Result = &apiv1.Answer_Release{Release: p}
	case *apiv1.RenewResponse:
		a.Result = &apiv1.Answer_Renew{Renew: p}
	case *apiv1.ForceReleaseResponse:
		a.Result = &apiv1.Answer_ForceRelease{ForceRelease: p}
	case *apiv1.ResizeResponse:
		a.Result = &apiv1.Answer_Resize{Resize: p}
	default:
		return nil
	}
	return []*apiv1.Answer{&a}
}

package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

// What the program that a node runs in does with force or admin is recorded here; what others do
// passes the server, which tells the node (node/audit.go). Each has one line, with how it ended. With [Options.Refuse] there is another one before, with the outcome
// "begun", and what cannot get that line is not done.

// refused is the error of what was not done because it could not be recorded. Another node may
// be able to record it.
func refused(err error) *apiv1.Error {
	return apiv1.NewError(apiv1.CodeUnavailable, "audit: cannot be written (%v), and audit.on_error is refuse: nothing was done", err)
}

// ended completes a record with how it ended.
func (r Record) ended(err error) Record {
	r.Outcome = OutcomeOK
	if err == nil {
		return r
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = apiv1.NewError(apiv1.CodeUnknownOutcome, "the caller has gone away: it may have been done, or may still be done")
	}
	e := apiv1.AsError(err)
	r.Outcome, r.Error = apiv1.Code(e.GetCode()).String(), e.GetMessage()
	return r
}

// ofOperation returns the record of an operation that is recorded.
func ofOperation(op *apiv1.Operation) Record {
	if q := op.GetForceRelease(); q != nil {
		return Record{Event: EventForceRelease, Name: q.GetName(), Token: q.GetToken(), Reason: q.GetReason()}
	}
	q := op.GetResize()
	return Record{Event: EventResize, Name: q.GetName(), Notes: []Note{{q.GetName(), strconv.FormatUint(uint64(q.GetLimit()), 10)}}}
}

// Covers reports whether an operation is recorded.
func Covers(op *apiv1.Operation) bool {
	switch op.GetRequest().(type) {
	case *apiv1.Operation_ForceRelease, *apiv1.Operation_Resize:
		return true
	}
	return false
}

// Start calls start with a call, or with one in its place that is recorded. It does not
// block, as start does not.
func (l *Log) Start(who Who, call *mux.Call, start func(*mux.Call)) {
	if l == nil || !Covers(call.Op) {
		start(call)
		return
	}
	r := ofOperation(call.Op)
	r.Who = who
	// The call that is done is one that nobody abandons: how it ends is recorded even if
	// its caller has gone away meanwhile.
	own := &mux.Call{Op: call.Op, Owner: call.Owner, Done: func(a *apiv1.Answer) {
		r.Index = a.GetIndex()
		if e := a.GetError(); e != nil {
			l.Put(r.ended(e))
		} else {
			l.Put(r.ended(nil))
		}
		call.Done(a)
	}}
	if !l.o.Refuse {
		start(own)
		return
	}
	l.before(r, func(err error) {
		switch {
		case err != nil:
			own.Done(&apiv1.Answer{Id: call.Op.GetId(), Result: &apiv1.Answer_Error{Error: refused(err)}})
		case call.Abandoned():
			l.Put(r.ended(apiv1.NewError(apiv1.CodeCancelled, "the caller has gone away: nothing was done")))
		default:
			start(own)
		}
	})
}

// Begin calls then once a record says that something begins, or with why it must not be done. It
// waits for nothing. Without [Options.Refuse] nothing is written, and then is called at once.
func (l *Log) Begin(r Record, then func(error)) {
	if l == nil || !l.o.Refuse {
		then(nil)
		return
	}
	l.before(r, func(err error) {
		if err != nil {
			err = refused(err)
		}
		then(err)
	})
}

// Do runs a call of an operator and records it.
func (l *Log) Do(ctx context.Context, r Record, do func() error) error {
	if l == nil {
		return do()
	}
	if l.o.Refuse {
		if err := l.awaitBegin(ctx, r); err != nil {
			err := refused(err)
			l.Put(r.ended(err))
			return err
		}
	}
	err := do()
	l.Put(r.ended(err))
	return err
}

// Operator has all calls that need force or admin.
type Operator interface {
	embedded.Operator
	embedded.Rights
}

// Operator returns an operator whose calls are recorded as those of who.
func (l *Log) Operator(next Operator, who Who) Operator {
	if l == nil {
		return next
	}
	return recorded{next, l, who}
}

type recorded struct {
	Operator
	log *Log
	who Who
}

// record runs one call.
func record[R any](ctx context.Context, o recorded, r Record, do func() (R, error)) (res R, err error) {
	r.Who = o.who
	err = o.log.Do(ctx, r, func() error {
		res, err = do()
		return err
	})
	return res, err
}

// TransferLeadership is part of embedded.Operator.
func (o recorded) TransferLeadership(ctx context.Context, req *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return record(ctx, o, Record{Event: EventTransfer, Name: req.GetTo()}, func() (*apiv1.TransferLeadershipResponse, error) {
		return o.Operator.TransferLeadership(ctx, req)
	})
}

// RemoveMember is part of embedded.Operator.
func (o recorded) RemoveMember(ctx context.Context, req *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	return record(ctx, o, Record{Event: EventRemove, Name: req.GetId()}, func() (*apiv1.RemoveMemberResponse, error) {
		return o.Operator.RemoveMember(ctx, req)
	})
}

// KillSessions is part of embedded.Operator.
func (o recorded) KillSessions(ctx context.Context, req *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	r := Record{Event: EventKill, Reason: req.GetReason(), Session: hex.EncodeToString(req.GetHash())}
	if owner := req.GetOwner(); owner != "" {
		r.Notes = []Note{{"owner", owner}}
	}
	return record(ctx, o, r, func() (*apiv1.KillSessionsResponse, error) { return o.Operator.KillSessions(ctx, req) })
}

// ClearLock is part of embedded.Operator.
func (o recorded) ClearLock(ctx context.Context, req *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	return record(ctx, o, Record{Event: EventClear, Name: req.GetName(), Reason: req.GetReason()}, func() (*apiv1.ClearLockResponse, error) {
		return o.Operator.ClearLock(ctx, req)
	})
}

// SetLimits is part of embedded.Operator.
func (o recorded) SetLimits(ctx context.Context, req *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	r := Record{Event: EventSetLimits}
	for _, limit := range req.GetLimits()[:min(len(req.GetLimits()), maxNames)] {
		r.Notes = append(r.Notes, Note{limit.GetName(), fmt.Sprint(limit.GetValue())})
	}
	return record(ctx, o, r, func() (*apiv1.SetLimitsResponse, error) { return o.Operator.SetLimits(ctx, req) })
}

// CreateAccessToken is part of embedded.Rights.
func (o recorded) CreateAccessToken(ctx context.Context, req *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	return record(ctx, o, Record{Event: EventCreateToken, Name: req.GetName()}, func() (*apiv1.CreateAccessTokenResponse, error) {
		return o.Operator.CreateAccessToken(ctx, req)
	})
}

// RevokeAccessToken is part of embedded.Rights.
func (o recorded) RevokeAccessToken(ctx context.Context, req *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	return record(ctx, o, Record{Event: EventRevokeToken, Name: req.GetAccessor(), Reason: req.GetReason()}, func() (*apiv1.RevokeAccessTokenResponse, error) {
		return o.Operator.RevokeAccessToken(ctx, req)
	})
}

// BootstrapAccessToken is part of embedded.Rights.
func (o recorded) BootstrapAccessToken(ctx context.Context, req *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error) {
	return record(ctx, o, Record{Event: EventBootstrapToken}, func() (*apiv1.BootstrapAccessTokenResponse, error) {
		return o.Operator.BootstrapAccessToken(ctx, req)
	})
}

// ChangePolicies is part of embedded.Rights.
func (o recorded) ChangePolicies(ctx context.Context, req *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	r := Record{Event: EventChangePolicies}
	for _, p := range req.GetPut() {
		r.Names = append(r.Names, p.GetName())
	}
	r.Names = append(r.Names, req.GetRemove()...)
	return record(ctx, o, r, func() (*apiv1.ChangePoliciesResponse, error) { return o.Operator.ChangePolicies(ctx, req) })
}

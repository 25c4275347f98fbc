//nolint:revive // the methods are the calls of locknode.proto, which describes them
package server

import (
	"context"
	"encoding/hex"
	"errors"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// The calls of an operator. HTTP makes the same ones, so that each is checked and noted in one
// place, operate.

// operate makes a call if its sender may, and notes the outcome of one that needed more than to
// read. about is what it is about: it is asked before the call, when there is no answer, and after it.
func operate[R any](ctx context.Context, l *locks, a access, about func(e *Event, r R), do func() (R, error)) (R, error) {
	s := l.server
	var none R
	c := s.callerIn(ctx)
	if refusal := s.mayCall(ctx, c, a); refusal != nil {
		return none, grpcError(refusal)
	}
	if c.member || !a.noted && a.right != fsm.RightForce && a.right != fsm.RightAdmin {
		return passed(do())
	}
	e := Event{Operation: a.call, Enforced: true}
	e.of(c)
	if about != nil {
		about(&e, none)
	}
	var r R
	err := s.begin(ctx, e)
	if err == nil {
		r, err = do()
	}
	if err != nil {
		failed := outcomeOf(err)
		e.Code, e.Message = apiv1.Code(failed.GetCode()), failed.GetMessage()
		r = none
	}
	if e.Names = nil; about != nil {
		about(&e, r)
	}
	s.note(e)
	return passed(r, err)
}

// outcomeOf is the error with which a call has ended. Of one whose caller has gone away it is not
// known whether it was done.
func outcomeOf(err error) *apiv1.Error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return apiv1.NewError(apiv1.CodeUnknownOutcome, "the caller has gone away: it may have been done, or may still be done")
	}
	return apiv1.AsError(err)
}

// who returns who made a request, as the node sees it: the identity, or the address of the
// connection. For a request that another node of the cluster has forwarded it is what that node
// says.
func (s *Server) who(ctx context.Context, said string) string {
	c := s.callerIn(ctx)
	if c.member {
		return said
	}
	if id := c.standing().identity(); id.Known() {
		return string(id)
	}
	return c.address
}

func (l *locks) Status(ctx context.Context, _ *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	return operate(ctx, l, access{call: "Status", open: "status"}, nil, func() (*apiv1.StatusResponse, error) { return l.server.backend.Status(ctx) })
}

func (l *locks) Members(ctx context.Context, _ *apiv1.MembersRequest) (*apiv1.MembersResponse, error) {
	return operate(ctx, l, access{call: "Members", open: "members"}, nil, func() (*apiv1.MembersResponse, error) { return l.server.backend.Members(ctx) })
}

func (l *locks) TransferLeadership(ctx context.Context, r *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return operate(ctx, l, access{call: "TransferLeadership", right: fsm.RightAdmin}, func(e *Event, done *apiv1.TransferLeadershipResponse) {
		if e.Names = []string{r.GetTo()}; r.GetTo() == "" {
			e.Names = []string{done.GetLeaderId()}
		}
	}, func() (*apiv1.TransferLeadershipResponse, error) { return l.server.backend.TransferLeadership(ctx, r) })
}

func (l *locks) RemoveMember(ctx context.Context, r *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	return operate(ctx, l, access{call: "RemoveMember", right: fsm.RightAdmin}, func(e *Event, _ *apiv1.RemoveMemberResponse) {
		e.Names = []string{r.GetId()}
	}, func() (*apiv1.RemoveMemberResponse, error) { return l.server.backend.RemoveMember(ctx, r) })
}

func (l *locks) ListSessions(ctx context.Context, r *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	a := access{call: "ListSessions", right: fsm.RightAdmin}
	if r.GetLock() != "" {
		a.right, a.name = fsm.RightRead, r.GetLock()
	}
	return operate(ctx, l, a, nil, func() (*apiv1.ListSessionsResponse, error) { return l.server.backend.ListSessions(ctx, r) })
}

func (l *locks) KillSessions(ctx context.Context, r *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	return operate(ctx, l, access{call: "KillSessions", right: fsm.RightForce, everywhere: true}, func(e *Event, done *apiv1.KillSessionsResponse) {
		e.Index = done.GetIndex()
		if e.Reason, e.Names = r.GetReason(), []string{r.GetOwner()}; r.GetOwner() == "" {
			e.Names = []string{hex.EncodeToString(r.GetHash())}
		}
	}, func() (*apiv1.KillSessionsResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.KillSessions(ctx, r)
	})
}

func (l *locks) ClearLock(ctx context.Context, r *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	return operate(ctx, l, access{call: "ClearLock", right: fsm.RightForce, name: r.GetName()}, func(e *Event, done *apiv1.ClearLockResponse) {
		e.Index, e.Reason, e.Names = done.GetIndex(), r.GetReason(), []string{r.GetName()}
	}, func() (*apiv1.ClearLockResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.ClearLock(ctx, r)
	})
}

func (l *locks) GetLimits(ctx context.Context, r *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error) {
	return operate(ctx, l, access{call: "GetLimits", right: fsm.RightAdmin}, nil, func() (*apiv1.GetLimitsResponse, error) { return l.server.backend.GetLimits(ctx, r) })
}

func (l *locks) SetLimits(ctx context.Context, r *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	return operate(ctx, l, access{call: "SetLimits", right: fsm.RightAdmin}, func(e *Event, done *apiv1.SetLimitsResponse) {
		e.Index, e.Values = done.GetIndex(), nil
		for _, limit := range r.GetLimits() {
			e.Names, e.Values = append(e.Names, limit.GetName()), append(e.Values, limit.GetValue())
		}
	}, func() (*apiv1.SetLimitsResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.SetLimits(ctx, r)
	})
}

package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// adminTimeout is how long one node may take for one administrative call: a
// leader that hands over waits for its successor.
const adminTimeout = 10 * time.Second

// probing is the timeout of calls that a node answers from memory: its round trip.
const probing = time.Duration(0)

// Status is part of administrator.
func (r *remote) Status(ctx context.Context) (*apiv1.StatusResponse, error) {
	return unary(ctx, r, probing, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.StatusResponse, error) {
		return c.Status(ctx, &apiv1.StatusRequest{})
	})
}

// Members is part of administrator.
func (r *remote) Members(ctx context.Context) (*apiv1.MembersResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.MembersResponse, error) {
		return c.Members(ctx, &apiv1.MembersRequest{})
	})
}

// TransferLeadership is part of administrator.
func (r *remote) TransferLeadership(ctx context.Context, q *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return unary(ctx, r, adminTimeout, false, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.TransferLeadershipResponse, error) {
		return c.TransferLeadership(ctx, q)
	})
}

// RemoveMember is part of administrator.
func (r *remote) RemoveMember(ctx context.Context, q *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		answer, err := unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.RemoveMemberResponse, error) {
			return c.RemoveMember(ctx, q)
		})
		if apiv1.CodeOf(err) != apiv1.CodeUnavailable || r.timeout > 0 && time.Since(began) >= r.timeout {
			return answer, err
		}
		// Whoever removes a member often does so when the leader has just died.
		select {
		case <-time.After(jitter(attempt)):
		case <-ctx.Done():
			return answer, err
		case <-r.ctx.Done():
			return answer, err
		}
	}
}

// unary asks one node after the other until one answers, and goes where a node
// says that the leader is. Where a node may have done it without saying so, the
// next one is asked only if it can be repeated.
func unary[R any](ctx context.Context, r *remote, patience time.Duration, repeatable bool, do func(context.Context, apiv1.LocksClient) (R, error)) (R, error) {
	var none R
	var tried attempts
	asked := make(map[string]bool)
	next := slices.Clone(r.endpoints)
	if l := r.link.Load(); l != nil {
		next = slices.Insert(next, 0, l.addr)
	}
	for len(next) > 0 && len(asked) < maxEndpoints {
		addr := next[0]
		next = next[1:]
		if asked[addr] {
			continue
		}
		asked[addr] = true
		answer, err := unaryAt(ctx, r, addr, patience, do)
		if err == nil {
			return answer, nil
		}
		e := apiv1.AsError(err)
		switch apiv1.Code(e.GetCode()) {
		case apiv1.CodeNotLeader, apiv1.CodeNotReady, apiv1.CodeUnavailable:
		case apiv1.CodeUnknownOutcome:
			if !repeatable {
				return none, e
			}
		default:
			return none, e
		}
		if e.GetLeader() != "" {
			next = slices.Insert(next, 0, e.GetLeader())
		}
		tried = append(tried, fmt.Errorf("%s: %w", addr, e))
		if ctx.Err() != nil {
			break
		}
	}
	return none, apiv1.NewError(apiv1.CodeUnavailable, "%s", tried.Error())
}

func unaryAt[R any](ctx context.Context, r *remote, addr string, patience time.Duration, do func(context.Context, apiv1.LocksClient) (R, error)) (R, error) {
	p, cc, err := r.peer(addr)
	if err != nil {
		var none R
		return none, err
	}
	limited, cancel := context.WithTimeout(ctx, max(p.probeLimit(), patience))
	defer cancel()
	answer, err := do(limited, apiv1.NewLocksClient(cc))
	if ctx.Err() == nil {
		p.answered(err)
	}
	return answer, err
}

package client

import (
	"context"
	"errors"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// ForceRelease ends a grant against its holder's will. The holder is told at
// once, with who did it and the reason, and so is the log of the cluster.
//
// With a token it ends that grant, and returns [ErrNotHeld] if the lock is not
// held with it; with token 0 it ends whatever grants there are. A grant over
// several locks ends on all of them. When ctx ends first, it may have happened, and
// so it may with [ErrSession]. It returns who held the lock.
func (c *Client) ForceRelease(ctx context.Context, name string, token uint64, reason string) ([]HolderInfo, error) {
	w := what{"force-release", name}
	if err := checkText(w, "name", name, true); err != nil {
		return nil, err
	}
	if err := checkText(w, "reason", reason, false); err != nil {
		return nil, err
	}
	a, err := c.command(ctx, w, token != 0, func(id *apiv1.RequestID) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{
			Id: id, Name: name, Token: token, Reason: reason, Who: c.config.holder,
		}}}
	})
	return holders(a.GetForceRelease().GetReleased()), err
}

// Status returns how the node is that answers: the one that the client uses
// now, or the first of all that are asked at the same time. The error is
// ErrUnavailable, which says what each has answered, or not, when all have failed or
// ctx is over.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, err := administer(ctx, c, what{verb: "status"}, embedded.Operator.Status)
	return statusOf(s), err
}

// Members returns who is in the cluster, as one node knows it: Raft's configuration, and
// whom else gossip sees, by ID. Errors are as with [Client.Status].
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	r, err := administer(ctx, c, what{verb: "members"}, embedded.Operator.Members)
	return membersOf(r), err
}

// TransferLeadership makes another node the leader: the one with the ID to, or
// the most up to date if that is empty. It returns the ID of the new leader.
// If it fails, the leader may have changed nevertheless.
func (c *Client) TransferLeadership(ctx context.Context, to string) (leader string, err error) {
	w := what{"transfer leadership to", to}
	if to == "" {
		w = what{verb: "transfer leadership"}
	}
	if err := checkText(w, "node ID", to, false); err != nil {
		return "", err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.TransferLeadershipResponse, error) {
		return a.TransferLeadership(ctx, &apiv1.TransferLeadershipRequest{To: to})
	})
	return r.GetLeaderId(), err
}

// RemoveMember takes a node out of the cluster for good: one that is not coming
// back, or is to be wiped. It waits for a leader until ctx ends, or for as long
// as [ConnectTimeout] says.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	w := what{"remove member", id}
	if err := checkText(w, "node ID", id, true); err != nil {
		return err
	}
	_, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.RemoveMemberResponse, error) {
		return a.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: id})
	})
	return err
}

func administer[R any](ctx context.Context, c *Client, w what, do func(embedded.Operator, context.Context) (R, error)) (R, error) {
	var none R
	if err := c.admit(ctx, w); err != nil {
		return none, err
	}
	r, err := do(c.backend, ctx)
	if err == nil {
		return r, nil
	}
	if closed := c.ready(w); closed != nil {
		return none, closed
	}
	var vain *allFailed
	if ctx.Err() != nil && !errors.As(err, &vain) {
		return none, &opError{op: w.String(), cause: context.Cause(ctx)}
	}
	e := apiv1.AsError(err)
	if apiv1.Code(e.GetCode()).Retry() == apiv1.RetryElsewhere {
		unavailable := &UnavailableError{Op: w.String(), Last: err, Cause: context.Cause(ctx)}
		if c.router != nil {
			unavailable.Endpoints, _ = c.router.trouble()
		}
		return none, unavailable
	}
	return none, newError(w, e)
}

package client

import (
	"context"
	"errors"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// ForceRelease ends a grant that another client holds, and returns who held the lock.
// The holder gets a [LostError] with the address of the caller and the reason, and the
// nodes log both.
//
// With a token it ends that grant, and returns [ErrNotHeld] if the lock is not
// held with it; with token 0 it ends all grants on the lock. A grant of
// several locks ends on all of them.
//
// It waits until the cluster has answered or ctx ends. After the end of ctx, ErrSession and
// ErrUnavailable, the grant may have ended; after any other error nothing was changed. The
// errors are those of [Client.Get], ErrNotHeld, ErrLimit, ErrSession and ErrOverloaded.
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

// Status returns the state of one node: of the one that the client uses now, or
// of the first that answers when all are asked at the same time.
//
// It waits until a node has answered, all have failed, or ctx ends. The errors are
// ErrUnavailable, which names what was wrong with each node, and ErrClosed.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, err := administer(ctx, c, what{verb: "status"}, embedded.Operator.Status)
	return statusOf(s), err
}

// Members returns the members of the cluster and the peers that only gossip sees, in the
// order of their IDs, as one node knows them. What it waits for and its errors are those of
// [Client.Status].
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	r, err := administer(ctx, c, what{verb: "members"}, embedded.Operator.Members)
	return membersOf(r), err
}

// TransferLeadership makes another node the leader: the one with the ID to, or
// the most up to date if that is empty. It returns the ID of the new leader.
//
// It waits until the cluster has answered or ctx ends, and is not retried once a node may
// have received it. After ErrInvalid and ErrDenied nothing was changed; after any other error
// the leader may have changed. An ID that is no voter's is an error that wraps none of this
// package.
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

// RemoveMember removes a node from the cluster permanently: one that will not come
// back, or will be wiped.
//
// It waits until the removal is committed or ctx ends, and for a leader no longer than the
// [ConnectTimeout]. After ErrInvalid and ErrDenied the node is still a member; after any
// other error it may have been removed: [Client.Members] shows it, and the call may be
// repeated. An ID that is no member's is an error that wraps none of this package.
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

// administer makes a call of an operator and gives its error the form of this package.
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
	var failed *allFailed
	if ctx.Err() != nil && !errors.As(err, &failed) {
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

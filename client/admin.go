package client

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// administrator is what a backend can do besides carrying operations. An
// embedded node can, and so can the remote backend.
type administrator interface {
	Status(context.Context) (*apiv1.StatusResponse, error)
	Members(context.Context) (*apiv1.MembersResponse, error)
	TransferLeadership(context.Context, *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error)
	RemoveMember(context.Context, *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error)
}

// ForceRelease ends a grant against its holder's will. The holder is told at
// once, with who did it and the reason, and so is the log of the cluster.
//
// With a token it ends that grant, and returns [ErrNotHeld] if the lock is not
// held with it; with token 0 it ends whatever grants there are. A grant over
// several locks ends on all of them. When ctx ends first, it may have happened, and
// so it may with [ErrSession].
func (c *Client) ForceRelease(ctx context.Context, name string, token uint64, reason string) error {
	w := what{"force-release", name}
	if err := checkText(w, "name", name, true); err != nil {
		return err
	}
	if err := checkText(w, "reason", reason, false); err != nil {
		return err
	}
	_, err := c.command(ctx, w, token != 0, func(id *apiv1.RequestID) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{
			Id: id, Name: name, Token: token, Reason: reason, Who: c.config.holder,
		}}}
	})
	return err
}

// Status returns how the node is that answers: the one that the client uses
// now, or the first that can be reached. The error is ErrUnavailable or the end
// of ctx.
func (c *Client) Status(ctx context.Context) (*apiv1.StatusResponse, error) {
	return administer(ctx, c, what{verb: "status"}, administrator.Status)
}

// Members returns who is in the cluster. Errors are as with [Client.Status].
func (c *Client) Members(ctx context.Context) (*apiv1.MembersResponse, error) {
	return administer(ctx, c, what{verb: "members"}, administrator.Members)
}

// TransferLeadership makes another node the leader: the one with the ID to, or
// the most up to date if that is empty. It returns the ID of the new leader.
// If it fails, the leader may have changed nevertheless.
func (c *Client) TransferLeadership(ctx context.Context, to string) (leader string, err error) {
	w := what{"transfer leadership to", to}
	if err := checkText(w, "node ID", to, false); err != nil {
		return "", err
	}
	r, err := administer(ctx, c, w, func(a administrator, ctx context.Context) (*apiv1.TransferLeadershipResponse, error) {
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
	_, err := administer(ctx, c, w, func(a administrator, ctx context.Context) (*apiv1.RemoveMemberResponse, error) {
		return a.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: id})
	})
	return err
}

func administer[R any](ctx context.Context, c *Client, w what, do func(administrator, context.Context) (R, error)) (R, error) {
	var none R
	a, ok := c.backend.(administrator)
	if !ok {
		return none, &opError{op: w.String(), text: "the backend does not support it"}
	}
	if err := c.admit(ctx, w); err != nil {
		return none, err
	}
	r, err := do(a, ctx)
	if err == nil {
		return r, nil
	}
	if closed := c.ready(w); closed != nil {
		return none, closed
	}
	if ctx.Err() != nil {
		return none, &opError{op: w.String(), cause: context.Cause(ctx)}
	}
	e := apiv1.AsError(err)
	switch apiv1.Code(e.GetCode()) {
	case apiv1.CodeUnavailable, apiv1.CodeNotLeader, apiv1.CodeNotReady:
		unavailable := &UnavailableError{Op: w.String(), Last: err}
		if c.router != nil {
			unavailable.Endpoints, _ = c.router.trouble()
		}
		return none, unavailable
	}
	return none, newError(w, e)
}

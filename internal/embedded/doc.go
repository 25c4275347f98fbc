// Package embedded lets a node make clients of itself without exports of node and client that
// only they need: the node puts itself into the context of [client.Dial], which takes it out
// again. Package net does the same with the resolver of its tests (internal/nettrace).
// Other modules can neither name these types nor make such a context.
package embedded

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// Node is a node as its own clients use it. Its methods are safe for concurrent use.
type Node interface {
	// Start begins an operation and does not block.
	Start(*mux.Call)
	// Watch calls f for every notice about the session, until stop is called; f must not
	// block.
	Watch(session [16]byte, f func(*apiv1.Notice)) (stop func())
	// Done returns a channel that is closed when the node has ended and answers no more
	// operations. Its clients' grants are lost then, and their operations return
	// client.ErrClosed. It returns nil if the node ends with the client only.
	Done() <-chan struct{}
	Operator
}

// Operator has the calls of an operator. They wait until they are done or their context
// ends. Their errors are, or wrap, an *apiv1.Error where the code matters.
type Operator interface {
	Status(context.Context) (*apiv1.StatusResponse, error)
	Members(context.Context) (*apiv1.MembersResponse, error)
	TransferLeadership(context.Context, *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error)
	RemoveMember(context.Context, *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error)
	ListSessions(context.Context, *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error)
	KillSessions(context.Context, *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error)
	ClearLock(context.Context, *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error)
	GetLimits(context.Context, *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error)
	SetLimits(context.Context, *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error)
	ListGossipKeys(context.Context, *apiv1.ListGossipKeysRequest) (*apiv1.ListGossipKeysResponse, error)
	ChangeGossipKeys(context.Context, *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error)
	Reload(context.Context, *apiv1.ReloadRequest) (*apiv1.ReloadResponse, error)
}

// Rights has the calls about access tokens and policies. They wait and fail as those of an
// [Operator] do.
type Rights interface {
	CreateAccessToken(context.Context, *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error)
	ListAccessTokens(context.Context, *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error)
	RevokeAccessToken(context.Context, *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error)
	BootstrapAccessToken(context.Context, *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error)
	ChangePolicies(context.Context, *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error)
	ListPolicies(context.Context, *apiv1.ListPoliciesRequest) (*apiv1.ListPoliciesResponse, error)
	CheckRights(context.Context, *apiv1.CheckRightsRequest) (*apiv1.CheckRightsResponse, error)
	WhoAmI(context.Context, *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error)
}

type key struct{}

// With returns a child of ctx with which client.Dial makes a client of n.
func With(ctx context.Context, n Node) context.Context { return context.WithValue(ctx, key{}, n) }

// From returns the node that [With] has put into ctx, nil if there is none.
func From(ctx context.Context) Node {
	n, _ := ctx.Value(key{}).(Node)
	return n
}

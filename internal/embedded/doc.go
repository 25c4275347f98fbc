// Package embedded is how a node makes clients of itself without the two packages having
// to export what only they need: the node puts itself into the context of [client.Dial],
// which takes it out again. Package net does the same with its tests' resolver
// (internal/nettrace). Other modules can neither name these types nor make such a context.
package embedded

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// Node is a node as its own clients use it.
type Node interface {
	// Start begins an operation and does not block.
	Start(*mux.Call)
	// Watch calls f for every notice about the session; f does not block.
	Watch(session [16]byte, f func(*apiv1.Notice)) (stop func())
	// Done is closed when the node has ended and answers nothing any more. Its clients'
	// grants are lost then, and their operations return client.ErrClosed. A nil channel:
	// it ends with the client only.
	Done() <-chan struct{}
	Operator
}

// Operator is what a node does besides carrying operations. Its errors are an
// *apiv1.Error where the code matters.
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
}

type key struct{}

// With returns a context with which client.Dial makes a client of n.
func With(ctx context.Context, n Node) context.Context { return context.WithValue(ctx, key{}, n) }

// From returns the node that [With] has put into ctx, or nil.
func From(ctx context.Context) Node {
	n, _ := ctx.Value(key{}).(Node)
	return n
}

//nolint:revive // the methods are the calls of locknode.proto, which describes them
package server

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// The calls of an operator who has to do something about clients.

// who returns who made a request, as the node sees it: the address of the connection. For a
// request that another node of the cluster has forwarded it is what that node says.
func (s *Server) who(ctx context.Context, said string) string {
	if s.isPeer(ctx) {
		return said
	}
	return ownerOf(ctx)
}

func (l *locks) ListSessions(ctx context.Context, r *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	return passed(l.server.backend.ListSessions(ctx, r))
}

func (l *locks) KillSessions(ctx context.Context, r *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	r.Who = l.server.who(ctx, r.GetWho())
	return passed(l.server.backend.KillSessions(ctx, r))
}

func (l *locks) ClearLock(ctx context.Context, r *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	r.Who = l.server.who(ctx, r.GetWho())
	return passed(l.server.backend.ClearLock(ctx, r))
}

func (l *locks) GetLimits(ctx context.Context, r *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error) {
	return passed(l.server.backend.GetLimits(ctx, r))
}

func (l *locks) SetLimits(ctx context.Context, r *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	r.Who = l.server.who(ctx, r.GetWho())
	return passed(l.server.backend.SetLimits(ctx, r))
}

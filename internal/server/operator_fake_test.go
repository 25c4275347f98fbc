package server

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func (f *fakeNode) ListSessions(_ context.Context, r *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ListSessionsResponse{}, f.admin
}

func (f *fakeNode) KillSessions(_ context.Context, r *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.KillSessionsResponse{}, f.admin
}

func (f *fakeNode) ClearLock(_ context.Context, r *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ClearLockResponse{}, f.admin
}

func (f *fakeNode) GetLimits(_ context.Context, r *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.GetLimitsResponse{}, f.admin
}

func (f *fakeNode) SetLimits(_ context.Context, r *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.SetLimitsResponse{}, f.admin
}

package server

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/peerapi"
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

func (f *fakeNode) CreateAccessToken(_ context.Context, r *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.CreateAccessTokenResponse{AccessToken: &apiv1.AccessToken{Name: r.GetName(), Accessor: "made", MadeBy: r.GetWho()}, Secret: "a secret"}, f.admin
}

func (f *fakeNode) ListAccessTokens(_ context.Context, r *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ListAccessTokensResponse{}, f.admin
}

func (f *fakeNode) RevokeAccessToken(_ context.Context, r *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.RevokeAccessTokenResponse{}, f.admin
}

func (f *fakeNode) BootstrapAccessToken(_ context.Context, r *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error) {
	f.asked = append(f.asked, r)
	if r.GetProof() != "right" {
		return nil, unauthenticated("proof: is wrong")
	}
	return &apiv1.BootstrapAccessTokenResponse{Secret: "a secret"}, f.admin
}

func (f *fakeNode) ChangePolicies(_ context.Context, r *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ChangePoliciesResponse{}, f.admin
}

func (f *fakeNode) ListPolicies(_ context.Context, r *apiv1.ListPoliciesRequest) (*apiv1.ListPoliciesResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ListPoliciesResponse{}, f.admin
}

func (f *fakeNode) CheckRights(_ context.Context, r *apiv1.CheckRightsRequest) (*apiv1.CheckRightsResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.CheckRightsResponse{Identity: r.GetIdentity()}, f.admin
}

func (f *fakeNode) WhoAmI(context.Context, *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error) {
	return nil, unauthenticated("the server answers that itself")
}

func (f *fakeNode) ListGossipKeys(_ context.Context, r *apiv1.ListGossipKeysRequest) (*apiv1.ListGossipKeysResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ListGossipKeysResponse{}, f.admin
}

func (f *fakeNode) ChangeGossipKeys(_ context.Context, r *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ChangeGossipKeysResponse{}, f.admin
}

func (f *fakeNode) Reload(_ context.Context, r *apiv1.ReloadRequest) (*apiv1.ReloadResponse, error) {
	f.asked = append(f.asked, r)
	return &apiv1.ReloadResponse{}, f.admin
}

func (f *fakeNode) GossipKeys(context.Context) (*peerapi.GossipKeysResponse, error) {
	return &peerapi.GossipKeysResponse{NodeId: "n1"}, f.admin
}

func (f *fakeNode) ChangeOwnGossipKeys(_ context.Context, r *peerapi.ChangeGossipKeysRequest) (*peerapi.GossipKeysResponse, error) {
	f.asked = append(f.asked, r)
	return &peerapi.GossipKeysResponse{NodeId: "n1"}, f.admin
}

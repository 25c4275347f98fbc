//nolint:revive // the methods are the calls of locknode.proto, which describes them
package server

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/rights"
)

// The calls about access tokens and policies.

// CreateAccessToken makes the secret here, and passes on only its hash.
func (l *locks) CreateAccessToken(ctx context.Context, r *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	return operate(ctx, l, access{call: "CreateAccessToken", right: fsm.RightAdmin}, func(e *Event, done *apiv1.CreateAccessTokenResponse) {
		e.Names, e.Index = tokenNames(r.GetName(), done.GetAccessToken()), done.GetIndex()
	}, func() (*apiv1.CreateAccessTokenResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		if !l.server.callerIn(ctx).member {
			r.Accessor, r.Hash = "", nil
		}
		return l.server.backend.CreateAccessToken(ctx, r)
	})
}

// tokenNames is what an event about an access token names: its name, and its accessor once it
// has one.
func tokenNames(name string, made *apiv1.AccessToken) []string {
	if made.GetAccessor() == "" {
		return []string{name}
	}
	return []string{made.GetName(), made.GetAccessor()}
}

func (l *locks) ListAccessTokens(ctx context.Context, r *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error) {
	return operate(ctx, l, access{call: "ListAccessTokens", right: fsm.RightAdmin}, nil, func() (*apiv1.ListAccessTokensResponse, error) {
		return l.server.backend.ListAccessTokens(ctx, r)
	})
}

func (l *locks) RevokeAccessToken(ctx context.Context, r *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	return operate(ctx, l, access{call: "RevokeAccessToken", right: fsm.RightAdmin}, func(e *Event, done *apiv1.RevokeAccessTokenResponse) {
		e.Reason, e.Names, e.Index = r.GetReason(), []string{r.GetAccessor()}, done.GetIndex()
		if name := done.GetAccessToken().GetName(); name != "" {
			e.Names = tokenNames(name, done.GetAccessToken())
		}
	}, func() (*apiv1.RevokeAccessTokenResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.RevokeAccessToken(ctx, r)
	})
}

// BootstrapAccessToken needs no right: the node asks for a proof. Wrong ones cost as much as
// wrong secrets.
func (l *locks) BootstrapAccessToken(ctx context.Context, r *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error) {
	s := l.server
	return operate(ctx, l, access{call: "BootstrapAccessToken", all: true, noted: true}, func(e *Event, done *apiv1.BootstrapAccessTokenResponse) {
		e.Names, e.Index = tokenNames(rights.Root, done.GetAccessToken()), done.GetIndex()
		e.Refused = e.Code == apiv1.CodeUnauthenticated || e.Code == apiv1.CodeDenied
	}, func() (*apiv1.BootstrapAccessTokenResponse, error) {
		c := s.callerIn(ctx)
		if r.Who = s.who(ctx, r.GetWho()); !c.member {
			r.Accessor, r.Hash = "", nil
			if s.listensIn(connOf(ctx)) {
				return nil, unauthenticated("proof: was sent in plain text from another host, must come in TLS or from this host")
			}
		}
		done, err := s.backend.BootstrapAccessToken(ctx, r)
		if apiv1.CodeOf(err) == apiv1.CodeUnauthenticated {
			s.failures.slow(ctx, s.stopping, c.address)
		}
		return done, err
	})
}

func (l *locks) ChangePolicies(ctx context.Context, r *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	return operate(ctx, l, access{call: "ChangePolicies", right: fsm.RightAdmin}, func(e *Event, done *apiv1.ChangePoliciesResponse) {
		for _, p := range r.GetPut() {
			e.Names = append(e.Names, p.GetName())
		}
		e.Names, e.Index = append(e.Names, r.GetRemove()...), done.GetIndex()
	}, func() (*apiv1.ChangePoliciesResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.ChangePolicies(ctx, r)
	})
}

func (l *locks) ListPolicies(ctx context.Context, r *apiv1.ListPoliciesRequest) (*apiv1.ListPoliciesResponse, error) {
	return operate(ctx, l, access{call: "ListPolicies", right: fsm.RightAdmin}, nil, func() (*apiv1.ListPoliciesResponse, error) {
		return l.server.backend.ListPolicies(ctx, r)
	})
}

// CheckRights of oneself needs no right; of others it needs admin.
func (l *locks) CheckRights(ctx context.Context, r *apiv1.CheckRightsRequest) (*apiv1.CheckRightsResponse, error) {
	c := l.server.callerIn(ctx)
	if _, book, _ := l.server.asks(); book != nil {
		c.resolve(book)
	}
	own := string(c.standing().identity())
	if r.GetIdentity() == "" {
		r.Identity = own
	}
	a := access{call: "CheckRights", right: fsm.RightAdmin}
	if r.GetIdentity() == own {
		a.right = 0
	}
	return operate(ctx, l, a, nil, func() (*apiv1.CheckRightsResponse, error) { return l.server.backend.CheckRights(ctx, r) })
}

// WhoAmI says nothing but what the caller has shown.
func (l *locks) WhoAmI(ctx context.Context, _ *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error) {
	s := l.server
	c := s.callerIn(ctx)
	res := &apiv1.WhoAmIResponse{Mode: string(s.auth.Mode)}
	mode, book, err := s.asks()
	if err != nil {
		return nil, grpcError(err)
	}
	if refusal := s.mayCall(ctx, c, access{call: "WhoAmI", quiet: true}); refusal != nil {
		return nil, grpcError(refusal)
	}
	if book != nil {
		c.resolve(book)
		res.Enforced = mode == AuthRequired
	}
	now := c.standing()
	res.Identity, res.Policies = string(now.identity()), now.subject.Policies()
	if t := now.token; t != nil {
		res.AccessToken = &apiv1.AccessToken{Accessor: t.Accessor, Name: t.Name, MadeBy: t.MadeBy, MadeAtUnixMs: t.MadeAt}
		if t.Deadline != 0 {
			if st, err := s.backend.Status(ctx); err == nil {
				res.AccessToken.RemainingNs = max(1, t.Deadline.Until(fsm.Instant(st.GetClusterTime())))
			}
		}
		for _, label := range t.Labels {
			res.AccessToken.Labels = append(res.AccessToken.Labels, &apiv1.Label{Key: label.Key, Value: label.Value})
		}
	}
	return res, nil
}

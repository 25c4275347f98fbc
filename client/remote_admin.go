package client

import (
	"cmp"
	"context"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// adminTimeout is how long one node may take for one call of an operator: a
// leader that hands leadership over waits for its successor.
const adminTimeout = 10 * time.Second

// probing is the timeout of calls that a node answers from memory: the limit of its peer
// alone; see probeLimit.
const probing = time.Duration(0)

// Status is part of embedded.Operator.
func (r *remote) Status(ctx context.Context) (*apiv1.StatusResponse, error) {
	token := r.credential.current()
	answer, err := r.statusOnce(ctx)
	if r.credential.replaces(token, err) {
		return r.statusOnce(ctx)
	}
	return answer, err
}

func (r *remote) statusOnce(ctx context.Context) (*apiv1.StatusResponse, error) {
	s := r.newSurvey(ctx)
	defer s.end()
	for {
		p, ok := s.await()
		if !ok {
			return nil, s.allFailed()
		}
		if p.err == nil {
			return p.status, nil
		}
	}
}

// Members is part of embedded.Operator.
func (r *remote) Members(ctx context.Context) (*apiv1.MembersResponse, error) {
	return unary(ctx, r, probing, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.MembersResponse, error) {
		return c.Members(ctx, &apiv1.MembersRequest{})
	})
}

// TransferLeadership is part of embedded.Operator.
func (r *remote) TransferLeadership(ctx context.Context, q *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return unary(ctx, r, adminTimeout, false, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.TransferLeadershipResponse, error) {
		return c.TransferLeadership(ctx, q)
	})
}

// RemoveMember is part of embedded.Operator.
func (r *remote) RemoveMember(ctx context.Context, q *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	began := time.Now()
	var unknown error // not nil: it may have been done, and only the answer was lost
	for attempt := 0; ; attempt++ {
		answer, err := unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.RemoveMemberResponse, error) {
			answer, err := c.RemoveMember(ctx, q)
			switch apiv1.CodeOf(err) {
			case apiv1.CodeUnknownOutcome:
				unknown = err
			case apiv1.CodeNoMember:
				if unknown != nil {
					return &apiv1.RemoveMemberResponse{}, nil
				}
			}
			return answer, err
		})
		if apiv1.CodeOf(err) != apiv1.CodeUnavailable {
			return answer, err
		}
		limit := r.timeout
		if unknown != nil {
			// It is repeated to learn whether it was done, and not for ever, because it may
			// never be possible.
			err, limit = unknown, cmp.Or(limit, adminTimeout)
		}
		if limit > 0 && time.Since(began) >= limit {
			return answer, err
		}
		// Members are often removed when the leader has just failed.
		select {
		case <-time.After(jitter(attempt)):
		case <-ctx.Done():
			return answer, err
		case <-r.ctx.Done():
			return answer, err
		}
	}
}

// unary makes a call of one node: of the leader, if a survey finds it, or else of a node
// that forwards it. Only the status is asked of all nodes at once; the call is made of
// one node after the other. If a node has not answered it but may have carried it out, the
// next one is asked only if the call is repeatable.
//
// It is made once more if its access token was refused and there is another one.
func unary[R any](ctx context.Context, r *remote, patience time.Duration, repeatable bool, do func(context.Context, apiv1.LocksClient) (R, error)) (R, error) {
	token := r.credential.current()
	answer, err := unaryOnce(ctx, r, patience, repeatable, do)
	if r.credential.replaces(token, err) {
		return unaryOnce(ctx, r, patience, repeatable, do)
	}
	return answer, err
}

func unaryOnce[R any](ctx context.Context, r *remote, patience time.Duration, repeatable bool, do func(context.Context, apiv1.LocksClient) (R, error)) (R, error) {
	var none R
	began := time.Now()
	s := r.newSurvey(ctx)
	defer s.end()
	for {
		addr, ok := s.next()
		if !ok {
			return none, s.allFailed()
		}
		answer, err := unaryAt(ctx, r, addr, patience, do)
		if err == nil {
			return answer, nil
		}
		switch apiv1.CodeOf(err).Retry() {
		case apiv1.RetryElsewhere:
		case apiv1.RetrySameID:
			if !repeatable || r.timeout > 0 && time.Since(began) >= r.timeout {
				return none, err
			}
		default:
			return none, err
		}
		s.failed(addr, err)
	}
}

// unaryAt makes a call of the node at addr, which may take as long as its peer's limit, or
// patience if that is longer.
func unaryAt[R any](ctx context.Context, r *remote, addr string, patience time.Duration, do func(context.Context, apiv1.LocksClient) (R, error)) (R, error) {
	p, conn, err := r.hold(addr)
	if err != nil {
		var none R
		return none, err
	}
	defer r.release(conn)
	limited, cancel := context.WithTimeout(ctx, max(p.probeLimit(), patience))
	defer cancel()
	before := p.contact()
	answer, err := do(limited, apiv1.NewLocksClient(conn))
	if ctx.Err() == nil {
		p.answered(err)
	}
	return answer, p.explain(err, before)
}

// ListSessions is part of embedded.Operator.
func (r *remote) ListSessions(ctx context.Context, q *apiv1.ListSessionsRequest) (*apiv1.ListSessionsResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ListSessionsResponse, error) {
		return c.ListSessions(ctx, q)
	})
}

// KillSessions is part of embedded.Operator.
func (r *remote) KillSessions(ctx context.Context, q *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.KillSessionsResponse, error) {
		return c.KillSessions(ctx, q)
	})
}

// ClearLock is part of embedded.Operator.
func (r *remote) ClearLock(ctx context.Context, q *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ClearLockResponse, error) {
		return c.ClearLock(ctx, q)
	})
}

// GetLimits is part of embedded.Operator.
func (r *remote) GetLimits(ctx context.Context, q *apiv1.GetLimitsRequest) (*apiv1.GetLimitsResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.GetLimitsResponse, error) {
		return c.GetLimits(ctx, q)
	})
}

// SetLimits is part of embedded.Operator.
func (r *remote) SetLimits(ctx context.Context, q *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.SetLimitsResponse, error) {
		return c.SetLimits(ctx, q)
	})
}

// CreateAccessToken is part of embedded.Operator. It is not repeated: the secret of a token
// that was made and not answered is lost.
func (r *remote) CreateAccessToken(ctx context.Context, q *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	return unary(ctx, r, adminTimeout, false, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.CreateAccessTokenResponse, error) {
		return c.CreateAccessToken(ctx, q)
	})
}

// ListAccessTokens is part of embedded.Operator.
func (r *remote) ListAccessTokens(ctx context.Context, q *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ListAccessTokensResponse, error) {
		return c.ListAccessTokens(ctx, q)
	})
}

// RevokeAccessToken is part of embedded.Operator.
func (r *remote) RevokeAccessToken(ctx context.Context, q *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.RevokeAccessTokenResponse, error) {
		return c.RevokeAccessToken(ctx, q)
	})
}

// BootstrapAccessToken is part of embedded.Operator. The node is not asked for its status first,
// which it may keep from who has no access token yet, and the proof goes to the endpoints of
// the caller alone.
func (r *remote) BootstrapAccessToken(ctx context.Context, q *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error) {
	if len(r.endpoints) != 1 {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "endpoints: are %d, must be one: that of the node with the data directory", len(r.endpoints))
	}
	r.resolved(ctx)
	var last error
	for _, addr := range r.expand(r.endpoints[0]) {
		if r.tls == nil && !r.plainToken && !isLoopback(addr) {
			return nil, apiv1.NewError(apiv1.CodeInvalid, "the proof is not sent to %s in plain text, must be sent in TLS (client.TLSFiles, --tls-ca) or on the node's machine", addr)
		}
		answer, err := unaryAt(ctx, r, addr, adminTimeout, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.BootstrapAccessTokenResponse, error) {
			return c.BootstrapAccessToken(ctx, q)
		})
		if err == nil || apiv1.CodeOf(err).Retry() != apiv1.RetryElsewhere {
			return answer, err
		}
		last = err
	}
	if last == nil {
		last = &allFailed{tried: r.unresolved()}
	}
	return nil, last
}

// ChangePolicies is part of embedded.Operator.
func (r *remote) ChangePolicies(ctx context.Context, q *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	return unary(ctx, r, adminTimeout, q.GetIf() == 0, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ChangePoliciesResponse, error) {
		return c.ChangePolicies(ctx, q)
	})
}

// ListPolicies is part of embedded.Operator.
func (r *remote) ListPolicies(ctx context.Context, q *apiv1.ListPoliciesRequest) (*apiv1.ListPoliciesResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ListPoliciesResponse, error) {
		return c.ListPolicies(ctx, q)
	})
}

// CheckRights is part of embedded.Operator.
func (r *remote) CheckRights(ctx context.Context, q *apiv1.CheckRightsRequest) (*apiv1.CheckRightsResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.CheckRightsResponse, error) {
		return c.CheckRights(ctx, q)
	})
}

// WhoAmI is part of embedded.Operator.
func (r *remote) WhoAmI(ctx context.Context, q *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.WhoAmIResponse, error) {
		return c.WhoAmI(ctx, q)
	})
}

// ListGossipKeys is part of embedded.Operator.
func (r *remote) ListGossipKeys(ctx context.Context, q *apiv1.ListGossipKeysRequest) (*apiv1.ListGossipKeysResponse, error) {
	return unary(ctx, r, adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ListGossipKeysResponse, error) {
		return c.ListGossipKeys(ctx, q)
	})
}

// ChangeGossipKeys is part of embedded.Operator. To generate a key is not repeated: there would be
// another one.
func (r *remote) ChangeGossipKeys(ctx context.Context, q *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error) {
	return unary(ctx, r, 2*adminTimeout, !q.GetGenerate(), func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ChangeGossipKeysResponse, error) {
		return c.ChangeGossipKeys(ctx, q)
	})
}

// Reload is part of embedded.Operator.
func (r *remote) Reload(ctx context.Context, q *apiv1.ReloadRequest) (*apiv1.ReloadResponse, error) {
	return unary(ctx, r, 2*adminTimeout, true, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.ReloadResponse, error) {
		return c.Reload(ctx, q)
	})
}

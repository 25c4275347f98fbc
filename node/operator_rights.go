package node

import (
	"context"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/rights"
)

// Access tokens and policies. The leader changes them; the node that received the request makes
// the secret, and passes on only its hash. A change is answered once it is in force on that
// node, so that its caller can go on with it there; the other nodes follow within a second.

const (
	defaultAccessTokens = 100
	maxAccessTokens     = 1000
	// maxPoliciesBytes bounds a page of policies: some clients accept no more than 4 MiB.
	maxPoliciesBytes = 512 << 10
)

// CreateAccessToken makes an access token. After an error with [apiv1.CodeUnavailable] there may
// be one whose secret nobody has; ListAccessTokens shows it.
func (n wire) CreateAccessToken(ctx context.Context, req *apiv1.CreateAccessTokenRequest) (*apiv1.CreateAccessTokenResponse, error) {
	req = proto.CloneOf(req)
	req.Who = n.whoAsks(req.GetWho())
	secret := ""
	if len(req.GetHash()) == 0 {
		var hash [32]byte
		secret, hash = rights.NewSecret()
		req.Accessor, req.Hash = rights.NewAccessor(), hash[:]
	}
	res, err := atLeader(ctx, n.Node, func(e *epoch) (*apiv1.CreateAccessTokenResponse, error) {
		made, index, err := n.putAccessToken(ctx, e, fsm.PutAccessToken{
			Accessor: req.GetAccessor(), Hash: [32]byte(padded(req.GetHash())), Name: req.GetName(), Labels: labels(req.GetLabels()),
			MadeBy: req.GetWho(), TTL: req.GetTtlNs(),
		})
		return &apiv1.CreateAccessTokenResponse{AccessToken: made, Index: index}, err
	}, func(c apiv1.LocksClient) (*apiv1.CreateAccessTokenResponse, error) {
		return c.CreateAccessToken(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	n.rights.reach(ctx, res.GetIndex())
	res.Secret = secret
	return res, nil
}

// padded is a hash that another node has sent.
func padded(hash []byte) []byte { return append(slices.Clone(hash), make([]byte, 32)...)[:32] }

// putAccessToken makes an access token, unless an earlier try has made it.
func (n *Node) putAccessToken(ctx context.Context, e *epoch, c fsm.PutAccessToken) (*apiv1.AccessToken, uint64, error) {
	c.MadeAt = n.cfg.seams.Wall().UnixMilli()
	if made, index := n.madeAlready(c); made != nil {
		return made, index, nil
	}
	outcomes, err := n.runAll(ctx, e, c)
	if err != nil {
		return nil, 0, err
	}
	if res := &outcomes[0].result; res.Code != fsm.OK {
		if made, index := n.madeAlready(c); made != nil { // by an earlier try that came late
			return made, index, nil
		}
		return nil, 0, refusal(&apiv1.Operation{}, res, outcomes[0].now)
	}
	n.log.Info("access token made", "accessor", c.Accessor, "name", c.Name, "who", c.MadeBy)
	made, _ := n.madeAlready(c)
	if made == nil { // its end has come already
		made = &apiv1.AccessToken{Accessor: c.Accessor, Name: c.Name, MadeBy: c.MadeBy, MadeAtUnixMs: c.MadeAt, RemainingNs: 1}
	}
	return made, outcomes[0].index, nil
}

// madeAlready returns the access token that a command would make, if it is there.
func (n *Node) madeAlready(c fsm.PutAccessToken) (made *apiv1.AccessToken, index uint64) {
	n.machine.View(func(t *fsm.Table) {
		if a, ok := t.AccessTokenOf(c.Hash); ok && a.Accessor == c.Accessor {
			made, index = accessToken(&a, t.Now()), t.RightsIndex()
		}
	})
	return made, index
}

func accessToken(a *fsm.AccessToken, now fsm.Instant) *apiv1.AccessToken {
	m := &apiv1.AccessToken{Accessor: a.Accessor, Name: a.Name, MadeBy: a.MadeBy, MadeAtUnixMs: a.MadeAt}
	if a.Deadline != 0 {
		m.RemainingNs = max(1, a.Deadline.Until(now))
	}
	for _, l := range a.Labels {
		m.Labels = append(m.Labels, &apiv1.Label{Key: l.Key, Value: l.Value})
	}
	return m
}

// ListAccessTokens lists access tokens, as the leader has applied them.
func (n wire) ListAccessTokens(ctx context.Context, req *apiv1.ListAccessTokensRequest) (*apiv1.ListAccessTokensResponse, error) {
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = defaultAccessTokens
	}
	if limit > maxAccessTokens {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "limit: is %d, must be 1 to %d", limit, maxAccessTokens)
	}
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.ListAccessTokensResponse, error) {
		res := &apiv1.ListAccessTokensResponse{}
		intact := n.machine.View(func(t *fsm.Table) {
			if one := req.GetAccessor(); one != "" {
				if a, ok := accessTokenCalled(t, one); ok {
					res.AccessTokens = append(res.AccessTokens, accessToken(&a, t.Now()))
				}
				return
			}
			tokens := t.AccessTokens(req.GetAfter(), limit+1)
			for i := range tokens {
				if i == limit {
					res.Next = tokens[limit-1].Accessor
					return
				}
				res.AccessTokens = append(res.AccessTokens, accessToken(&tokens[i], t.Now()))
			}
		})
		if !intact {
			return nil, n.unavailable()
		}
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ListAccessTokensResponse, error) {
		return c.ListAccessTokens(ctx, req)
	})
}

// accessTokenCalled returns the access token with an accessor.
func accessTokenCalled(t *fsm.Table, accessor string) (fsm.AccessToken, bool) {
	tokens := t.AccessTokens("", math.MaxInt)
	i, ok := slices.BinarySearchFunc(tokens, accessor, func(a fsm.AccessToken, accessor string) int { return strings.Compare(a.Accessor, accessor) })
	if !ok {
		return fsm.AccessToken{}, false
	}
	return tokens[i], true
}

func noAccessToken(accessor string) *apiv1.Error {
	return apiv1.NewError(apiv1.CodeNotHeld, "accessor: is %.40q, there is no such access token; \"locknode token ls\" lists them", accessor)
}

// RevokeAccessToken ends an access token, and on request everything that its identity has. After
// an error some may have been ended; to ask again does no harm, but says that there is no such
// access token once it is revoked.
func (n wire) RevokeAccessToken(ctx context.Context, req *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	req = proto.CloneOf(req)
	req.Who = n.whoAsks(req.GetWho())
	res, err := atLeader(ctx, n.Node, func(e *epoch) (*apiv1.RevokeAccessTokenResponse, error) {
		return n.revokeAccessToken(ctx, e, req)
	}, func(c apiv1.LocksClient) (*apiv1.RevokeAccessTokenResponse, error) {
		return c.RevokeAccessToken(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	n.rights.reach(ctx, res.GetIndex())
	return res, nil
}

func (n *Node) revokeAccessToken(ctx context.Context, e *epoch, req *apiv1.RevokeAccessTokenRequest) (*apiv1.RevokeAccessTokenResponse, error) {
	res := &apiv1.RevokeAccessTokenResponse{}
	n.machine.View(func(t *fsm.Table) {
		if a, ok := accessTokenCalled(t, req.GetAccessor()); ok {
			res.AccessToken = accessToken(&a, t.Now())
		}
	})
	if res.GetAccessToken() == nil {
		return nil, noAccessToken(req.GetAccessor())
	}
	owner := string(rights.Token(res.GetAccessToken().GetName()))
	if req.GetEndSessions() {
		// First while its streams are still open: the revocation ends them, and the clients
		// would believe in what they hold until their sessions were over.
		if err := n.endAll(ctx, e, owner, req, res); err != nil {
			return nil, err
		}
	}
	outcomes, err := n.runAll(ctx, e, fsm.RevokeAccessToken{Accessor: req.GetAccessor()})
	if err != nil {
		return nil, err
	}
	switch got := &outcomes[0].result; got.Code {
	case fsm.OK:
	case fsm.NotHeld:
		return nil, noAccessToken(req.GetAccessor())
	default:
		return nil, refusal(&apiv1.Operation{}, got, outcomes[0].now)
	}
	res.Index = outcomes[0].index
	if req.GetEndSessions() { // and what was made in between
		if err := n.endAll(ctx, e, owner, req, res); err != nil {
			return nil, err
		}
	}
	n.log.Info("access token revoked", "accessor", req.GetAccessor(), "name", res.GetAccessToken().GetName(), "sessions", res.GetKilled(),
		"grants", res.GetGrants(), "waiters", res.GetWaiters(), "who", req.GetWho(), "reason", req.GetReason())
	return res, nil
}

// endAll ends the sessions of an owner, and his grants and waits without a session, and adds how
// many there were.
func (n *Node) endAll(ctx context.Context, e *epoch, owner string, req *apiv1.RevokeAccessTokenRequest, res *apiv1.RevokeAccessTokenResponse) error {
	killed, _, err := n.killSessions(ctx, e, &apiv1.KillSessionsRequest{Owner: owner, Reason: req.GetReason(), Who: req.GetWho()})
	if err != nil {
		return err
	}
	grants, waiters, _, err := n.clearAll(ctx, e, fsm.Clear{Owner: owner, Reason: req.GetReason(), Who: req.GetWho()})
	if err != nil {
		return err
	}
	res.Killed, res.Grants, res.Waiters = res.GetKilled()+killed, res.GetGrants()+grants, res.GetWaiters()+waiters
	return nil
}

// BootstrapAccessToken makes an access token with all rights for who can read the node's data
// directory.
func (n wire) BootstrapAccessToken(ctx context.Context, req *apiv1.BootstrapAccessTokenRequest) (*apiv1.BootstrapAccessTokenResponse, error) {
	// The proof stays here: what is passed on is the hash of the secret.
	passed := &apiv1.BootstrapAccessTokenRequest{Again: req.GetAgain(), Who: n.whoAsks(req.GetWho()), Accessor: req.GetAccessor(), Hash: req.GetHash()}
	secret := ""
	if len(passed.GetHash()) == 0 {
		if !n.rights.isProof(strings.TrimSpace(req.GetProof())) {
			return nil, apiv1.NewError(apiv1.CodeUnauthenticated, "proof: is wrong, must be what is in the file %s of the data directory of node %q, since its last start", proofFile, n.id)
		}
		var hash [32]byte
		secret, hash = rights.NewSecret()
		passed.Accessor, passed.Hash = rights.NewAccessor(), hash[:]
	}
	res, err := atLeader(ctx, n.Node, func(e *epoch) (*apiv1.BootstrapAccessTokenResponse, error) {
		made, index, err := n.bootstrap(ctx, e, passed)
		return &apiv1.BootstrapAccessTokenResponse{AccessToken: made, Index: index}, err
	}, func(c apiv1.LocksClient) (*apiv1.BootstrapAccessTokenResponse, error) {
		return c.BootstrapAccessToken(ctx, passed)
	})
	if err != nil {
		return nil, err
	}
	n.rights.reach(ctx, res.GetIndex())
	res.Secret = secret
	return res, nil
}

// bootstrap makes the access token root, and the policy root if there is none.
func (n *Node) bootstrap(ctx context.Context, e *epoch, req *apiv1.BootstrapAccessTokenRequest) (*apiv1.AccessToken, uint64, error) {
	c := fsm.PutAccessToken{Accessor: req.GetAccessor(), Hash: [32]byte(padded(req.GetHash())), Name: rights.Root, MadeBy: req.GetWho()}
	there, hasPolicy := false, false
	n.machine.View(func(t *fsm.Table) {
		for _, a := range t.AccessTokens("", math.MaxInt) {
			there = there || a.Name == rights.Root && a.Hash != c.Hash
		}
		hasPolicy = slices.ContainsFunc(t.Policies(), func(p fsm.Policy) bool { return p.Name == rights.Root })
	})
	if there && !req.GetAgain() {
		return nil, 0, apiv1.NewError(apiv1.CodeDenied, "access token %q: exists already, must not exist; if its secret is lost, ask again with --again, and revoke the old one", rights.Root)
	}
	if !hasPolicy {
		all := fsm.Policy{Name: rights.Root, For: []string{string(rights.Token(rights.Root))}, Rules: []fsm.Rule{
			{Rights: fsm.RightRead | fsm.RightLock | fsm.RightForce | fsm.RightAdmin},
		}}
		outcomes, err := n.runAll(ctx, e, fsm.ChangePolicies{Put: []fsm.Policy{all}})
		if err != nil {
			return nil, 0, err
		}
		if res := &outcomes[0].result; res.Code != fsm.OK {
			return nil, 0, refusal(&apiv1.Operation{}, res, outcomes[0].now)
		}
	}
	return n.putAccessToken(ctx, e, c)
}

// ChangePolicies puts and removes policies. After an error with [apiv1.CodeUnavailable] it may
// have been done; ListPolicies shows it.
func (n wire) ChangePolicies(ctx context.Context, req *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	req = proto.CloneOf(req)
	req.Who = n.whoAsks(req.GetWho())
	res, err := atLeader(ctx, n.Node, func(e *epoch) (*apiv1.ChangePoliciesResponse, error) {
		return n.changePolicies(ctx, e, req)
	}, func(c apiv1.LocksClient) (*apiv1.ChangePoliciesResponse, error) { return c.ChangePolicies(ctx, req) })
	if err != nil {
		return nil, err
	}
	n.rights.reach(ctx, res.GetIndex())
	return res, nil
}

func (n *Node) changePolicies(ctx context.Context, e *epoch, req *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	c := fsm.ChangePolicies{If: req.GetIf()}
	res := &apiv1.ChangePoliciesResponse{}
	before := map[string]fsm.Policy{}
	n.machine.View(func(t *fsm.Table) {
		res.Index = t.RightsIndex()
		for _, p := range t.Policies() {
			before[p.Name] = p
		}
	})
	for _, name := range req.GetRemove() {
		if _, ok := before[name]; ok {
			c.Remove = append(c.Remove, name)
		}
	}
	res.Removed = c.Remove
	for _, m := range req.GetPut() {
		p, bad := policyOf(m)
		if bad != nil {
			return nil, bad
		}
		switch old, ok := before[p.Name]; {
		case !ok:
			res.Added = append(res.Added, p.Name)
		case samePolicy(&old, &p):
			res.Unchanged = append(res.Unchanged, p.Name)
			continue
		default:
			res.Changed = append(res.Changed, p.Name)
		}
		c.Put = append(c.Put, p)
	}
	if len(c.Put)+len(c.Remove) == 0 && (c.If == 0 || c.If == res.GetIndex()) {
		return res, nil
	}
	outcomes, err := n.runAll(ctx, e, c)
	if err != nil {
		return nil, err
	}
	if got := &outcomes[0].result; got.Code != fsm.OK {
		return nil, refusal(&apiv1.Operation{}, got, outcomes[0].now)
	}
	res.Index = outcomes[0].index
	n.log.Info("policies changed", "added", strings.Join(res.GetAdded(), ","), "changed", strings.Join(res.GetChanged(), ","),
		"removed", strings.Join(res.GetRemoved(), ","), "who", req.GetWho())
	return res, nil
}

func samePolicy(a, b *fsm.Policy) bool {
	return a.Name == b.Name && slices.Equal(a.For, b.For) && slices.Equal(a.Rules, b.Rules) && a.Quota == b.Quota
}

// policyOf translates a policy. The table checks everything that has a limit.
func policyOf(m *apiv1.Policy) (fsm.Policy, *apiv1.Error) {
	q := m.GetQuota()
	p := fsm.Policy{Name: m.GetName(), For: m.GetFor(), Quota: fsm.Quota{
		Sessions: int(q.GetSessions()), Grants: int(q.GetGrants()), Waiters: int(q.GetWaiters()), Bytes: q.GetBytes(),
		OpsPerSecond: int(q.GetOpsPerSecond()), Connections: int(q.GetConnections()), Streams: int(q.GetStreams()), UnsentBytes: q.GetUnsentBytes(),
	}}
	for i, r := range m.GetRules() {
		rule := fsm.Rule{Deny: r.GetDeny(), Name: r.GetName(), Exact: r.GetExact()}
		for _, right := range r.GetRights() {
			switch right {
			case apiv1.Right_RIGHT_READ, apiv1.Right_RIGHT_LOCK, apiv1.Right_RIGHT_FORCE, apiv1.Right_RIGHT_ADMIN:
				rule.Rights |= fsm.Right(right) //nolint:gosec // it is one of these
			default:
				return p, apiv1.NewError(apiv1.CodeInvalid, "policy %.100q: rules[%d].rights: has %d, must be read, lock, force or admin", m.GetName(), i, right)
			}
		}
		p.Rules = append(p.Rules, rule)
	}
	return p, nil
}

func policyMessage(p *fsm.Policy) *apiv1.Policy {
	m := &apiv1.Policy{Name: p.Name, For: p.For}
	for i := range p.Rules {
		m.Rules = append(m.Rules, ruleMessage(&p.Rules[i]))
	}
	if q := p.Quota; q != (fsm.Quota{}) {
		m.Quota = &apiv1.Quota{
			Sessions: int64(q.Sessions), Grants: int64(q.Grants), Waiters: int64(q.Waiters), Bytes: q.Bytes,
			OpsPerSecond: int64(q.OpsPerSecond), Connections: int64(q.Connections), Streams: int64(q.Streams), UnsentBytes: q.UnsentBytes,
		}
	}
	return m
}

func ruleMessage(r *fsm.Rule) *apiv1.Rule {
	m := &apiv1.Rule{Deny: r.Deny, Name: r.Name, Exact: r.Exact}
	for right := fsm.RightRead; right <= fsm.RightAdmin; right <<= 1 {
		if r.Rights&right != 0 {
			m.Rights = append(m.Rights, apiv1.Right(right))
		}
	}
	return m
}

// ListPolicies lists policies, as the leader has applied them.
func (n wire) ListPolicies(ctx context.Context, req *apiv1.ListPoliciesRequest) (*apiv1.ListPoliciesResponse, error) {
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.ListPoliciesResponse, error) {
		res := &apiv1.ListPoliciesResponse{}
		var all []fsm.Policy
		intact := n.machine.View(func(t *fsm.Table) { all, res.Index = t.Policies(), t.RightsIndex() })
		if !intact {
			return nil, n.unavailable()
		}
		size := 0
		for i := range all {
			p := &all[i]
			if req.GetName() != "" && p.Name != req.GetName() || p.Name <= req.GetAfter() {
				continue
			}
			if size >= maxPoliciesBytes {
				res.Next = res.GetPolicies()[len(res.GetPolicies())-1].GetName()
				break
			}
			m := policyMessage(p)
			size += proto.Size(m)
			res.Policies = append(res.Policies, m)
		}
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ListPoliciesResponse, error) { return c.ListPolicies(ctx, req) })
}

// CheckRights decides by what this node knows, also in mode off, so that policies can be tried
// before rights are required.
func (n wire) CheckRights(_ context.Context, req *apiv1.CheckRightsRequest) (*apiv1.CheckRightsResponse, error) {
	id := rights.Identity(req.GetIdentity())
	if id == "" {
		id = rights.Embedded
	}
	res := &apiv1.CheckRightsResponse{Identity: string(id)}
	right := fsm.Right(0)
	switch r := req.GetRight(); r {
	case apiv1.Right_RIGHT_READ, apiv1.Right_RIGHT_LOCK, apiv1.Right_RIGHT_FORCE, apiv1.Right_RIGHT_ADMIN:
		right = fsm.Right(r) //nolint:gosec // it is one of these
	default:
		return nil, apiv1.NewError(apiv1.CodeInvalid, "right: is %d, must be read, lock, force or admin", r)
	}
	if id == rights.Embedded {
		res.Allowed, res.Why = true, "allowed: a client in the process of the node has all rights"
		return res, nil
	}
	if _, named := id.Name(); id != rights.Anonymous && (!named || !id.Owns()) {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "identity: is %.100q, must be token:NAME, cert:NAME or anonymous", id)
	}
	name := req.GetName()
	if right == fsm.RightAdmin {
		name = ""
	}
	d := n.rights.book.Load().Subject(id).Decide(right, name)
	res.Allowed, res.Policy, res.Rule = d.Allowed, d.Policy, uint32(d.Rule) //nolint:gosec // a policy has few
	if res.Why = d.Why(id, right, name); d.Rule != 0 {
		res.DecidedBy = ruleMessage(&d.By)
	}
	return res, nil
}

// WhoAmI answers a client in the process of the node. The server answers all others.
func (n wire) WhoAmI(context.Context, *apiv1.WhoAmIRequest) (*apiv1.WhoAmIResponse, error) {
	enforced, _ := n.rights.describe()
	return &apiv1.WhoAmIResponse{Identity: string(rights.Embedded), Mode: n.cfg.Auth.mode(), Enforced: enforced}, nil
}

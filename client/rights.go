package client

import (
	"context"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// Access tokens and policies, which say who may do what. The calls need the right admin, but
// for WhoAmI, and CheckRights of oneself. The leader carries out what changes something,
// whichever node is asked; the others are answered by any node. They wait and fail as those of
// an operator in operator.go; ErrDenied and ErrUnauthenticated change nothing.

// Right is what a rule of a policy allows or denies.
type Right string

// The rights. Others may be added.
const (
	RightRead  Right = "read"  // see locks, who holds them, and what happens to them
	RightLock  Right = "lock"  // acquire, and renew under the name
	RightForce Right = "force" // end what others hold
	RightAdmin Right = "admin" // members, leadership, limits, access tokens, policies: not for names
)

// rights are the rights with their numbers on the wire, in the order in which they are shown.
var rights = []struct {
	name Right
	wire apiv1.Right
}{
	{RightRead, apiv1.Right_RIGHT_READ}, {RightLock, apiv1.Right_RIGHT_LOCK},
	{RightForce, apiv1.Right_RIGHT_FORCE}, {RightAdmin, apiv1.Right_RIGHT_ADMIN},
}

// AccessToken is what is known of an access token; its secret is not.
type AccessToken struct {
	Accessor  string            // names the token in calls and logs
	Name      string            // its caller is the identity token:Name; several tokens may have one name
	Labels    map[string]string // for policies, and for people
	MadeBy    string            // the identity or address that made it
	Made      time.Time         // by the wall clock of a node, for people only
	Remaining time.Duration     // until it ends; 0: it has no end
}

// NewAccessToken is what [Client.CreateAccessToken] makes.
type NewAccessToken struct {
	Name   string            // 1 to 128 bytes, unless the cluster's limits differ
	Labels map[string]string // may be nil
	TTL    time.Duration     // it ends after that; 0: it has no end
}

// CreateAccessToken makes an access token, and returns its secret, which is shown nowhere else.
// It is not repeated when the outcome is unknown: [Client.AccessTokens] shows then whether
// there is one, which nobody can use.
func (c *Client) CreateAccessToken(ctx context.Context, t NewAccessToken) (made AccessToken, secret string, err error) {
	w := what{"create access token", t.Name}
	if err := checkText(w, "name", t.Name, true); err != nil {
		return made, "", err
	}
	if t.TTL < 0 {
		return made, "", invalid(w, "ttl: is %v, must not be negative", t.TTL)
	}
	labels := labelsOf(t.Labels)
	for _, l := range labels {
		if err := checkText(w, "label", l.GetKey()+l.GetValue(), true); err != nil {
			return made, "", err
		}
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.CreateAccessTokenResponse, error) {
		return a.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{Name: t.Name, Labels: labels, TtlNs: int64(t.TTL)})
	})
	return accessToken(r.GetAccessToken()), r.GetSecret(), err
}

// labelsOf returns labels in the order of their keys.
func labelsOf(m map[string]string) []*apiv1.Label {
	var labels []*apiv1.Label
	for k, v := range m {
		labels = append(labels, &apiv1.Label{Key: k, Value: v})
	}
	slices.SortFunc(labels, func(a, b *apiv1.Label) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	return labels
}

func accessToken(t *apiv1.AccessToken) AccessToken {
	if t == nil {
		return AccessToken{}
	}
	out := AccessToken{
		Accessor: t.GetAccessor(), Name: t.GetName(), MadeBy: t.GetMadeBy(),
		Made: time.UnixMilli(t.GetMadeAtUnixMs()), Remaining: time.Duration(t.GetRemainingNs()),
	}
	for _, l := range t.GetLabels() {
		if out.Labels == nil {
			out.Labels = make(map[string]string)
		}
		out.Labels[l.GetKey()] = l.GetValue()
	}
	return out
}

// AccessTokens lists access tokens in the order of their accessors, up to 1000 with accessors
// greater than after. If there are more, next is not empty: pass it as after.
func (c *Client) AccessTokens(ctx context.Context, after string) (tokens []AccessToken, next string, err error) {
	w := what{verb: "list access tokens"}
	if err := checkText(w, "after", after, false); err != nil {
		return nil, "", err
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.ListAccessTokensResponse, error) {
		return a.ListAccessTokens(ctx, &apiv1.ListAccessTokensRequest{After: after, Limit: 1000})
	})
	for _, t := range r.GetAccessTokens() {
		tokens = append(tokens, accessToken(t))
	}
	return tokens, r.GetNext(), err
}

// AccessToken returns the access token with an accessor; ok is false if there is none.
func (c *Client) AccessToken(ctx context.Context, accessor string) (t AccessToken, ok bool, err error) {
	w := what{"get access token", accessor}
	if err := checkText(w, "accessor", accessor, true); err != nil {
		return t, false, err
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.ListAccessTokensResponse, error) {
		return a.ListAccessTokens(ctx, &apiv1.ListAccessTokensRequest{Accessor: accessor, Limit: 1})
	})
	for _, one := range r.GetAccessTokens() {
		if one.GetAccessor() == accessor {
			return accessToken(one), true, nil
		}
	}
	return t, false, err
}

// RevokeAccessToken ends an access token: on every node within a second, while a majority can
// talk. With endSessions it also ends what the identity token:NAME holds and waits for: its
// sessions, and grants and waits without a session, also those of other tokens with the same
// name. Their clients get a [LostError] with the reason. Without it, a client that has no
// other token keeps what it holds until its session ends, which it can keep alive no more.
//
// It returns [ErrNotHeld] if there is no such token. It may be repeated after any other error.
func (c *Client) RevokeAccessToken(ctx context.Context, accessor string, endSessions bool, reason string) (AccessToken, Killed, error) {
	w := what{"revoke access token", accessor}
	if err := checkText(w, "accessor", accessor, true); err != nil {
		return AccessToken{}, Killed{}, err
	}
	if err := checkText(w, "reason", reason, false); err != nil {
		return AccessToken{}, Killed{}, err
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.RevokeAccessTokenResponse, error) {
		return a.RevokeAccessToken(ctx, &apiv1.RevokeAccessTokenRequest{Accessor: accessor, EndSessions: endSessions, Reason: reason})
	})
	return accessToken(r.GetAccessToken()), Killed{int(r.GetKilled()), int(r.GetGrants()), int(r.GetWaiters())}, err
}

// BootstrapAccessToken makes an access token named root, with all rights, for who can read the
// file operator.key in the data directory of a node: proof is what is in it. Only the node
// that the file belongs to accepts it, so the client has to have the address of that node
// alone. If there is such a token already it is refused with [ErrDenied], unless again is set.
func (c *Client) BootstrapAccessToken(ctx context.Context, proof string, again bool) (made AccessToken, secret string, err error) {
	w := what{verb: "bootstrap access token"}
	if len(proof) > maxName {
		return made, "", invalid(w, "proof: is %d bytes long, must be at most %d", len(proof), maxName)
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.BootstrapAccessTokenResponse, error) {
		return a.BootstrapAccessToken(ctx, &apiv1.BootstrapAccessTokenRequest{Proof: proof, Again: again})
	})
	return accessToken(r.GetAccessToken()), r.GetSecret(), err
}

// Policy says what some callers may do. Of all rules of all policies for a caller that are
// about a right and match a name the most specific one decides: exact names before prefixes,
// longer prefixes before shorter ones, deny before allow. Where none matches the right is denied.
type Policy struct {
	Name string // 1 to 128 bytes
	// For: token:NAME, cert:NAME, anonymous, label:KEY=VALUE (access tokens with that label),
	// or * (everybody, also anonymous).
	For   []string
	Rules []Rule // their order means nothing
	Quota Quota  // of each caller that the policy is for
}

// Rule allows or denies rights on names.
type Rule struct {
	Deny   bool    // otherwise it allows
	Rights []Right // at least one
	Name   string  // a prefix, or with Exact a whole name; ${identity} is the NAME of the caller
	Exact  bool    // Name is a whole name
}

// Quota bounds what one caller has. A field of 0 is no bound of its own.
type Quota struct {
	Sessions     int   // that are open
	Grants       int   // and requests that wait
	Waiters      int   // places in queues
	Bytes        int64 // of the table's memory
	OpsPerSecond int   // at each node, as what follows
	Connections  int   // that are open
	Streams      int   // that are open
	UnsentBytes  int64 // of answers that the caller does not read
}

// PolicyChange is what [Client.ChangePolicies] has changed: names of policies.
type PolicyChange struct {
	Added     []string // there was none with that name
	Changed   []string // there was another one with that name
	Unchanged []string // there was the same one
	Removed   []string // there was one
}

// ChangePolicies puts policies, in the place of those with the same names, and removes others:
// all of it or nothing. With an index of [Client.Policies] nothing is changed, and the error
// is [ErrDenied], if policies or access tokens have changed since; 0 is in any case. A name to
// remove that does not exist is ignored. [ErrInvalid] names what is wrong with a policy.
func (c *Client) ChangePolicies(ctx context.Context, put []Policy, remove []string, index uint64) (PolicyChange, error) {
	w := what{verb: "change policies"}
	q := &apiv1.ChangePoliciesRequest{Remove: remove, If: index}
	for _, name := range remove {
		if err := checkText(w, "name to remove", name, true); err != nil {
			return PolicyChange{}, err
		}
	}
	for _, p := range put {
		one, err := p.wire(w)
		if err != nil {
			return PolicyChange{}, err
		}
		q.Put = append(q.Put, one)
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.ChangePoliciesResponse, error) {
		return a.ChangePolicies(ctx, q)
	})
	return PolicyChange{Added: r.GetAdded(), Changed: r.GetChanged(), Unchanged: r.GetUnchanged(), Removed: r.GetRemoved()}, err
}

func (p Policy) wire(w what) (*apiv1.Policy, error) {
	if err := checkText(w, "name of a policy", p.Name, true); err != nil {
		return nil, err
	}
	q := p.Quota
	out := &apiv1.Policy{Name: p.Name, For: p.For, Quota: &apiv1.Quota{
		Sessions: int64(q.Sessions), Grants: int64(q.Grants), Waiters: int64(q.Waiters), Bytes: q.Bytes,
		OpsPerSecond: int64(q.OpsPerSecond), Connections: int64(q.Connections), Streams: int64(q.Streams), UnsentBytes: q.UnsentBytes,
	}}
	for _, who := range p.For {
		if err := checkText(w, "policy "+p.Name+": for", who, true); err != nil {
			return nil, err
		}
	}
	for _, rule := range p.Rules {
		if err := checkText(w, "policy "+p.Name+": name in a rule", rule.Name, false); err != nil {
			return nil, err
		}
		one := &apiv1.Rule{Deny: rule.Deny, Name: rule.Name, Exact: rule.Exact}
		for _, right := range rule.Rights {
			number, err := right.wire(w)
			if err != nil {
				return nil, err
			}
			one.Rights = append(one.Rights, number)
		}
		out.Rules = append(out.Rules, one)
	}
	return out, nil
}

func (right Right) wire(w what) (apiv1.Right, error) {
	for _, r := range rights {
		if r.name == right {
			return r.wire, nil
		}
	}
	return 0, invalid(w, "right: is %.64q, must be read, lock, force or admin", string(right))
}

// Policies lists policies in the order of their names, up to a page of those with names
// greater than after. If there are more, next is not empty: pass it as after. The index is for
// [Client.ChangePolicies].
func (c *Client) Policies(ctx context.Context, after string) (policies []Policy, next string, index uint64, err error) {
	return c.policies(ctx, what{verb: "list policies"}, &apiv1.ListPoliciesRequest{After: after})
}

// Policy returns the policy with a name; ok is false if there is none.
func (c *Client) Policy(ctx context.Context, name string) (p Policy, ok bool, err error) {
	w := what{"get policy", name}
	if err := checkText(w, "name", name, true); err != nil {
		return p, false, err
	}
	all, _, _, err := c.policies(ctx, w, &apiv1.ListPoliciesRequest{Name: name})
	for _, one := range all {
		if one.Name == name {
			return one, true, nil
		}
	}
	return p, false, err
}

func (c *Client) policies(ctx context.Context, w what, q *apiv1.ListPoliciesRequest) ([]Policy, string, uint64, error) {
	if err := checkText(w, "after", q.GetAfter(), false); err != nil {
		return nil, "", 0, err
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.ListPoliciesResponse, error) {
		return a.ListPolicies(ctx, q)
	})
	var out []Policy
	for _, p := range r.GetPolicies() {
		out = append(out, policyOf(p))
	}
	return out, r.GetNext(), r.GetIndex(), err
}

func policyOf(p *apiv1.Policy) Policy {
	q := p.GetQuota()
	out := Policy{Name: p.GetName(), For: p.GetFor(), Quota: Quota{
		Sessions: int(q.GetSessions()), Grants: int(q.GetGrants()), Waiters: int(q.GetWaiters()), Bytes: q.GetBytes(),
		OpsPerSecond: int(q.GetOpsPerSecond()), Connections: int(q.GetConnections()), Streams: int(q.GetStreams()), UnsentBytes: q.GetUnsentBytes(),
	}}
	for _, r := range p.GetRules() {
		out.Rules = append(out.Rules, ruleOf(r))
	}
	return out
}

func ruleOf(r *apiv1.Rule) Rule {
	out := Rule{Deny: r.GetDeny(), Name: r.GetName(), Exact: r.GetExact()}
	for _, right := range rights {
		if slices.Contains(r.GetRights(), right.wire) {
			out.Rights = append(out.Rights, right.name)
		}
	}
	return out
}

// Decision says whether an identity has a right, and why.
type Decision struct {
	Identity string // that was asked for; token:NAME, cert:NAME or anonymous
	Allowed  bool   // it has the right
	Policy   string // whose rule decides; empty: no rule matches
	Number   int    // of the rule in the policy, from 1; 0: no rule matches
	Rule     Rule   // that decides
	Why      string // the same, for people
}

// CheckRights says whether an identity has a right on the name of a lock, and which rule
// decides. An empty identity is the caller, who needs no right to ask that; an empty name is
// for admin.
func (c *Client) CheckRights(ctx context.Context, identity string, right Right, name string) (Decision, error) {
	w := what{"check rights of", identity}
	if identity == "" {
		w = what{verb: "check rights"}
	}
	number, err := right.wire(w)
	if err != nil {
		return Decision{}, err
	}
	if err := checkText(w, "identity", identity, false); err != nil {
		return Decision{}, err
	}
	if err := checkText(w, "name", name, false); err != nil {
		return Decision{}, err
	}
	r, err := callRights(ctx, c, w, func(a embedded.Rights, ctx context.Context) (*apiv1.CheckRightsResponse, error) {
		return a.CheckRights(ctx, &apiv1.CheckRightsRequest{Identity: identity, Right: number, Name: name})
	})
	return Decision{
		Identity: r.GetIdentity(), Allowed: r.GetAllowed(), Policy: r.GetPolicy(), Number: int(r.GetRule()),
		Rule: ruleOf(r.GetDecidedBy()), Why: r.GetWhy(),
	}, err
}

// Identity is who the caller is to a node.
type Identity struct {
	// Name: token:NAME, cert:NAME, anonymous, or embedded for a client of an embedded node.
	Name        string
	AccessToken AccessToken // that was shown; without one its Accessor is empty
	Mode        string      // auth.mode of the node: off, log or required
	Enforced    bool        // the node refuses what the caller has no right to
	Policies    []string    // names of those for the caller
}

// WhoAmI returns who the caller is to the node that answers.
func (c *Client) WhoAmI(ctx context.Context) (Identity, error) {
	r, err := callRights(ctx, c, what{verb: "who am I"}, func(a embedded.Rights, ctx context.Context) (*apiv1.WhoAmIResponse, error) {
		return a.WhoAmI(ctx, &apiv1.WhoAmIRequest{})
	})
	return Identity{
		Name: r.GetIdentity(), AccessToken: accessToken(r.GetAccessToken()), Mode: r.GetMode(), Enforced: r.GetEnforced(), Policies: r.GetPolicies(),
	}, err
}

// callRights makes a call about access tokens or policies.
func callRights[R any](ctx context.Context, c *Client, w what, do func(embedded.Rights, context.Context) (R, error)) (R, error) {
	return administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (R, error) {
		b, ok := a.(embedded.Rights)
		if !ok {
			var none R
			return none, apiv1.NewError(apiv1.CodeUnknownCommand, "this node knows no access tokens and policies")
		}
		return do(b, ctx)
	})
}

package document

import "time"

// Policies are written in JSON as they are in the files of "policy apply": YAML reads JSON, so
// what is listed can be applied.

// AccessToken is what is known of an access token.
type AccessToken struct {
	Accessor    string            `json:"accessor"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	MadeBy      string            `json:"made_by"`
	MadeAt      string            `json:"made_at"`             // RFC 3339, by the wall clock of a node
	Remaining   string            `json:"remaining,omitempty"` // until it ends; empty: it has no end
	RemainingMs int64             `json:"remaining_ms,omitempty"`
}

// SetTimes sets when the token was made, and how long it still is valid; 0: it has no end.
func (t *AccessToken) SetTimes(made time.Time, remaining time.Duration) {
	t.MadeAt = made.UTC().Format(time.RFC3339)
	if remaining > 0 {
		t.Remaining, t.RemainingMs = Span(remaining)
	}
}

// AccessTokens is a page of access tokens.
type AccessTokens struct {
	AccessTokens []AccessToken `json:"access_tokens"`
	Next         string        `json:"next,omitempty"` // pass as after; empty: this is the last one
}

// NewAccessToken is an access token that was made. Its secret is shown here and nowhere else.
type NewAccessToken struct {
	AccessToken AccessToken `json:"access_token"`
	Secret      string      `json:"secret"`
}

// RevokedAccessToken is an access token that was revoked, and what was ended with it.
type RevokedAccessToken struct {
	AccessToken AccessToken `json:"access_token"`
	Killed      int         `json:"killed"`
	Grants      int         `json:"grants"` // that belonged to no session, as the waiters
	Waiters     int         `json:"waiters"`
}

// Policies is a page of policies.
type Policies struct {
	Policies []Policy `json:"policies"`
	Next     string   `json:"next,omitempty"`  // pass as after; empty: this is the last one
	Index    uint64   `json:"index,omitempty"` // of the log: the last change of policies or access tokens
}

// Policy is a policy.
type Policy struct {
	Name  string   `json:"name"`
	For   []string `json:"for"`
	Rules []Rule   `json:"rules"`
	Quota *Quota   `json:"quota,omitempty"`
}

// Rule is a rule of a policy. It has either allow or deny, and either prefix or name.
type Rule struct {
	Allow  []string `json:"allow,omitempty"`
	Deny   []string `json:"deny,omitempty"`
	Prefix *string  `json:"prefix,omitempty"`
	Name   *string  `json:"name,omitempty"`
}

// NewRule returns the document of a rule.
func NewRule(deny bool, rights []string, name string, exact bool) Rule {
	var r Rule
	if deny {
		r.Deny = rights
	} else {
		r.Allow = rights
	}
	if exact {
		r.Name = &name
	} else {
		r.Prefix = &name
	}
	return r
}

// Quota bounds what an identity has.
type Quota struct {
	Sessions     int   `json:"sessions,omitempty"`
	Grants       int   `json:"grants,omitempty"`
	Waiters      int   `json:"waiters,omitempty"`
	Bytes        int64 `json:"bytes,omitempty"`
	OpsPerSecond int   `json:"ops_per_second,omitempty"`
	Connections  int   `json:"connections,omitempty"`
	Streams      int   `json:"streams,omitempty"`
	UnsentBytes  int64 `json:"unsent_bytes,omitempty"`
}

// PoliciesChanged is the answer to a change of policies: their names.
type PoliciesChanged struct {
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Unchanged []string `json:"unchanged"`
	Removed   []string `json:"removed"`
}

// Decision says whether an identity has a right, and which rule decides.
type Decision struct {
	Identity  string `json:"identity"`
	Allowed   bool   `json:"allowed"`
	Policy    string `json:"policy,omitempty"` // empty: no rule matches
	Rule      int    `json:"rule,omitempty"`   // its number in the policy, from 1
	DecidedBy *Rule  `json:"decided_by,omitempty"`
	Why       string `json:"why"`
}

// Identity is who the caller is to the node.
type Identity struct {
	Identity    string       `json:"identity"`
	AccessToken *AccessToken `json:"access_token,omitempty"` // that was shown
	Mode        string       `json:"mode"`
	Enforced    bool         `json:"enforced"`
	Policies    []string     `json:"policies"`
}

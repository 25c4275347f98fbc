package fsm

import (
	"slices"
	"strings"
)

// Access tokens, policies and callers in the model.

type modelToken struct {
	AccessToken
	number uint64
}

func (m *model) runRights(c Command) Result {
	if m.level < 2 {
		return Result{Code: UnknownCommand}
	}
	switch c := c.(type) {
	case PutAccessToken:
		return m.putAccessToken(c)
	case RevokeAccessToken:
		for _, a := range m.tokens {
			if a.Accessor == c.Accessor {
				m.endToken(a)
				return Result{}
			}
		}
		return Result{Code: NotHeld}
	case ChangePolicies:
		return m.changePolicies(c)
	case As:
		if c.Caller == "" || len(c.Caller) > 128 || !modelPlain(c.Caller) {
			return invalid("caller")
		}
		m.as = &c
		defer func() { m.as = nil }()
		return m.run(c.Command)
	}
	panic("no such command")
}

func (m *model) putAccessToken(c PutAccessToken) Result {
	text := func(s string, least, most int) bool { return len(s) >= least && len(s) <= most && modelPlain(s) }
	switch {
	case !text(c.Accessor, 1, 32):
		return invalid("accessor")
	case c.Hash == [32]byte{}:
		return invalid("hash")
	case !text(c.Name, 1, 122):
		return invalid("name")
	case !text(c.MadeBy, 0, 128):
		return invalid("made_by")
	case c.TTL < 0 || c.TTL > 3660*24*3600*second:
		return invalid("ttl")
	case !m.labelsFit(c.Labels):
		return invalid("labels")
	}
	for _, a := range m.tokens {
		if a.Accessor == c.Accessor || a.Hash == c.Hash {
			return invalid("accessor")
		}
	}
	if len(m.tokens) >= m.limits.AccessTokens {
		return Result{Code: OverLimit}
	}
	m.arrivals++
	a := &modelToken{AccessToken{c.Accessor, c.Hash, c.Name, c.Labels, c.MadeBy, c.MadeAt, 0}, m.arrivals}
	if c.TTL > 0 {
		a.Deadline = later(m.now, c.TTL)
	}
	m.tokens = append(m.tokens, a)
	m.rightsIndex = m.index
	return Result{Deadline: a.Deadline}
}

func (m *model) endToken(a *modelToken) {
	m.tokens = slices.DeleteFunc(m.tokens, func(x *modelToken) bool { return x == a })
	m.rightsIndex = m.index
}

func (m *model) changePolicies(c ChangePolicies) Result {
	if c.If != 0 && c.If != m.rightsIndex {
		return invalid("if")
	}
	var names []string
	for _, p := range c.Put {
		if field := m.policyFault(p); field != "" {
			return invalid(field)
		}
		names = append(names, p.Name)
	}
	after := m.policies
	for _, name := range c.Remove {
		if !slices.ContainsFunc(m.policies, func(p Policy) bool { return p.Name == name }) {
			return Result{Code: NotHeld}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		return invalid("policy")
	}
	after = slices.DeleteFunc(slices.Clone(after), func(p Policy) bool { return slices.Contains(names, p.Name) })
	after = append(after, c.Put...)
	slices.SortFunc(after, func(a, b Policy) int { return strings.Compare(a.Name, b.Name) })
	if len(c.Put) > 0 && len(after) > m.limits.Policies {
		return Result{Code: OverLimit}
	}
	m.policies = after
	if len(names) > 0 {
		m.rightsIndex = m.index
	}
	return Result{}
}

func (m *model) policyFault(p Policy) string {
	size := len((&encoder{}).policyBytes(p))
	q := p.Quota
	least := min(q.Sessions, q.Grants, q.Waiters, q.OpsPerSecond, q.Connections, q.Streams, int(min(q.Bytes, q.UnsentBytes, 1)))
	switch {
	case p.Name == "" || len(p.Name) > 128 || !modelPlain(p.Name):
		return "name"
	case len(p.For) == 0 || len(p.For) > 64:
		return "for"
	case len(p.Rules) > 256:
		return "rules"
	case least < 0:
		return "quota"
	case size > m.limits.PolicyBytes:
		return "policy_bytes"
	}
	for _, subject := range p.For {
		label, isLabel := strings.CutPrefix(subject, "label:")
		known := subject == "*" || subject == "anonymous" || modelIdentity(subject) && len(subject) <= 128 || isLabel && strings.Contains(label, "=")
		if !known || len(subject) > 512 || !modelPlain(subject) {
			return "for"
		}
	}
	for _, r := range p.Rules {
		if r.Rights == 0 || r.Rights > 15 || len(r.Name) > m.limits.NameBytes || !modelPlain(r.Name) || r.Exact && r.Name == "" || r.Rights >= 8 && r.Name != "" {
			return "rules"
		}
	}
	return ""
}

// policyBytes is a policy as it stands in the log.
func (e *encoder) policyBytes(p Policy) []byte {
	e.policy(&p)
	return e.buf
}

func modelIdentity(s string) bool {
	kind, name, _ := strings.Cut(s, ":")
	return (kind == "token" || kind == "cert") && name != ""
}

// foreign says that something of an owner is not for the caller under way.
func (m *model) foreign(owner string) bool {
	return m.as != nil && m.as.Caller != owner && modelIdentity(owner)
}

func (m *model) guarded(owner string) bool { return m.foreign(owner) && !m.as.Force }

// mayMake says that the caller under way may make something for an owner.
func (m *model) mayMake(owner string) bool {
	switch {
	case m.as == nil:
		return true
	case (modelIdentity(owner) || modelIdentity(m.as.Caller)) && owner != m.as.Caller:
		return false
	}
	return !m.isNobody(m.as.Caller)
}

// isNobody says that an identity was known by access tokens, and has none left.
func (m *model) isNobody(identity string) bool {
	name, ok := strings.CutPrefix(identity, "token:")
	return m.level >= 2 && ok && !slices.ContainsFunc(m.tokens, func(a *modelToken) bool { return a.Name == name })
}

// isFor says that a policy is for the caller under way.
func (m *model) isFor(p Policy) bool {
	caller := m.as.Caller
	if strings.HasPrefix(caller, "node ") {
		return false
	}
	for _, subject := range p.For {
		if subject == "*" || subject == caller || subject == "anonymous" && !modelIdentity(caller) {
			return true
		}
		for _, a := range m.tokens {
			for _, l := range a.Labels {
				if "token:"+a.Name == caller && subject == "label:"+l.Key+"="+l.Value {
					return true
				}
			}
		}
	}
	return false
}

// over says that one more than all that are an owner's is more than a quota of the caller
// under way allows.
func (m *model) over(owner string, all []string, of func(Quota) int) bool {
	if m.as == nil {
		return false
	}
	own := 0
	for _, other := range all {
		if other == owner {
			own++
		}
	}
	for _, p := range m.policies {
		if q := of(p.Quota); q != 0 && own+1 > q && m.isFor(p) {
			return true
		}
	}
	return false
}

// waiting are the requests that wait, of all locks.
func (m *model) waiting() (waiters []*modelRequest) {
	for _, r := range m.requests {
		if r.token == 0 {
			waiters = append(waiters, r)
		}
	}
	return waiters
}

package fsm

import (
	"fmt"
	"strings"
)

// Commands about rights, and requests as somebody.

func newRightsGenerator(src source, m *model) *generator {
	g := newGenerator(src, m)
	g.rights = true
	return g
}

var genCallers = []string{"token:shop", "token:cafe", "cert:bill", "10.0.0.1"}

// genOwners are where the callers come from, too.
var genOwners = []string{"token:shop", "", "token:cafe", "cert:bill", "10.0.0.1"}

func (g *generator) rightsCommand() Command {
	switch g.pick(8, "right") {
	case 0, 1, 2:
		return g.putAccessToken()
	case 3, 4:
		return RevokeAccessToken{Accessor: g.accessor()}
	case 5:
		c := Configure{Limits: g.limits()}
		c.Limits.AccessTokens = g.pick(4, "access tokens")
		c.Limits.Policies = g.pick(4, "policies")
		if g.oneIn(4, "policy bytes") {
			c.Limits.PolicyBytes = 40
		}
		return c
	default:
		return g.changePolicies()
	}
}

func (g *generator) accessor() string {
	if g.oneIn(25, "odd accessor") {
		return []string{"", "\xff", strings.Repeat("a", 33)}[g.pick(3, "accessor")]
	}
	return fmt.Sprint("t", g.pick(5, "accessor"))
}

func (g *generator) putAccessToken() Command {
	c := PutAccessToken{
		Accessor: g.accessor(), Hash: [32]byte{31: byte(g.pick(6, "hash") + 1)}, Name: []string{"shop", "cafe"}[g.pick(2, "name")],
		MadeBy: g.text("by"), MadeAt: int64(g.pick(3, "made at")),
	}
	if g.oneIn(2, "with an end") {
		c.TTL = []int64{second, 5 * second, 30 * second, 1}[g.pick(4, "ttl")]
	}
	switch g.pick(12, "labelled") {
	case 0, 1, 2:
		c.Labels = []Label{{"team", []string{"a", "b"}[g.pick(2, "team")]}}
	case 3:
		c.Labels = g.labels()
	}
	switch g.pick(40, "odd token") {
	case 0:
		c.Hash = [32]byte{}
	case 1:
		c.Name = []string{"", strings.Repeat("n", 123), "\n"}[g.pick(3, "name")]
	case 2:
		c.TTL = []int64{-1, maxAccessTTL + 1}[g.pick(2, "ttl")]
	}
	return c
}

func (g *generator) changePolicies() Command {
	var c ChangePolicies
	for range g.pick(3, "put") {
		c.Put = append(c.Put, g.policy())
	}
	for range g.pick(2, "remove") {
		c.Remove = append(c.Remove, fmt.Sprint("p", g.pick(3, "name")))
	}
	switch g.pick(5, "if") {
	case 0:
		c.If = g.model.rightsIndex
	case 1:
		c.If = uint64(g.pick(4, "index"))
	}
	return c
}

func (g *generator) policy() Policy {
	p := Policy{Name: fmt.Sprint("p", g.pick(3, "name"))}
	for range g.pick(3, "callers") + 1 {
		p.For = append(p.For, []string{"*", "token:shop", "token:cafe", "cert:bill", "anonymous", "label:team=a", "label:team=b"}[g.pick(7, "caller")])
	}
	for range g.pick(3, "rules") {
		r := Rule{Deny: g.oneIn(3, "deny"), Rights: Right(g.pick(7, "rights") + 1), Name: g.lock(), Exact: g.oneIn(2, "exact")}
		if g.oneIn(4, "admin") {
			r = Rule{Rights: allRights}
		}
		p.Rules = append(p.Rules, r)
	}
	for _, v := range []*int{&p.Quota.Sessions, &p.Quota.Grants, &p.Quota.Waiters, &p.Quota.Streams} {
		if g.oneIn(3, "quota") {
			*v = g.pick(4, "quota")
		}
	}
	switch g.pick(60, "odd policy") {
	case 0:
		p.Name = []string{"", strings.Repeat("p", 129)}[g.pick(2, "name")]
	case 1:
		p.For = append(p.For, []string{"", "shop", "token:", "label:team", "cert:\n", "token:" + strings.Repeat("x", 123)}[g.pick(6, "caller")])
	case 2:
		p.For = nil
	case 3:
		p.Rules = append(p.Rules, []Rule{{}, {Rights: 16}, {Rights: 8, Name: "a"}, {Rights: 1, Exact: true}, {Rights: 1, Name: "\xff"}}[g.pick(5, "rule")])
	case 4:
		p.Quota.Sessions = -1
	case 5:
		p.Rules = make([]Rule, 257)
	}
	return p
}

// asSomebody sends most requests as a caller: mostly as the one whose it is.
func (g *generator) asSomebody(c Command) Command {
	if !c.kind().isRequest() || g.oneIn(6, "as nobody") {
		return c
	}
	caller := genCallers[g.pick(len(genCallers), "caller")]
	if owner := g.ownerOf(c); modelIdentity(owner) && !g.oneIn(4, "as another") {
		caller = owner
	}
	if g.oneIn(60, "odd caller") {
		caller = []string{"", strings.Repeat("c", 129), "node 1"}[g.pick(3, "caller")]
	}
	if modelIdentity(caller) && !g.oneIn(8, "for another owner") {
		switch x := c.(type) {
		case OpenSession:
			x.Owner, c = caller, x
		case Acquire:
			x.Owner, c = caller, x
		}
	}
	return As{Caller: caller, Force: g.oneIn(5, "force"), Command: c}
}

// ownerOf is whose the session or the grant is that a request is about.
func (g *generator) ownerOf(c Command) string {
	session := func(id SessionID) string {
		if s := g.model.session(id); s != nil {
			return s.owner
		}
		return ""
	}
	grant := func(id RequestID, token uint64) string {
		if r := g.model.byToken(token); r != nil && r.ask.Detached && g.oneIn(2, "the grant's owner") {
			return r.ask.Owner
		}
		return session(id.Session)
	}
	switch c := c.(type) {
	case OpenSession:
		return session(c.Session)
	case EndSession:
		return session(c.Session)
	case Acquire:
		return session(c.ID.Session)
	case Cancel:
		return session(c.Target.Session)
	case Release:
		return grant(c.ID, c.Token)
	case Renew:
		return grant(c.ID, c.Token)
	case SetValue:
		return grant(c.ID, c.Token)
	case ForceRelease:
		return session(c.ID.Session)
	case Resize:
		return session(c.ID.Session)
	}
	return ""
}

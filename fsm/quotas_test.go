package fsm

import (
	"strings"
	"testing"
)

// A quota bounds what an identity has, over all policies that are for it, and names itself,
// the policy and the value.
func TestQuotaBoundsItsCaller(t *testing.T) {
	shop := "token:shop"
	open := func(i int, owner string) As {
		return As{Caller: owner, Command: OpenSession{Session: genSession(i), TTL: 600 * second, Owner: owner}}
	}
	for what, c := range map[string]struct {
		quota Quota
		asks  func(n int) Command // the n-th, in session 0 of shop
		fits  int
		field string
	}{
		"sessions": {Quota{Sessions: 3}, func(n int) Command { return open(n, shop) }, 2, "quota.sessions"},
		"grants":   {Quota{Grants: 3}, func(n int) Command { return As{Caller: shop, Command: inSession(0, uint64(n), 0, text(n))} }, 3, "quota.grants"},
		"detached": {Quota{Grants: 3}, func(n int) Command {
			c := detached(byte(n), text(n), 600*second, 0)
			c.Owner = shop
			return As{Caller: shop, Command: c}
		}, 3, "quota.grants"},
		"waiters": {Quota{Waiters: 2}, func(n int) Command { return As{Caller: shop, Command: inSession(0, uint64(n), -1, "held")} }, 2, "quota.waiters"},
		"bytes":   {Quota{Bytes: 16_000}, func(n int) Command { return As{Caller: shop, Command: inSession(0, uint64(n), 0, text(n))} }, 9, "quota.bytes"},
	} {
		for by, subject := range map[string]string{"name": shop, "label": "label:team=x", "everybody": "*"} {
			b := newRightsBench(t)
			token := accessTokenFor("a1", "shop")
			token.Labels = []Label{{"team", "x"}}
			b.want(b.one(0, token), OK)
			b.want(b.one(0, b.grab("held", 3600*second)), OK)
			b.want(b.one(0, open(0, shop)), OK)
			wide := Policy{Name: "wide", For: []string{subject}, Quota: Quota{Sessions: 100, Grants: 100, Waiters: 100, Bytes: 1 << 30}}
			b.want(b.one(0, ChangePolicies{Put: []Policy{wide, {Name: "tight", For: []string{subject}, Quota: c.quota}, {Name: "of others", For: []string{"cert:x"}, Quota: Quota{Sessions: 1, Grants: 1, Waiters: 1, Bytes: 1}}}}), OK)
			b.reload()
			n := 1
			for ; n < 50; n++ {
				if r := b.one(0, c.asks(n)); r.Code != OK && r.Code != Queued {
					if r.Code != OverLimit || r.Field != c.field || !strings.Contains(r.Detail, `policy "tight"`) {
						t.Errorf("%s by %s: %+v", what, by, r)
					}
					break
				}
			}
			if n-1 != c.fits {
				t.Errorf("%s by %s: %d fit, want %d", what, by, n-1, c.fits)
			}
			b.want(b.one(0, ChangePolicies{Remove: []string{"tight"}}), OK)
			if r := b.one(0, c.asks(n+1)); r.Code != OK && r.Code != Queued {
				t.Errorf("%s by %s, without the policy: %+v", what, by, r)
			}
		}
	}
}

func text(n int) string { return strings.Repeat("x", n) }

// A copy of a request that a quota refused gets the same answer, also from a snapshot.
func TestRefusedQuotaIsRemembered(t *testing.T) {
	b := newRightsBench(t)
	b.want(b.one(0, ChangePolicies{Put: []Policy{{Name: "one", For: []string{"cert:x"}, Quota: Quota{Grants: 1}}}}), OK)
	as := func(c Command) As { return As{Caller: "cert:x", Command: c} }
	b.want(b.one(0, as(OpenSession{Session: genSession(0), TTL: 60 * second, Owner: "cert:x"})), OK)
	b.want(b.one(0, as(inSession(0, 1, 0, "a"))), OK)
	first := b.want(b.one(0, as(inSession(0, 2, 0, "b"))), OverLimit)
	b.want(b.one(0, ChangePolicies{Remove: []string{"one"}}), OK)
	b.reload()
	again := b.want(b.one(0, as(inSession(0, 2, 0, "b"))), OverLimit)
	if again.Field != first.Field || !strings.Contains(again.Detail, "the quota is 1") {
		t.Errorf("first %+v, then %+v", first, again)
	}
	b.want(b.one(0, as(inSession(0, 3, 0, "b"))), OK)
}

// Quotas are for requests that come as somebody, and for addresses that have no identity each
// for itself; what frees is never refused.
func TestQuotaOfAnonymousBoundsEachAddress(t *testing.T) {
	b := newRightsBench(t)
	b.want(b.one(0, ChangePolicies{Put: []Policy{{Name: "few", For: []string{"anonymous"}, Quota: Quota{Grants: 1, Sessions: 1}}}}), OK)
	ask := func(once byte, lock, owner string) Acquire {
		c := detached(once, lock, 60*second, 0)
		c.Owner = owner
		return c
	}
	from := func(address string, c Command) As { return As{Caller: address, Command: c} }
	as := func(c Command) As { return from("10.0.0.1", c) }
	g := b.want(b.one(0, as(ask(1, "a", "10.0.0.1"))), OK)
	b.want(b.one(0, as(ask(2, "b", "10.0.0.1"))), OverLimit)
	b.want(b.one(0, from("10.0.0.2", ask(3, "b", "10.0.0.2"))), OK)
	b.want(b.one(0, from("node 1", ask(5, "d", "node 1"))), OK)
	b.want(b.one(0, from("node 1", ask(6, "e", "node 1"))), OK) // a node is nobody whom a policy is for
	b.want(b.one(0, ask(4, "c", "10.0.0.1")), OK)               // as nobody: rights are not enforced
	b.want(b.one(0, as(SetValue{Token: g.Token, Value: make([]byte, 100)})), OK)
	b.want(b.one(0, as(Release{Token: g.Token})), OK)
}

// A value that grows is within the quota of bytes of its owner.
func TestValuesCountAgainstTheQuota(t *testing.T) {
	b := newRightsBench(t)
	as := func(c Command) As { return As{Caller: "cert:x", Command: c} }
	ask := detached(1, "a", 60*second, 0)
	ask.Owner = "cert:x"
	g := b.want(b.one(0, as(ask)), OK)
	b.want(b.one(0, ChangePolicies{Put: []Policy{{Name: "small", For: []string{"cert:x"}, Quota: Quota{Bytes: 4096}}}}), OK)
	if r := b.want(b.one(0, as(SetValue{Token: g.Token, Value: make([]byte, 4000)})), OverLimit); r.Field != "quota.bytes" {
		t.Errorf("a large value: %+v", r)
	}
	b.want(b.one(0, as(SetValue{Token: g.Token, Value: make([]byte, 400)})), OK)
	b.want(b.one(0, SetValue{Token: g.Token, Value: make([]byte, 4000)}), OK) // as nobody
	b.want(b.one(0, as(SetValue{Token: g.Token, Value: nil})), OK)
}

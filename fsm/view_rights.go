package fsm

import "slices"

// What can be seen of rights. As all views it shares nothing with the table.

// AccessTokenOf returns the access token with a hash; false if there is none, or no more.
func (t *Table) AccessTokenOf(hash [32]byte) (AccessToken, bool) {
	a, ok := t.hashes.get(hash)
	if !ok {
		return AccessToken{}, false
	}
	return a.view(), true
}

// AccessTokens returns, in the order of their accessors, at most limit access tokens whose
// accessor is greater than after.
func (t *Table) AccessTokens(after string, limit int) []AccessToken {
	var list []AccessToken
	for accessor, a := range t.accessTokens.from(after) {
		if len(list) >= limit {
			break
		}
		if accessor != after {
			list = append(list, a.view())
		}
	}
	return list
}

func (a *accessToken) view() AccessToken {
	c := a.AccessToken
	c.Labels = slices.Clone(a.Labels)
	return c
}

// Policies returns all policies in the order of their names.
func (t *Table) Policies() []Policy {
	list := make([]Policy, 0, t.policies.len)
	for _, p := range t.policies.all() {
		c := *p
		c.For, c.Rules = slices.Clone(p.For), slices.Clone(p.Rules)
		list = append(list, c)
	}
	return list
}

// RightsIndex returns the index of the log entry in which access tokens or policies changed
// last; 0 if none has.
func (t *Table) RightsIndex() uint64 { return t.rightsIndex }

// GrantOwner returns the owner of the grant with a token; false if there is none.
func (t *Table) GrantOwner(token uint64) (owner string, ok bool) {
	number, ok := t.tokens.get(token)
	if !ok {
		return "", false
	}
	r, _ := t.requests.get(number)
	return r.owner.name, true
}

// SessionOwner returns the owner of an open session; false if there is none with the ID.
func (t *Table) SessionOwner(id SessionID) (owner string, ok bool) {
	s, ok := t.sessions.get(id) // not t.session: views run beside each other
	if !ok {
		return "", false
	}
	return s.owner.name, true
}

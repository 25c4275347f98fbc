package fsm

import (
	"errors"
	"fmt"
)

// checkRights checks the access tokens, the policies and what follows from them.
//
//	below level 2 there are none
//	an access token stands under its accessor, its hash and its name, and nowhere else
//	a policy is as ChangePolicies would take it, but for limits that have changed since
//	the policies with a quota for the table stand under each caller whom they are for
//	they cost what was charged for them
func (t *Table) checkRights() error {
	if t.level < levelOfRights && (t.accessTokens.len+t.policies.len != 0 || t.rightsIndex != 0) {
		return fmt.Errorf("%d access tokens and %d policies at level %d", t.accessTokens.len, t.policies.len, t.level)
	}
	if t.rightsIndex > t.index || t.rightsIndex == 0 && t.accessTokens.len+t.policies.len != 0 {
		return fmt.Errorf("rights changed in entry %d, the last is %d", t.rightsIndex, t.index)
	}
	if t.as.set {
		return fmt.Errorf("a command runs as %q", t.as.caller)
	}
	cost := int64(0)
	for accessor, a := range t.accessTokens.all() {
		if err := t.checkTokenRecord(a); err != nil || a.Accessor != accessor {
			return fmt.Errorf("access token %q, %+v: %w", accessor, a.AccessToken, err)
		}
		cost += a.costOf()
	}
	if n := t.accessTokens.len; t.hashes.len != n || t.named.len != n {
		return fmt.Errorf("%d access tokens, %d hashes, %d names", n, t.hashes.len, t.named.len)
	}
	places := 0
	for name, p := range t.policies.all() {
		n, err := t.checkPolicyRecord(p)
		if err != nil || p.Name != name {
			return fmt.Errorf("policy %q, %+v: %w", name, *p, err)
		}
		places += n
		cost += p.costOf()
	}
	if places != t.quotas.len {
		return fmt.Errorf("quotas stand at %d places, have %d", places, t.quotas.len)
	}
	if cost != t.rightsBytes {
		return fmt.Errorf("access tokens and policies cost %d bytes, have %d", cost, t.rightsBytes)
	}
	return nil
}

func (t *Table) checkTokenRecord(a *accessToken) error {
	switch {
	case a.Accessor == "" || !fits(a.Accessor, maxAccessor) || a.Name == "" || !fits(a.Name, maxIdentityName) || !fits(a.MadeBy, maxOwnerBytes),
		a.Hash == [32]byte{} || a.Deadline < 0:
		return errors.New("is not as one that is put in")
	}
	if same, ok := t.hashes.get(a.Hash); !ok || same != a {
		return errors.New("does not stand under its hash")
	}
	if same, ok := t.named.get(nameKey{a.Name, a.Accessor}); !ok || same != a {
		return errors.New("does not stand under its name")
	}
	return nil
}

// checkPolicyRecord also returns at how many places its quota stands.
func (t *Table) checkPolicyRecord(p *Policy) (places int, err error) {
	loose := Table{state: state{limits: t.limits}} // what was allowed when it came
	loose.limits.PolicyBytes, loose.limits.NameBytes = maxBlock, maxBlock
	if why, arg := loose.checkPolicy(p); why != noReason {
		return 0, fmt.Errorf("is not as one that is put in: reason %d, %d", why, arg)
	}
	if !p.Quota.inTable() {
		return 0, nil
	}
	seen := map[string]bool{}
	for _, subject := range p.For {
		if same, ok := t.quotas.get(subjectKey{subject, p.Name}); !ok || same != p {
			return 0, fmt.Errorf("its quota does not stand under %q", subject)
		}
		seen[subject] = true
	}
	return len(seen), nil
}

package fsm

import (
	"slices"
	"strings"
)

// The policies in the table. They are changed together or not at all, so that nobody is
// without a right, or has one too many, while the half of a change is in force.

const (
	maxPolicyName = 128
	maxSubjects   = 64  // for which one policy is
	maxSubject    = 512 // bytes of one; a label may be longer than a name
	maxRules      = 256 // of one policy
)

// The subjects that a policy can be for, besides those that begin with a prefix.
const (
	tokenPrefix = "token:"
	certPrefix  = "cert:"
	labelPrefix = "label:"
	anonymous   = "anonymous"
	everybody   = "*"
)

// nodePrefix is what a caller begins with who is a node, for a request of its own.
const nodePrefix = "node "

func (t *Table) changePolicies(c *ChangePolicies) Result {
	if c.If != 0 && c.If != t.rightsIndex {
		return t.refuse(Invalid, otherRights, int64(min(t.rightsIndex, maxToken)))
	}
	if res, bad := t.checkChange(c); bad {
		return res
	}
	cost, count := int64(0), t.policies.len-len(c.Remove)
	for i := range c.Put {
		cost += c.Put[i].costOf()
		if old, ok := t.policies.get(c.Put[i].Name); ok {
			cost -= old.costOf()
		} else {
			count++
		}
	}
	if len(c.Put) > 0 && count > t.limits.Policies {
		return t.refuse(OverLimit, fullPolicies, int64(t.limits.Policies))
	}
	if cost > 0 {
		if res, ok := t.roomForRights(cost); !ok {
			return res
		}
	}
	for _, name := range c.Remove {
		t.removePolicy(name)
	}
	for i := range c.Put {
		t.removePolicy(c.Put[i].Name)
		p := c.Put[i] // not to keep all of them for one
		t.enterPolicy(&p)
	}
	if len(c.Put)+len(c.Remove) > 0 {
		t.rightsChanged()
	}
	return Result{}
}

// checkChange refuses a change of which any part cannot be made.
func (t *Table) checkChange(c *ChangePolicies) (Result, bool) {
	names := make([]string, 0, len(c.Put)+len(c.Remove))
	for i := range c.Put {
		if why, arg := t.checkPolicy(&c.Put[i]); why != noReason {
			return t.refusePolicy(Invalid, why, arg, c.Put[i].Name), true
		}
		names = append(names, c.Put[i].Name)
	}
	for _, name := range c.Remove {
		if _, ok := t.policies.get(name); !ok {
			return t.refusePolicy(NotHeld, noPolicy, 0, name), true
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return t.refusePolicy(Invalid, policyTwice, 0, names[i]), true
		}
	}
	return Result{}, false
}

// refusePolicy is refuse, and names the policy where its name can be told.
func (t *Table) refusePolicy(code Code, why reason, arg int64, name string) Result {
	if fits(name, maxPolicyName) {
		t.refused = refusal{why: why, arg: arg, policy: name}
	} else {
		t.refused = refusal{why: why, arg: arg}
	}
	r := Result{Code: code}
	t.refused.explain(&r)
	return r
}

func (t *Table) checkPolicy(p *Policy) (reason, int64) {
	switch {
	case p.Name == "" || !fits(p.Name, maxPolicyName):
		return badPolicyName, maxPolicyName
	case len(p.For) == 0 || len(p.For) > maxSubjects:
		return subjectCount, maxSubjects
	case len(p.Rules) > maxRules:
		return ruleCount, maxRules
	case !p.Quota.inRange():
		return badQuota, 0
	case p.size() > t.limits.PolicyBytes:
		return policySize, int64(t.limits.PolicyBytes)
	}
	for i, subject := range p.For {
		if !isSubject(subject) {
			return badSubject, int64(i + 1)
		}
	}
	for i := range p.Rules {
		if why := p.Rules[i].check(t.limits.NameBytes); why != noReason {
			return why, int64(i + 1)
		}
	}
	return noReason, 0
}

// size is how many bytes the policy has in the log.
func (p *Policy) size() int {
	var e encoder
	e.policy(p)
	return len(e.buf)
}

// isSubject says that there can be callers for whom a policy for this is.
func isSubject(s string) bool {
	if !fits(s, maxSubject) {
		return false
	}
	if key, ok := strings.CutPrefix(s, labelPrefix); ok {
		return strings.Contains(key, "=")
	}
	return isIdentity(s) && len(s) <= maxOwnerBytes || s == anonymous || s == everybody
}

// isIdentity says that an owner or caller is somebody whom a node knows, and not a name for
// where a request came from.
func isIdentity(s string) bool {
	return len(s) > len(tokenPrefix) && strings.HasPrefix(s, tokenPrefix) || len(s) > len(certPrefix) && strings.HasPrefix(s, certPrefix)
}

func (r *Rule) check(nameBytes int) reason {
	switch {
	case r.Rights == 0 || r.Rights&^allRights != 0:
		return badRights
	case !fits(r.Name, nameBytes) || r.Exact && r.Name == "":
		return badRuleName
	case r.Rights&RightAdmin != 0 && r.Name != "":
		return adminName
	}
	return noReason
}

// inRange says that no field is negative, or no number on some architectures.
func (q *Quota) inRange() bool {
	for _, v := range q.fields() {
		if v < 0 {
			return false
		}
	}
	return quotaOf(q.fields()) == *q
}

// enterPolicy puts a policy into the table and into what follows from it.
func (t *Table) enterPolicy(p *Policy) {
	t.policies.put(p.Name, p)
	t.indexQuota(p)
	t.chargeRights(p.costOf())
}

func (t *Table) removePolicy(name string) {
	p, ok := t.policies.get(name)
	if !ok {
		return
	}
	t.policies.delete(name)
	t.unindexQuota(p)
	t.chargeRights(-p.costOf())
}

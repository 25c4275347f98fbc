package fsm

import (
	"slices"
	"strings"
)

// Quotas: what a caller may have in the table, whatever there is room for.
//
// They are asked in requests that come as somebody ([As]), beside the shares that all owners
// have (owners.go). For a caller the smallest of each field counts, over all policies that
// are for him. What he has already is not taken away when a quota becomes smaller.

// bound is a field of a quota with the policy that it stands in; the zero value bounds nothing.
type bound struct {
	value  int64
	policy string
}

// bounds are the fields of quotas that the table enforces.
type bounds struct{ sessions, grants, waiters, bytes bound }

func (b *bound) lower(value int64, policy string) {
	if value != 0 && (b.value == 0 || value < b.value) {
		*b = bound{value, policy}
	}
}

func (b *bounds) lower(p *Policy) {
	b.sessions.lower(int64(p.Quota.Sessions), p.Name)
	b.grants.lower(int64(p.Quota.Grants), p.Name)
	b.waiters.lower(int64(p.Quota.Waiters), p.Name)
	b.bytes.lower(p.Quota.Bytes, p.Name)
}

// inTable says that the table has something to enforce.
func (q *Quota) inTable() bool {
	return q.Sessions != 0 || q.Grants != 0 || q.Waiters != 0 || q.Bytes != 0
}

// subjectKey orders, by whom they are for, the policies with a quota that the table enforces.
type subjectKey struct{ subject, policy string }

func compareSubjects(a, b subjectKey) int {
	return compareNames(nameKey{a.subject, a.policy}, nameKey{b.subject, b.policy})
}

func (t *Table) indexQuota(p *Policy) {
	if !p.Quota.inTable() {
		return
	}
	for _, subject := range p.For {
		t.quotas.put(subjectKey{subject, p.Name}, p)
	}
}

func (t *Table) unindexQuota(p *Policy) {
	for _, subject := range p.For {
		t.quotas.delete(subjectKey{subject, p.Name})
	}
}

// quotaFor is what bounds a caller. Mostly no policy has a quota, and it costs nothing.
func (t *Table) quotaFor(caller string) (b bounds) {
	if t.quotas.len == 0 {
		return b
	}
	subject := caller
	switch {
	case isIdentity(caller):
	case strings.HasPrefix(caller, nodePrefix):
		return b
	default:
		subject = anonymous // an address
	}
	t.lowerFor(&b, everybody)
	t.lowerFor(&b, subject)
	name, ok := tokenName(caller)
	if !ok || !t.hasLabelQuotas() {
		return b
	}
	var last []Label // tokens of one name mostly have the same labels
	for a := range t.namedTokens(name) {
		if slices.Equal(a.Labels, last) {
			continue
		}
		last = a.Labels
		for _, l := range a.Labels {
			t.lowerFor(&b, labelPrefix+l.Key+"="+l.Value)
		}
	}
	return b
}

func (t *Table) lowerFor(b *bounds, subject string) {
	for key, p := range t.quotas.from(subjectKey{subject: subject}) {
		if key.subject != subject {
			return
		}
		b.lower(p)
	}
}

func (t *Table) hasLabelQuotas() bool {
	next, ok := t.quotas.after(subjectKey{subject: labelPrefix})
	return ok && len(next.subject) >= len(labelPrefix) && next.subject[:len(labelPrefix)] == labelPrefix
}

// within refuses what would bring a caller over a bound: he has own of it, and wants more.
func (t *Table) within(b *bound, why reason, own, more int64) (Result, bool) {
	if b.value == 0 || own+more <= b.value {
		return Result{}, true
	}
	t.refused = refusal{why: why, arg: b.value, own: own, policy: b.policy}
	r := Result{Code: OverLimit}
	t.refused.explain(&r)
	return r, false
}

// quotaForSession keeps a new session within the quota of who opens it.
func (t *Table) quotaForSession(c *OpenSession) (Result, bool) {
	if !t.as.set {
		return Result{}, true
	}
	b := t.quotaFor(t.as.caller)
	o, _ := t.owners.get(c.Owner)
	if res, ok := t.within(&b.sessions, quotaSessions, int64(o.usage().Sessions), 1); !ok {
		return res, false
	}
	return t.within(&b.bytes, quotaBytes, o.costs(), c.costOf()+o.costIfNew(c.Owner))
}

// quotaForRequest keeps a new request within the quota of its caller.
func (t *Table) quotaForRequest(free bool, c *Acquire) (Result, bool) {
	if !t.as.set {
		return Result{}, true
	}
	b := t.quotaFor(t.as.caller)
	name := t.ownerOf(c)
	o, _ := t.owners.get(name)
	use := o.usage()
	if res, ok := t.within(&b.grants, quotaGrants, int64(use.Grants+use.Waiters), 1); !ok {
		return res, false
	}
	if !free {
		if res, ok := t.within(&b.waiters, quotaWaiters, int64(use.Waiters), 1); !ok {
			return res, false
		}
	}
	return t.within(&b.bytes, quotaBytes, o.costs(), c.costOf()+o.costIfNew(name))
}

// quotaForBytes keeps what becomes larger within the quota of the caller, if it is his.
func (t *Table) quotaForBytes(o *owner, more int64) (Result, bool) {
	if !t.as.set || o.name != t.as.caller {
		return Result{}, true
	}
	b := t.quotaFor(t.as.caller)
	return t.within(&b.bytes, quotaBytes, o.bytes, more)
}

// usage is what an owner has; nil has nothing.
func (o *owner) usage() Use {
	if o == nil {
		return Use{}
	}
	return o.use
}

func (o *owner) costs() int64 {
	if o == nil {
		return 0
	}
	return o.bytes
}

func (o *owner) costIfNew(name string) int64 {
	if o == nil {
		return costOfOwner(name)
	}
	return 0
}

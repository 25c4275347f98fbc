package fsm

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func policyFor(name string, subjects ...string) Policy {
	return Policy{Name: name, For: subjects, Rules: []Rule{{Rights: RightRead | RightLock, Name: "orders/"}, {Deny: true, Rights: RightLock, Name: "orders/frozen", Exact: true}}}
}

// A change of policies of which one part cannot be made changes nothing.
func TestPoliciesChangeTogetherOrNotAtAll(t *testing.T) {
	good := policyFor("good", "token:shop")
	with := func(change func(*Policy)) Policy {
		p := policyFor("bad", "*")
		change(&p)
		return p
	}
	many := make([]Rule, maxRules+1)
	for i := range many {
		many[i].Rights = RightRead
	}
	subjects := make([]string, maxSubjects+1)
	for i := range subjects {
		subjects[i] = fmt.Sprint("cert:", i)
	}
	for what, c := range map[string]struct {
		change ChangePolicies
		code   Code
		field  string
	}{
		"a name that is none":      {ChangePolicies{Put: []Policy{good, {For: []string{"*"}}}}, Invalid, "name"},
		"nobody":                   {ChangePolicies{Put: []Policy{good, {Name: "bad"}}}, Invalid, "for"},
		"too many callers":         {ChangePolicies{Put: []Policy{good, {Name: "bad", For: subjects}}}, Invalid, "for"},
		"a caller that is none":    {ChangePolicies{Put: []Policy{good, policyFor("bad", "shop")}}, Invalid, "for"},
		"a caller without a name":  {ChangePolicies{Put: []Policy{good, policyFor("bad", "cert:")}}, Invalid, "for"},
		"a label without a value":  {ChangePolicies{Put: []Policy{good, policyFor("bad", "label:team")}}, Invalid, "for"},
		"too many rules":           {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules = many })}}, Invalid, "rules"},
		"a rule of no right":       {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules[1].Rights = 0 })}}, Invalid, "rules"},
		"a right that is none":     {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules[1].Rights = 16 })}}, Invalid, "rules"},
		"a long name of a rule":    {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules[1].Name = strings.Repeat("n", 513) })}}, Invalid, "rules"},
		"exactly nothing":          {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules[1].Name = "" })}}, Invalid, "rules"},
		"admin of some names":      {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules[0].Rights |= RightAdmin })}}, Invalid, "rules"},
		"a quota below 0":          {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Quota.Bytes = -1 })}}, Invalid, "quota"},
		"too many bytes":           {ChangePolicies{Put: []Policy{good, with(func(p *Policy) { p.Rules = longRules(40) })}}, Invalid, "policy_bytes"},
		"the same twice":           {ChangePolicies{Put: []Policy{good, good}}, Invalid, "policy"},
		"put and removed":          {ChangePolicies{Put: []Policy{good, policyFor("old", "*")}, Remove: []string{"old"}}, Invalid, "policy"},
		"one that is not there":    {ChangePolicies{Put: []Policy{good}, Remove: []string{"old", "gone"}}, NotHeld, "policy"},
		"one more than the limit":  {ChangePolicies{Put: []Policy{good, policyFor("p1", "*"), policyFor("p2", "*")}}, OverLimit, "policies"},
		"from what they were once": {ChangePolicies{Put: []Policy{good}, Remove: []string{"old"}, If: 1}, Invalid, "if"},
	} {
		b := newRightsBench(t)
		b.want(b.one(0, Configure{Limits: Limits{Policies: 3}}), OK)
		old := []Policy{policyFor("old", "cert:old"), policyFor("other", "*")}
		b.want(b.one(0, ChangePolicies{Put: old}), OK)
		before := b.table.RightsIndex()
		if r := b.want(b.one(0, c.change), c.code); r.Field != c.field || r.Detail == "" {
			t.Errorf("%s: %+v, want a refusal of %q", what, r, c.field)
		}
		if got := b.table.Policies(); !reflect.DeepEqual(got, old) || b.table.RightsIndex() != before {
			t.Errorf("%s: it changed to %+v in entry %d", what, got, b.table.RightsIndex())
		}
	}
}

func longRules(n int) (rules []Rule) {
	for i := range n {
		rules = append(rules, Rule{Rights: RightRead, Name: strings.Repeat(string(rune('a'+i%26)), 500)})
	}
	return rules
}

func TestPoliciesArePutReplacedAndRemoved(t *testing.T) {
	b := newRightsBench(t)
	b.want(b.one(0, ChangePolicies{Put: []Policy{policyFor("b", "*"), policyFor("a", "token:shop", "label:team=x")}}), OK)
	index := b.table.RightsIndex()
	other := policyFor("a", "anonymous")
	other.Quota = Quota{Sessions: 1, Grants: 2, Waiters: 3, Bytes: 1 << 40, OpsPerSecond: 5, Connections: 6, Streams: 7, UnsentBytes: 1 << 41}
	b.want(b.one(0, ChangePolicies{Put: []Policy{other}, Remove: []string{"b"}, If: index}), OK)
	b.reload()
	got := b.table.Policies()
	if !reflect.DeepEqual(got, []Policy{other}) || b.table.RightsIndex() != b.index {
		t.Errorf("policies are %+v since entry %d", got, b.table.RightsIndex())
	}
	got[0].Rules[0].Name, got[0].For[0] = "changed", "changed"
	if again := b.table.Policies(); !reflect.DeepEqual(again, []Policy{other}) {
		t.Errorf("a view has changed them to %+v", again)
	}
	before := b.table.RightsIndex()
	b.want(b.one(0, ChangePolicies{}), OK)
	if b.table.RightsIndex() != before {
		t.Error("no change is a change of rights")
	}
}

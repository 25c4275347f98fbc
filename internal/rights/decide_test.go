package rights

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/locknode/locknode/fsm"
)

// slowly is Decide as its comment has it: it looks at every rule.
func slowly(policies []fsm.Policy, id Identity, labels []string, right fsm.Right, name string) (policy string, number int) {
	type candidate struct {
		rule   fsm.Rule
		policy string
		number int
	}
	var winner *candidate
	self, named := id.Name()
	for _, p := range policies {
		if !isFor(p, id, labels) {
			continue
		}
		for i, r := range p.Rules {
			if strings.Contains(r.Name, "${identity}") && !named {
				continue
			}
			r.Name = strings.ReplaceAll(r.Name, "${identity}", self)
			if r.Rights&right == 0 || r.Exact && r.Name != name || !strings.HasPrefix(name, r.Name) {
				continue
			}
			c := &candidate{r, p.Name, i + 1}
			switch w := winner; {
			case w == nil, r.Exact && !w.rule.Exact:
				winner = c
			case !r.Exact && w.rule.Exact:
			case len(r.Name) > len(w.rule.Name), len(r.Name) == len(w.rule.Name) && r.Deny && !w.rule.Deny:
				winner = c
			}
		}
	}
	if winner == nil {
		return "", 0
	}
	return winner.policy, winner.number
}

func isFor(p fsm.Policy, id Identity, labels []string) bool {
	for _, who := range p.For {
		if who == "*" || who == string(id) {
			return true
		}
		for _, l := range labels {
			if who == "label:"+l {
				return true
			}
		}
	}
	return false
}

// alphabet has what is next to each other in the order of names, so that regions touch.
var alphabet = []string{"", "a", "b", "a/", "a0", "/", "\x00", "\xff", "\xff\xff", "z", "ä", "${identity}", "shop"}

func somePolicies(r *rand.Rand) []fsm.Policy {
	var all []fsm.Policy
	for i := range 1 + r.IntN(4) {
		p := fsm.Policy{Name: fmt.Sprint("p", i)}
		for range 1 + r.IntN(2) {
			p.For = append(p.For, []string{"*", "token:shop", "cert:a", "anonymous", "label:team=x"}[r.IntN(5)])
		}
		for range r.IntN(6) {
			rule := fsm.Rule{Deny: r.IntN(3) == 0, Rights: fsm.Right(1 + r.IntN(15)), Exact: r.IntN(3) == 0}
			for range r.IntN(3) {
				rule.Name += alphabet[r.IntN(len(alphabet))]
			}
			p.Rules = append(p.Rules, rule)
		}
		all = append(all, p)
	}
	return all
}

func someName(r *rand.Rand) (name string) {
	for range r.IntN(4) {
		name += alphabet[r.IntN(len(alphabet))]
	}
	return name
}

func TestDecideIsWhatTheMostSpecificRuleSays(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 0))
		policies := somePolicies(r)
		tokens := []fsm.AccessToken{{Accessor: "a", Name: "shop", Labels: []fsm.Label{{Key: "team", Value: "x"}}}}
		b := NewBook(1, tokens, policies)
		for _, id := range []Identity{Token("shop"), Cert("a"), Anonymous, Node("n1")} {
			var labels []string
			if id == Token("shop") {
				labels = []string{"team=x"}
			}
			s := b.Subject(id)
			for range 30 {
				name := someName(r)
				for _, right := range []fsm.Right{fsm.RightRead, fsm.RightLock, fsm.RightForce, fsm.RightAdmin} {
					policy, number := slowly(policies, id, labels, right, name)
					got := s.Decide(right, name)
					want := number > 0 && !find(policies, policy).Rules[number-1].Deny
					if got.Allowed != want {
						t.Fatalf("seed %d: %s has %s on %q: %v, by rule %d of %q; want %v, by rule %d of %q; policies %+v",
							seed, id, RightName(right), name, got.Allowed, got.Rule, got.Policy, want, number, policy, policies)
					}
					if s.Everywhere(right) && !got.Allowed {
						t.Fatalf("seed %d: %s has %s everywhere, but not on %q", seed, id, RightName(right), name)
					}
					if right == fsm.RightRead && within(s.Readable(), name) != got.Allowed {
						t.Fatalf("seed %d: %s may read %q: %v, which the spans %q do not say", seed, id, name, got.Allowed, s.Readable())
					}
				}
			}
		}
	}
}

func find(policies []fsm.Policy, name string) fsm.Policy {
	for _, p := range policies {
		if p.Name == name {
			return p
		}
	}
	return fsm.Policy{}
}

func within(spans []Span, name string) bool {
	for _, s := range spans {
		if name >= s.From && (s.To == "" || name < s.To) {
			return true
		}
	}
	return false
}

func TestDecisionNamesTheRule(t *testing.T) {
	b := NewBook(7, nil, []fsm.Policy{
		{Name: "shops", For: []string{"token:shop"}, Rules: []fsm.Rule{{Rights: fsm.RightRead | fsm.RightLock, Name: "orders/"}, {Deny: true, Rights: fsm.RightLock, Name: "orders/frozen", Exact: true}}},
		{Name: "all", For: []string{"*"}, Rules: []fsm.Rule{{Rights: fsm.RightRead}}},
	})
	for _, c := range []struct {
		right fsm.Right
		name  string
		want  string
	}{
		{fsm.RightLock, "orders/42", `allowed: lock for token:shop on "orders/42" is decided by rule 1 of policy "shops", for prefix "orders/"`},
		{fsm.RightLock, "orders/frozen", `denied: lock for token:shop on "orders/frozen" is decided by rule 2 of policy "shops", for name "orders/frozen"`},
		{fsm.RightRead, "billing/1", `allowed: read for token:shop on "billing/1" is decided by rule 1 of policy "all", for prefix ""`},
		{fsm.RightLock, "billing/1", `denied: no rule of a policy for token:shop is about lock on "billing/1"`},
		{fsm.RightAdmin, "", `denied: no rule of a policy for token:shop is about admin`},
	} {
		if got := b.Subject(Token("shop")).Decide(c.right, c.name).Why(Token("shop"), c.right, c.name); got != c.want {
			t.Errorf("%s on %q: %s, want %s", RightName(c.right), c.name, got, c.want)
		}
	}
	both := fsm.RightRead | fsm.RightLock
	if d := b.Subject(Token("shop")).Decide(both, "billing/1"); d.Allowed {
		t.Error("of two rights one is missing, and both are allowed")
	}
	if d := b.Subject(Token("shop")).Decide(both, "orders/1"); !d.Allowed {
		t.Error("two rights that are both there are denied")
	}
}

func TestRightsHaveTheirNames(t *testing.T) {
	for i := range rightCount {
		right := fsm.Right(1 << i)
		if got, ok := RightOf(RightName(right)); !ok || got != right {
			t.Errorf("right %d is called %q, which is right %d", right, RightName(right), got)
		}
	}
	if _, ok := RightOf("write"); ok || RightName(3) != "right_3" || bits.OnesCount8(15) != rightCount {
		t.Error("a right that does not exist has a name")
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	b, hash := large()
	n := testing.AllocsPerRun(100, func() {
		if h := b.Holder(hash); h == nil || !h.Subject.Decide(fsm.RightLock, "team500/orders/42").Allowed {
			t.Error("denied")
		}
	})
	if n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

// large is a book of 10,000 access tokens and 1,000 policies, and the hash of a secret in it.
func large() (*Book, [32]byte) {
	var tokens []fsm.AccessToken
	var policies []fsm.Policy
	secret, hash := NewSecret()
	_ = secret
	for i := range 10_000 {
		token := fsm.AccessToken{Accessor: fmt.Sprintf("a%d", i), Name: fmt.Sprintf("t%d", i%1000)}
		token.Hash[0], token.Hash[1], token.Hash[2] = byte(i), byte(i>>8), 1
		if i == 5500 {
			token.Hash = hash
		}
		tokens = append(tokens, token)
	}
	for i := range 1000 {
		policies = append(policies, fsm.Policy{Name: fmt.Sprintf("p%d", i), For: []string{fmt.Sprintf("token:t%d", i)}, Rules: []fsm.Rule{
			{Rights: fsm.RightRead | fsm.RightLock, Name: fmt.Sprintf("team%d/", i)}, {Deny: true, Rights: fsm.RightLock, Name: fmt.Sprintf("team%d/frozen/", i)},
		}})
	}
	return NewBook(1, tokens, policies), hash
}

// BenchmarkDecide is what one operation costs: the access token of its secret is known by
// pointer, and the rule that decides has to be found.
func BenchmarkDecide(b *testing.B) {
	book, hash := large()
	subject := book.Holder(hash).Subject
	b.ReportAllocs()
	for b.Loop() {
		if !subject.Decide(fsm.RightLock, "team500/orders/42").Allowed {
			b.Fatal("denied")
		}
	}
}

// BenchmarkAuthenticate is what one HTTP request or unary call costs in addition.
func BenchmarkAuthenticate(b *testing.B) {
	secret, hash := NewSecret()
	book := NewBook(1, []fsm.AccessToken{{Accessor: "a", Name: "shop", Hash: hash}}, nil)
	b.ReportAllocs()
	for b.Loop() {
		hash, err := HashOf(secret)
		if err != nil || book.Holder(hash) == nil {
			b.Fatal("not known")
		}
	}
}

// BenchmarkBook is what a change of a policy costs each node.
func BenchmarkBook(b *testing.B) {
	book, _ := large()
	var tokens []fsm.AccessToken
	for _, h := range book.holders {
		tokens = append(tokens, h.Token)
	}
	for b.Loop() {
		NewBook(1, tokens, nil)
	}
}

// FuzzRules compiles any rules and compares what they say with the reference.
func FuzzRules(f *testing.F) {
	f.Add("orders/", "orders/frozen", "orders/${identity}", "shop", "orders/shop", uint16(0x1234))
	f.Add("", "\xff\xff", "\xff", "", "\xff\xff\x00", uint16(0xffff))
	f.Fuzz(func(t *testing.T, one, two, three, self, name string, how uint16) {
		p := fsm.Policy{Name: "p", For: []string{"*"}}
		for i, n := range []string{one, two, three} {
			bits := how >> (5 * i)
			p.Rules = append(p.Rules, fsm.Rule{Deny: bits&1 != 0, Exact: bits&2 != 0, Rights: fsm.Right(bits>>2&3 | 1), Name: n})
		}
		id := Token(self)
		s := NewBook(1, nil, []fsm.Policy{p}).Subject(id)
		for _, n := range []string{name, one, two, three, one + "\x00", two + name} {
			policy, number := slowly([]fsm.Policy{p}, id, nil, fsm.RightRead, n)
			want := policy != "" && !p.Rules[number-1].Deny
			if got := s.Decide(fsm.RightRead, n).Allowed; got != want {
				t.Fatalf("read on %q: %v, want %v; rules %+v for %s", n, got, want, p.Rules, id)
			}
			if within(s.Readable(), n) != want {
				t.Fatalf("%q is readable: %v, want %v; spans %q", n, !want, want, s.Readable())
			}
		}
	})
}

package rights

import (
	"slices"
	"testing"

	"github.com/locknode/locknode/fsm"
)

func TestLabelsOfAllAccessTokensOfANameCount(t *testing.T) {
	tokens := []fsm.AccessToken{
		{Accessor: "a", Hash: [32]byte{1}, Name: "shop", Labels: []fsm.Label{{Key: "team", Value: "x"}}},
		{Accessor: "b", Hash: [32]byte{2}, Name: "shop"},
		{Accessor: "c", Hash: [32]byte{3}, Name: "other"},
	}
	policies := []fsm.Policy{
		{Name: "z", For: []string{"*"}}, {Name: "x", For: []string{"label:team=x", "token:shop"}}, {Name: "y", For: []string{"cert:shop"}},
	}
	b := NewBook(3, tokens, policies)
	for id, want := range map[Identity][]string{
		Token("shop"): {"x", "z"}, Token("other"): {"z"}, Cert("shop"): {"y", "z"}, Anonymous: {"z"}, Node("shop"): {"z"},
	} {
		if got := b.Subject(id).Policies(); !slices.Equal(got, want) {
			t.Errorf("policies for %s are %v, want %v", id, got, want)
		}
	}
	if h := b.Holder([32]byte{2}); h == nil || h.Token.Accessor != "b" || h.Subject != b.Subject(Token("shop")) {
		t.Errorf("Holder returns %+v", h)
	}
	if b.Holder([32]byte{}) != nil {
		t.Error("a hash of no access token is one's")
	}
}

func TestQuotaIsTheSmallestOfAllPolicies(t *testing.T) {
	b := NewBook(1, nil, []fsm.Policy{
		{Name: "a", For: []string{"*"}, Quota: fsm.Quota{Sessions: 10, OpsPerSecond: 100, UnsentBytes: 5}},
		{Name: "b", For: []string{"cert:x"}, Quota: fsm.Quota{Sessions: 20, OpsPerSecond: 50, Streams: 3}},
	})
	if got, want := b.Subject(Cert("x")).Quota(), (fsm.Quota{Sessions: 10, OpsPerSecond: 50, Streams: 3, UnsentBytes: 5}); got != want {
		t.Errorf("quota is %+v, want %+v", got, want)
	}
}

func TestManyIdentitiesTakeNoMoreMemory(t *testing.T) {
	b := NewBook(1, nil, []fsm.Policy{{Name: "a", For: []string{"*"}, Rules: []fsm.Rule{{Rights: fsm.RightLock, Name: "home/${identity}/"}}}})
	for i := range 2 * maxOthers {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		s := b.Subject(Cert(name))
		if !s.Decide(fsm.RightLock, "home/"+name+"/x").Allowed || s.Decide(fsm.RightLock, "home/"+name).Allowed {
			t.Fatalf("%s: its own names are not allowed, or others are", name)
		}
	}
	if n := b.kept.Load(); n > maxOthers {
		t.Errorf("%d subjects are kept, must be at most %d", n, maxOthers)
	}
}

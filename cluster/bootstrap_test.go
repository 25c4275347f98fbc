package cluster

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// fresh returns the meta of a voter without state that expects n voters.
func fresh(id string, n int) Meta {
	return Meta{NodeID: id, API: id + ":1", Raft: id + ":3", Expect: n}
}

func alive(m Meta) Peer  { return Peer{Meta: m, State: Alive} }
func failed(m Meta) Peer { return Peer{Meta: m, State: Failed} }

func with(m Meta, change func(*Meta)) Meta {
	change(&m)
	return m
}

func list(ids ...string) Founders {
	l := make(Founders)
	for _, id := range ids {
		l[id] = id + ":3"
	}
	return l
}

func intends(m Meta, ids ...string) Meta {
	return with(m, func(m *Meta) { m.Intent = list(ids...).Hash() })
}

func promised(m Meta, ids ...string) Meta {
	return with(m, func(m *Meta) { m.Promise = list(ids...).Hash() })
}

func formed(m Meta, cluster string) Meta {
	return with(m, func(m *Meta) { m.Formed, m.ClusterID = true, cluster })
}

func TestAgree(t *testing.T) {
	abc := list("a", "b", "c").Hash()
	a3 := Candidate{Meta: fresh("a", 3), Settled: true}
	bound := Candidate{Meta: fresh("a", 3), Settled: true, Promised: list("a", "b", "c")}
	b, c, d := fresh("b", 3), fresh("c", 3), fresh("d", 3)

	tests := map[string]struct {
		self   Candidate
		peers  []Peer
		want   Action
		intent string
		reason string // part of it
	}{
		"alone":                       {a3, nil, Wait, "", "1 of 3"},
		"a half":                      {a3, []Peer{alive(b)}, Wait, "", "2 of 3"},
		"all, nobody has said so":     {a3, []Peer{alive(b), alive(c)}, Wait, abc, "b, c must see the same 3"},
		"one of two has said so":      {a3, []Peer{alive(intends(b, "a", "b", "c")), alive(c)}, Wait, abc, "c must see"},
		"all see the same":            {a3, []Peer{alive(intends(b, "a", "b", "c")), alive(intends(c, "a", "b", "c"))}, Promise, abc, "see one another"},
		"others have promised":        {a3, []Peer{alive(promised(b, "a", "b", "c")), alive(intends(c, "a", "b", "c"))}, Promise, abc, ""},
		"another sees someone else":   {a3, []Peer{alive(intends(b, "a", "b", "d")), alive(intends(c, "a", "b", "c"))}, Wait, abc, "b must see"},
		"another promised elsewhere":  {a3, []Peer{alive(promised(b, "b", "d", "e")), alive(intends(c, "a", "b", "c"))}, Wait, "", "delete their data directories"},
		"too many":                    {a3, []Peer{alive(b), alive(c), alive(d)}, Wait, "", "4 fresh voters are seen but only 3"},
		"too many, one failed":        {a3, []Peer{alive(intends(b, "a", "b", "c")), alive(intends(c, "a", "b", "c")), failed(d)}, Promise, abc, ""},
		"a failed one does not count": {a3, []Peer{alive(b), failed(c)}, Wait, "", "2 of 3"},
		"expect differs":              {a3, []Peer{alive(b), alive(fresh("c", 5))}, Wait, "", "c expects 5"},
		"joiners do not count":        {a3, []Peer{alive(b), alive(fresh("c", 0))}, Wait, "", "2 of 3"},
		"nonvoters do not count":      {a3, []Peer{alive(b), alive(with(c, func(m *Meta) { m.Nonvoter = true }))}, Wait, "", "2 of 3"},
		"leavers do not count":        {a3, []Peer{alive(b), alive(with(c, func(m *Meta) { m.Leaving = true }))}, Wait, "", "2 of 3"},
		"same raft address":           {a3, []Peer{alive(b), alive(with(c, func(m *Meta) { m.Raft = "b:3" }))}, Wait, "", "b and c both"},

		"a cluster exists":            {a3, []Peer{alive(formed(b, "x")), alive(c)}, Join, "", "b belongs"},
		"a cluster, id unknown yet":   {a3, []Peer{alive(formed(b, "")), alive(c)}, Join, "", "b belongs"},
		"a silent cluster":            {a3, []Peer{failed(formed(d, "x")), alive(intends(b, "a", "b", "c")), alive(intends(c, "a", "b", "c"))}, Wait, "", "d belongs to a cluster but cannot be asked"},
		"one is in a cluster already": {a3, []Peer{alive(with(intends(b, "a", "b", "c"), func(m *Meta) { m.ClusterID = "x" })), alive(intends(c, "a", "b", "c"))}, Wait, "", "b belongs to a cluster but cannot be asked"},
		"taken in before a crash":     {Candidate{Meta: with(fresh("a", 3), func(m *Meta) { m.ClusterID = "x" }), Settled: true}, []Peer{alive(intends(b, "a", "b", "c")), alive(intends(c, "a", "b", "c"))}, Wait, "", `taken in by cluster "x"`},
		"taken in, asks again":        {Candidate{Meta: with(fresh("a", 3), func(m *Meta) { m.ClusterID = "x" }), Settled: true}, []Peer{alive(formed(b, "x"))}, Join, "", ""},
		"two clusters":                {a3, []Peer{alive(formed(b, "x")), alive(formed(c, "y"))}, Wait, "", "2 clusters"},
		"a joiner alone":              {Candidate{Meta: fresh("a", 0)}, []Peer{alive(b), alive(c)}, Wait, "", "bootstrap-expect is not set"},
		"a joiner finds a cluster":    {Candidate{Meta: fresh("a", 0)}, []Peer{alive(formed(b, "x"))}, Join, "", ""},
		"a nonvoter waits":            {Candidate{Meta: with(fresh("a", 3), func(m *Meta) { m.Nonvoter = true })}, []Peer{alive(b), alive(c)}, Wait, "", "nonvoter"},

		"single":                {Candidate{Meta: fresh("a", 1), Settled: true}, nil, Promise, list("a").Hash(), ""},
		"single, seeds untried": {Candidate{Meta: fresh("a", 1)}, nil, Wait, list("a").Hash(), "seeds"},
		"single, one more":      {Candidate{Meta: fresh("a", 1), Settled: true}, []Peer{alive(fresh("b", 1))}, Wait, "", "2 fresh voters"},
		"single, promised":      {Candidate{Meta: fresh("a", 1), Promised: list("a")}, nil, Bootstrap, list("a").Hash(), ""},

		"bound, nobody seen":       {bound, nil, Wait, abc, "promise of b, c"},
		"bound, one missing":       {bound, []Peer{alive(promised(b, "a", "b", "c"))}, Wait, abc, "promise of c"},
		"bound, all":               {bound, []Peer{alive(promised(b, "a", "b", "c")), alive(promised(c, "a", "b", "c"))}, Bootstrap, abc, "all 3 founders"},
		"bound, one failed since":  {bound, []Peer{alive(promised(b, "a", "b", "c")), failed(promised(c, "a", "b", "c"))}, Bootstrap, abc, ""},
		"bound, an intent is less": {bound, []Peer{alive(promised(b, "a", "b", "c")), alive(intends(c, "a", "b", "c"))}, Wait, abc, "promise of c"},
		"bound, more came":         {bound, []Peer{alive(promised(b, "a", "b", "c")), alive(promised(c, "a", "b", "c")), alive(d)}, Bootstrap, abc, ""},
		"bound, address changed":   {Candidate{Meta: with(fresh("a", 3), func(m *Meta) { m.Raft = "new:3" }), Promised: list("a", "b", "c")}, []Peer{alive(promised(b, "a", "b", "c")), alive(promised(c, "a", "b", "c"))}, Bootstrap, abc, ""},
		"bound, a founder formed":  {bound, []Peer{alive(formed(promised(b, "a", "b", "c"), "x"))}, Bootstrap, abc, "b has formed"},
		"bound, others formed":     {bound, []Peer{alive(formed(b, "x"))}, Wait, abc, "bound by its promise"},
		"bound, strangers formed":  {bound, []Peer{alive(formed(d, "x")), alive(promised(b, "a", "b", "c"))}, Wait, abc, "bound by its promise"},
		"bound, a stranger's hash": {bound, []Peer{alive(promised(b, "a", "b", "c")), alive(promised(d, "a", "b", "c"))}, Wait, abc, "promise of c"},
		"bound, a founder is lost": {bound, []Peer{alive(promised(b, "a", "b", "c")), alive(promised(c, "c", "d", "e"))}, Wait, abc, "delete their data directories"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Agree(tt.self, tt.peers)
			if got.Action != tt.want || got.Intent != tt.intent || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Agree = %v, intent %q, reason %q; want %v, %q, …%q…", got.Action, got.Intent, got.Reason, tt.want, tt.intent, tt.reason)
			}
			if got.Reason == "" {
				t.Error("no reason given")
			}
			switch got.Action {
			case Promise, Bootstrap:
				if got.Founders.Hash() != got.Intent {
					t.Errorf("founders %v have hash %q, intent is %q", got.Founders, got.Founders.Hash(), got.Intent)
				}
				if !got.Founders.has(tt.self.NodeID) {
					t.Errorf("founders %v are without the node itself", got.Founders)
				}
			case Join:
				if len(got.Through) == 0 {
					t.Error("nobody to join through")
				}
			}
		})
	}
}

func TestFoundersAreSortedOnAllNodes(t *testing.T) {
	metas := []Meta{fresh("n10", 3), fresh("n9", 3), fresh("n1", 3)}
	var hashes []string
	for i, self := range metas {
		var peers []Peer
		for j, m := range metas {
			if i != j {
				peers = append(peers, alive(m))
			}
		}
		hashes = append(hashes, Agree(Candidate{Meta: self}, peers).Intent)
	}
	if hashes[0] == "" || hashes[1] != hashes[0] || hashes[2] != hashes[0] {
		t.Errorf("intents differ: %q", hashes)
	}
}

func TestHashTellsListsApart(t *testing.T) {
	lists := []Founders{
		nil,
		{"a": "b"},
		{"a": "c"},
		{"ab": ""},
		{"": "ab"},
		{"a": "", "b": ""},
		{"a": "b", "c": "d"},
		{"a": "d", "c": "b"},
		{"c": "d"},
	}
	seen := make(map[string]int)
	for i, l := range lists {
		h := l.Hash()
		if j, dup := seen[h]; dup {
			t.Errorf("%v and %v have one hash %q", lists[j], l, h)
		}
		seen[h] = i
		if again := maps.Clone(l).Hash(); again != h {
			t.Errorf("Hash(%v) = %q, then %q", l, h, again)
		}
	}
}

func ExampleAgree() {
	self := Candidate{Meta: Meta{NodeID: "a", Raft: "10.0.0.1:7402", Expect: 3}}
	peers := []Peer{{State: Alive, Meta: Meta{NodeID: "b", Raft: "10.0.0.2:7402", Expect: 3}}}
	d := Agree(self, peers)
	fmt.Println(d.Action, "-", d.Reason)
	// Output: wait - 2 of 3 fresh voters are seen
}

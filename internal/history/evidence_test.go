package history

import (
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// TestNothingIsShownByNothing: what was not recorded is not taken for right.
func TestNothingIsShownByNothing(t *testing.T) {
	const ms = time.Millisecond
	entries := []Entry{{Node: "n1", At: 1 * ms, Applied: fsm.Applied{Index: 2, Term: 1, Digest: 1}}}
	answered := Op{
		Client: "a", Kind: Get, Wants: []Want{{Lock: "x"}}, Call: 2 * ms, Return: 3 * ms, Outcome: OK, Index: 2,
	}
	opened := Op{Client: "a", Kind: Open, Session: "a", TTL: time.Second, Call: 2 * ms, Return: 3 * ms, Outcome: OK}
	unanswered := Op{Client: "a", Kind: Release, Wants: answered.Wants, Token: 1, Call: 2 * ms, Return: Never, Outcome: Unknown}
	for name, c := range map[string]struct {
		h  History
		o  Options
		ok bool
	}{
		"nothing, and nobody says that there is more":   {History{}, Options{}, true},
		"no entry of nodes that were watched":           {History{Ops: []Op{answered}}, Options{Watched: true}, false},
		"an entry of nodes that were watched":           {History{Entries: entries}, Options{Watched: true}, true},
		"no operation of clients at work":               {History{Entries: entries}, Options{Watched: true, Working: true}, false},
		"one that opened a session":                     {History{Ops: []Op{opened}}, Options{Working: true}, false},
		"one that was not answered":                     {History{Ops: []Op{unanswered}}, Options{Working: true}, false},
		"one that was answered, and entries":            {History{Ops: []Op{answered}, Entries: entries}, Options{Watched: true, Working: true}, true},
		"one that was answered, by nodes out of reach":  {History{Ops: []Op{answered}}, Options{Working: true}, true},
		"entries, and nobody says that there were more": {History{Entries: entries}, Options{}, true},
	} {
		r := c.h.Check(c.o)
		if r.OK() != c.ok || !c.ok && r.Violations[0].Promise != "none" {
			t.Errorf("%s: found %v, want that it is right: %v", name, r.Violations, c.ok)
		}
	}
}

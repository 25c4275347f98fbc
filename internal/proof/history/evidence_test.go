package history

import (
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// TestAHistoryWithoutRecordsProvesNothing: what was not recorded does not count as correct.
func TestAHistoryWithoutRecordsProvesNothing(t *testing.T) {
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
			t.Errorf("%s: found %v, want it correct: %v", name, r.Violations, c.ok)
		}
	}
}

// TestAnAnswerNamesItsIndex, unless a node has refused the operation without its table, or a
// read came before there was an entry.
func TestAnAnswerNamesItsIndex(t *testing.T) {
	const ms = time.Millisecond
	wants := []Want{{Lock: "x", Mode: exclusive}}
	op := func(kind Kind, outcome Outcome) Op {
		return Op{Client: "a", Kind: kind, Session: "a", Wants: wants, Call: 2 * ms, Return: 3 * ms, Outcome: outcome}
	}
	first := Op{Client: "a", Kind: Open, Session: "a", TTL: time.Second, Return: 1 * ms, Outcome: OK, Index: 2}
	later := first
	later.Call, later.Return = 4*ms, 5*ms
	for name, c := range map[string]struct {
		ops      []Op
		promises string
	}{
		"a busy lock":                     {[]Op{first, op(Acquire, Busy)}, "S7"},
		"a wait that is over":             {[]Op{first, op(Acquire, TimedOut)}, "S7"},
		"a grant that is not held":        {[]Op{first, op(Renew, NotHeld)}, "S7"},
		"a session that is alive":         {[]Op{first, op(KeepAlive, OK)}, "S7"},
		"a session that is gone":          {[]Op{first, op(KeepAlive, NoSess)}, "S7"},
		"a cancel":                        {[]Op{first, op(Cancel, OK)}, "S7"},
		"an argument that is not allowed": {[]Op{first, op(Acquire, Refused)}, ""},
		"no answer":                       {[]Op{first, op(Acquire, Unknown)}, ""},
		"a read before the first entry":   {[]Op{op(Get, OK), later}, ""},
		"a read after an entry":           {[]Op{first, op(Get, OK)}, "S8"},
		"a history without indexes":       {[]Op{op(KeepAlive, OK), op(Acquire, TimedOut)}, ""},
	} {
		promises := ""
		for _, v := range (&History{Ops: c.ops}).Check(Options{}).Violations {
			promises += v.Promise
		}
		if promises != c.promises {
			t.Errorf("%s: found %q, want %q", name, promises, c.promises)
		}
	}
}

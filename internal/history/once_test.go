package history

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// A request without a session is remembered for as long as its grant lives, and five
// minutes of cluster time more, unless it was cancelled.
func TestARequestWithoutASessionIsGrantedOnceWhileItIsRemembered(t *testing.T) {
	granted := func(index, token uint64, kind fsm.EventKind) Entry {
		once := fsm.RequestID{Once: fsm.OnceID{7}}
		return Entry{Node: "n1", At: time.Duration(index) * time.Second, Applied: fsm.Applied{
			Index: index, Term: 1, Now: int64(index) * 1e9, Digest: index,
			Events: []fsm.Event{{
				Kind: kind, Request: once, Token: token, Wants: []fsm.Want{{Lock: "x", Mode: fsm.Shared}},
				Result: fsm.Result{Token: token, Queued: int64(index) * 1e9, Granted: int64(index) * 1e9, Deadline: 60e9},
			}},
		}}
	}
	ended := func(again uint64) []Entry {
		return []Entry{granted(1, 1, fsm.EventGranted), granted(2, 1, fsm.EventRevoked), granted(again, 2, fsm.EventGranted)}
	}
	cancel := func(outcome Outcome) Op {
		return Op{Client: "a", Kind: Cancel, Target: textOf(fsm.RequestID{Once: fsm.OnceID{7}}), Call: 1500 * time.Millisecond, Return: 2 * time.Second, Outcome: outcome, Index: 2}
	}
	for name, c := range map[string]struct {
		entries []Entry
		ops     []Op
		alone   bool
		twice   bool
	}{
		"once":                            {[]Entry{granted(1, 1, fsm.EventGranted)}, nil, false, false},
		"twice":                           {[]Entry{granted(1, 1, fsm.EventGranted), granted(2, 2, fsm.EventGranted)}, nil, false, true},
		"again, and others may crowd":     {ended(3), nil, false, false},
		"again, after it had ended":       {ended(3), nil, true, true},
		"again, after a wait had ended":   {[]Entry{granted(1, 0, fsm.EventQueued), granted(2, 0, fsm.EventWaitEnded), granted(3, 1, fsm.EventGranted)}, nil, true, true},
		"again, just before it forgets":   {ended(301), nil, true, true},
		"again, after it is forgotten":    {ended(302), nil, true, false},
		"again, after it was cancelled":   {ended(3), []Op{cancel(OK)}, true, false},
		"again, its cancel came too late": {ended(3), []Op{cancel(NotHeld)}, true, true},
	} {
		twice := false
		for _, v := range (&History{Ops: c.ops, Entries: c.entries}).Check(Options{Alone: c.alone}).Violations {
			twice = twice || v.Promise == "S6" && strings.Contains(v.Text, "took effect again")
		}
		if twice != c.twice {
			t.Errorf("%s: found is %v, want %v", name, twice, c.twice)
		}
	}
}

package history

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// A request without a session is remembered for as long as its grant lives.
func TestARequestWithoutASessionIsGrantedOnceWhileItHolds(t *testing.T) {
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
	for name, c := range map[string]struct {
		entries []Entry
		twice   bool
	}{
		"once":                      {[]Entry{granted(1, 1, fsm.EventGranted)}, false},
		"twice":                     {[]Entry{granted(1, 1, fsm.EventGranted), granted(2, 2, fsm.EventGranted)}, true},
		"again, after it had ended": {[]Entry{granted(1, 1, fsm.EventGranted), granted(2, 1, fsm.EventRevoked), granted(3, 2, fsm.EventGranted)}, false},
	} {
		twice := false
		for _, v := range (&History{Entries: c.entries}).Check(Options{}).Violations {
			twice = twice || v.Promise == "S6" && strings.Contains(v.Text, "took effect again")
		}
		if twice != c.twice {
			t.Errorf("%s: found is %v, want %v", name, twice, c.twice)
		}
	}
}

package history

import (
	"strings"
	"testing"
	"time"
)

func TestAForceReleaseOfOneGrantEndsNoOther(t *testing.T) {
	for name, c := range map[string]struct {
		named uint64
		right bool
	}{"the one that is held": {2, true}, "whoever holds it": {0, true}, "one that has ended": {1, false}} {
		const ms = time.Millisecond
		wants := []Want{{Lock: "x", Mode: exclusive}}
		h := &History{Ops: []Op{
			{Client: "a", Kind: Acquire, Request: "a", Wants: wants, TTL: time.Minute, Call: 0, Return: 1 * ms, Outcome: OK, Token: 1},
			{Client: "a", Kind: Release, Request: "b", Wants: wants, Call: 2 * ms, Return: 3 * ms, Outcome: OK, Token: 1},
			{Client: "b", Kind: Acquire, Request: "c", Wants: wants, TTL: time.Minute, Call: 4 * ms, Return: 5 * ms, Outcome: OK, Token: 2},
			{Client: "c", Kind: ForceRelease, Request: "d", Wants: wants, Call: 6 * ms, Return: 7 * ms, Outcome: OK, Token: c.named, Holders: []uint64{2}},
		}}
		r := h.Check(Options{})
		if r.OK() != c.right || !c.right && !strings.Contains(r.Violations[0].Promise, "S5") {
			t.Errorf("%s: found %v", name, r.Violations)
		}
	}
}

// A force-release whose session has ended was not executed: it says nothing about the holder
// of the lock.
func TestAForceReleaseWithoutASessionSaysNothingAboutTheLock(t *testing.T) {
	const ms = time.Millisecond
	wants := []Want{{Lock: "x", Mode: exclusive}}
	h := &History{Ops: []Op{
		{Client: "a", Kind: Acquire, Request: "a", Wants: wants, TTL: time.Minute, Call: 0, Return: 1 * ms, Outcome: OK, Token: 1},
		{Client: "c", Kind: ForceRelease, Request: "d", Wants: wants, Call: 2 * ms, Return: 3 * ms, Outcome: NoSess, Token: 1},
		{Client: "c", Kind: Get, Wants: wants, Call: 4 * ms, Return: 5 * ms, Outcome: OK, Holders: []uint64{1}},
	}}
	if r := h.Check(Options{}); !r.OK() {
		t.Errorf("found %v", r.Violations)
	}
}

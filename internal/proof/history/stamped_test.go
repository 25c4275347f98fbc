package history

import (
	"testing"
	"time"
)

// A TTL counts from when the leader stamps the entry of the grant. If it takes a while until a
// majority has the entry, linearizable reads still see the state before it, and the grant ends
// sooner after those reads than its TTL.
func TestATTLMayCountFromBeforeAReadThatDidNotSeeItsGrant(t *testing.T) {
	const ms = time.Millisecond
	wants := func() []Want { return []Want{{Lock: "x", Mode: exclusive}} }
	for name, c := range map[string]struct {
		next time.Duration // when the next holder has the lock
		ok   bool
	}{
		"the next is granted as soon as the TTL is over": {2020 * ms, true},
		"it is granted before":                           {1900 * ms, false},
	} {
		h := &History{Ops: []Op{
			{Client: "a", Kind: Acquire, Request: "a/1", Wants: wants(), TTL: time.Minute, Call: 0, Return: 5 * ms, Outcome: OK, Token: 1},
			{Client: "b", Kind: Acquire, Request: "b/1", Wants: wants(), TTL: 2 * time.Second, Wait: -1, Call: 1 * ms, Return: 520 * ms, Outcome: OK, Token: 2},
			{Client: "a", Kind: Release, Request: "a/2", Wants: wants(), Call: 10 * ms, Return: 520 * ms, Outcome: OK, Token: 1},
			{Client: "c", Kind: Get, Wants: wants(), Call: 400 * ms, Return: 450 * ms, Outcome: OK, Holders: []uint64{1}},
			{Client: "d", Kind: Acquire, Request: "d/1", Wants: wants(), TTL: time.Minute, Wait: -1, Call: 600 * ms, Return: c.next, Outcome: OK, Token: 3},
		}}
		if r := h.Check(Options{}); r.OK() != c.ok {
			t.Errorf("%s: ok is %v, want %v: %v", name, r.OK(), c.ok, r.Violations)
		}
	}
}

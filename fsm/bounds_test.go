package fsm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// What no random test reaches: the bounds that are far away.

// The last 64 revocations are kept; the numbers tell that some are missing.
func TestUnseenRevocationsAreBounded(t *testing.T) {
	b := newBench(t)
	b.open(0, 60*second)
	for i := range uint64(MaxRevocations + 10) {
		b.want(b.one(0, inSession(0, i+1, 0, "a")), OK)
		b.want(b.one(0, ForceRelease{Lock: "a", Reason: "stuck", Who: "ops"}), OK)
	}
	keep := func(seen uint64) []Revocation {
		return b.one(0, KeepAlive{Sessions: []KeepAliveSession{{genSession(0), seen}}}).Alive[0].Revocations
	}
	got := keep(0)
	if len(got) != MaxRevocations || got[0].Number != 11 || got[MaxRevocations-1].Number != MaxRevocations+10 {
		t.Fatalf("%d revocations, from %+v", len(got), got[0])
	}
	if got := keep(MaxRevocations + 9); len(got) != 1 || got[0].Token != MaxRevocations+10 {
		t.Fatalf("after all but one were seen: %+v", got)
	}
	if got := keep(MaxRevocations + 10); len(got) != 0 {
		t.Fatalf("after all were seen: %+v", got)
	}
}

// share takes one of many shared grants with a large value.
func share(b *bench, value byte) {
	b.Helper()
	b.sequence++
	b.want(b.one(0, Acquire{
		ID: RequestID{Session: host, Sequence: b.sequence, Acked: b.sequence - 1}, Wants: []Want{{Lock: "a", Mode: Shared}},
		TTL: 60 * second, Value: bytes.Repeat([]byte{value}, 4096), Detached: true,
	}), OK)
}

// Whom a force-release has released is remembered whole as long as it fits, and not
// at all beyond that; never without bound.
func TestRememberedHoldersAreBounded(t *testing.T) {
	b := newBench(t)
	b.open(0, 60*second)
	for i := range 60 {
		share(b, byte(i))
	}
	force := func(sequence uint64) int {
		return len(b.want(b.one(0, ForceRelease{ID: seqID(0, sequence), Lock: "a"}), OK).Holders)
	}
	whole := 0
	for q := uint64(1); q <= 12; q++ {
		if n := force(q); n != 60 {
			t.Fatalf("sequence %d: first answer names %d holders", q, n)
		}
		for i := range 60 {
			share(b, byte(i))
		}
		switch n := force(q); n {
		case 60:
			whole++
		case 0:
		default:
			t.Fatalf("sequence %d: retry names %d holders", q, n)
		}
	}
	s, _ := b.table.sessions.get(genSession(0))
	if whole != 3 || s.shown > maxShownWindow || s.shown < maxShownWindow/2 {
		t.Fatalf("%d answers are whole, %d bytes", whole, s.shown)
	}
	c := ForceRelease{ID: seqID(0, 13), Lock: "a"}
	c.ID.Acked = 12
	b.want(b.one(0, c), OK)
	if n := force(13); n != 60 {
		t.Fatalf("after acknowledging: retry names %d holders", n)
	}
	sameTables(t, "restored", b.table, restore(t, snapshotBytes(t, b.table)))
}

// Sessions count once however many grants they have, so their grants are
// bounded too; one session is never cut.
func TestMassEndOfSessionsIsCut(t *testing.T) {
	table := New()
	index := uint64(0)
	const sessions, each = 5, 7000
	for s := range sessions {
		commands := []Command{OpenSession{Session: genSession(s), TTL: 10 * second}}
		for i := range each {
			commands = append(commands, inSession(s, uint64(i+1), 0, fmt.Sprintf("%d/%d", s, i)))
		}
		index++
		table.Apply(index, 1, encode(1, 0, 0, commands...))
	}
	for _, want := range []struct {
		sessions int
		more     bool
	}{{3, true}, {2, false}} { // 21,000 >= endsPerEntry > 14,000
		index++
		a := table.Apply(index, 1, encode(1, 10*second, 0))
		if len(a.Events) != want.sessions*(each+1) || a.MoreDue != want.more {
			t.Fatalf("%d events, more %v; want %+v", len(a.Events), a.MoreDue, want)
		}
		if err := table.check(); err != nil {
			t.Fatal(err)
		}
	}
}

// Tokens stay below 2^53, come what may.
func TestTokensRunOutWithoutHarm(t *testing.T) {
	b := newBench(t)
	b.table.lastToken = maxToken - 2
	b.want(b.one(0, detached(1, "a", 2*second, 0)), OK)
	b.want(b.one(0, detached(2, "a", 9*second, 9*second)), Queued)
	b.want(b.one(0, detached(3, "b", 2*second, 0)), OK)
	b.want(b.one(0, detached(4, "c", 2*second, 0)), OverLimit)
	// A request that waited before the tokens ran out waits until its deadline.
	if a := b.at(5); a.MoreDue || b.table.lastToken != maxToken {
		t.Fatalf("last token %d, %+v", b.table.lastToken, a)
	}
	b.holders("a", 0)
	b.at(14)
	b.want(b.one(14, detached(2, "a", 9*second, 9*second)), TimedOut) // a copy
	b.want(b.one(14, detached(5, "a", 9*second, 9*second)), OverLimit)
}

// Every limit is refused by its name at its bound, and allowed at the bound.
func TestLimitsHoldAtTheirBounds(t *testing.T) {
	for i := range limitTable {
		e := &limitTable[i]
		for _, c := range []struct {
			v    int64
			want Code
		}{{0, OK}, {e.least, OK}, {e.max, OK}, {e.max + 1, Invalid}, {-1, Invalid}} {
			b := newBench(t)
			b.one(0, raiseTo(Level))
			var l Limits
			e.set(&l, c.v)
			r := b.want(b.one(0, Configure{Limits: l}), c.want)
			if c.want == Invalid && (r.Field != "limits" || !strings.HasPrefix(r.Detail, e.field+" must be "+e.from()+" to ")) {
				t.Errorf("%s = %d: %s %q", e.field, c.v, r.Field, r.Detail)
			}
			want := c.v
			if c.v == 0 || c.want == Invalid {
				want = e.def
			}
			if got := e.get(&b.table.limits); got != want {
				t.Errorf("%s = %d: limit is %d, want %d", e.field, c.v, got, want)
			}
		}
	}
}

func TestSizesHoldAtTheirBounds(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	labels := func(n int) (l []Label) {
		for i := range n {
			l = append(l, Label{fmt.Sprint(i), "v"})
		}
		return l
	}
	base := func() Acquire { return detached(1, "a", 9*second, 0) }
	for name, c := range map[string]struct {
		field string
		fill  func(c *Acquire, n int)
		most  int
	}{
		"name":     {"lock", func(c *Acquire, n int) { c.Wants = exclusive(text(n)) }, 512},
		"value":    {"value", func(c *Acquire, n int) { c.Value = []byte(text(n)) }, 4096},
		"holder":   {"holder", func(c *Acquire, n int) { c.Holder = text(n) }, 128},
		"labels":   {"labels", func(c *Acquire, n int) { c.Labels = labels(n) }, 32},
		"label":    {"labels", func(c *Acquire, n int) { c.Labels = []Label{{"k", text(n - 1)}} }, 256},
		"requests": {"locks", func(c *Acquire, n int) { c.Wants = several(n) }, 64},
	} {
		b := newBench(t)
		fits, over := base(), base()
		c.fill(&fits, c.most)
		c.fill(&over, c.most+1)
		over.ID.Sequence++
		if r := b.want(b.one(0, over), Invalid); r.Field != c.field || r.Detail == "" {
			t.Errorf("%s over its bound: %+v", name, r)
		}
		b.want(b.one(0, fits), OK)
	}
}

func several(n int) (wants []Want) {
	for i := range n {
		wants = append(wants, Want{Lock: fmt.Sprint(i), Mode: Exclusive})
	}
	return wants
}

// A refusal's text is made from its reason: every reason must have one.
func TestEveryReasonHasItsText(t *testing.T) {
	for why := noReason + 1; why < reasonsEnd; why++ {
		var r Result
		refusal{why: why, arg: 3}.explain(&r)
		if r.Field == "" || r.Detail == "" || strings.Contains(r.Detail, "%!") || strings.Contains(r.Detail, "%d") {
			t.Errorf("reason %d: %q %q", why, r.Field, r.Detail)
		}
	}
}

// Views share nothing with the table.
func TestViewsAreCopies(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, OpenSession{Session: genSession(0), TTL: 9 * second, Labels: []Label{{"k", "v"}}}), OK)
	c := inSession(0, 1, 0, "a")
	c.Value, c.Labels = []byte("value"), []Label{{"k", "v"}}
	b.want(b.one(0, c), OK)
	before := b.table.Hash()
	for range 2 {
		v := b.table.Lock("a")
		if string(v.Holders[0].Value) != "value" || v.Holders[0].Labels[0].Key != "k" {
			t.Fatalf("view %+v", v)
		}
		v.Holders[0].Value[0], v.Holders[0].Labels[0].Key = 'X', "X"
		s, _ := b.table.Session(genSession(0))
		s.Labels[0].Key, s.Tokens[0] = "X", 99
	}
	if b.table.Hash() != before {
		t.Fatal("a view changed the table")
	}
}

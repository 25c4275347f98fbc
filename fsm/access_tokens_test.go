package fsm

import (
	"bytes"
	"strings"
	"testing"
)

// newRightsBench is a bench whose table knows rights.
func newRightsBench(t *testing.T) *bench {
	b := newBench(t)
	b.want(b.one(0, raiseTo(Level)), OK)
	return b
}

func accessTokenFor(accessor, name string) PutAccessToken {
	return PutAccessToken{Accessor: accessor, Hash: [32]byte{0: accessor[0], 1: accessor[len(accessor)-1]}, Name: name, MadeBy: "token:root", MadeAt: 1_700_000_000_000}
}

func (b *bench) valid(c PutAccessToken, want bool) {
	b.Helper()
	if a, ok := b.table.AccessTokenOf(c.Hash); ok != want || ok && a.Name != c.Name {
		b.Fatalf("access token %q is valid: %v, %+v; want %v", c.Accessor, ok, a, want)
	}
}

// An access token ends as everything does: at its deadline and not before, by cluster time,
// in whatever entry comes next.
func TestAccessTokenIsValidToItsDeadline(t *testing.T) {
	b := newRightsBench(t)
	c := accessTokenFor("a1", "shop")
	c.TTL = 10 * second
	if r := b.want(b.one(1, c), OK); r.Deadline != 11*second {
		t.Fatalf("put %+v: %+v", c, r)
	}
	made := b.table.RightsIndex()
	if made != b.index {
		t.Errorf("rights changed in entry %d, want %d", made, b.index)
	}
	if at, ok := b.table.NextDeadline(); !ok || at != 11*second {
		t.Errorf("next deadline %d, %v: nobody would write the entry that ends it", at, ok)
	}
	b.reload()
	b.stamped(1, 11*second-1)
	b.valid(c, true)
	if b.table.RightsIndex() != made {
		t.Error("rights have changed, and nothing has happened")
	}
	b.stamped(1, 11*second)
	b.valid(c, false)
	if b.table.RightsIndex() != b.index || len(b.table.AccessTokens("", 9)) != 0 {
		t.Errorf("rights changed in entry %d, want %d; there are %+v", b.table.RightsIndex(), b.index, b.table.AccessTokens("", 9))
	}
	b.want(b.one(12, c), OK) // the same may come again
}

func TestAccessTokenIsFoundByItsHashUntilItIsRevoked(t *testing.T) {
	b := newRightsBench(t)
	first, other := accessTokenFor("a1", "shop"), accessTokenFor("b2", "shop")
	first.Labels = []Label{{"team", "x"}}
	b.want(b.one(0, first), OK)
	b.want(b.one(0, other), OK)
	b.valid(first, true)
	for what, c := range map[string]PutAccessToken{
		"accessor": {Accessor: "a1", Hash: [32]byte{9}, Name: "shop"},
		"hash":     {Accessor: "c3", Hash: first.Hash, Name: "shop"},
	} {
		before := b.table.RightsIndex()
		if r := b.want(b.one(0, c), Invalid); r.Field != "accessor" || b.table.RightsIndex() != before {
			t.Errorf("a second one with its %s: %+v", what, r)
		}
	}
	b.reload()
	got := b.table.AccessTokens("", 1)
	if len(got) != 1 || got[0].Accessor != "a1" || got[0].MadeBy != "token:root" || got[0].MadeAt != first.MadeAt || got[0].Labels[0].Value != "x" {
		t.Errorf("first of the list: %+v", got)
	}
	got[0].Labels[0].Value = "changed"
	if again := b.table.AccessTokens("", 9); len(again) != 2 || again[0].Labels[0].Value != "x" {
		t.Errorf("list: %+v", again)
	}
	b.want(b.one(0, RevokeAccessToken{Accessor: "a1"}), OK)
	b.valid(first, false)
	b.valid(other, true)
	if r := b.want(b.one(0, RevokeAccessToken{Accessor: "a1"}), NotHeld); r.Field != "accessor" {
		t.Errorf("revoked twice: %+v", r)
	}
}

func TestAccessTokensHaveTheirBounds(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for field, change := range map[string]func(c *PutAccessToken, over int){
		"accessor": func(c *PutAccessToken, over int) { c.Accessor = long(32 + over) },
		"name":     func(c *PutAccessToken, over int) { c.Name = long(128 - len("token:") + over) },
		"made_by":  func(c *PutAccessToken, over int) { c.MadeBy = long(128 + over) },
		"labels":   func(c *PutAccessToken, over int) { c.Labels = manyLabels(32 + over) },
		"ttl":      func(c *PutAccessToken, over int) { c.TTL = maxAccessTTL + int64(over) },
	} {
		b := newRightsBench(t)
		c := accessTokenFor("a1", "shop")
		change(&c, 1)
		if r := b.want(b.one(0, c), Invalid); r.Field != field {
			t.Errorf("%s over its bound: %+v", field, r)
		}
		change(&c, 0)
		b.want(b.one(0, c), OK)
		b.reload()
	}
	b := newRightsBench(t)
	b.want(b.one(0, Configure{Limits: Limits{AccessTokens: 1}}), OK)
	b.want(b.one(0, accessTokenFor("a1", "shop")), OK)
	if r := b.want(b.one(0, accessTokenFor("a2", "shop")), OverLimit); r.Field != "access_tokens" {
		t.Errorf("one more than the limit: %+v", r)
	}
}

// A revocation holds from its place in the log on, whatever another node had let in before,
// and for what waits.
func TestWhoIsNobodyAnyMoreGetsNothingMore(t *testing.T) {
	b := newRightsBench(t)
	shop := accessTokenFor("a1", "shop")
	b.want(b.one(0, shop), OK)
	b.want(b.one(0, accessTokenFor("a2", "shop")), OK)
	as := func(c Command) As { return As{Caller: "token:shop", Command: c} }
	open := OpenSession{Session: genSession(0), TTL: 600 * second, Owner: "token:shop"}
	b.want(b.one(0, as(open)), OK)
	b.open(1, 600*second)
	held := b.want(b.one(0, inSession(1, 1, 0, "a")), OK)
	b.want(b.one(0, as(inSession(0, 1, -1, "a"))), Queued)
	b.want(b.one(0, inSession(1, 2, -1, "a")), Queued)
	own := b.want(b.one(0, as(inSession(0, 2, 0, "b"))), OK)

	b.want(b.one(0, RevokeAccessToken{Accessor: "a1"}), OK)
	b.want(b.one(0, as(inSession(0, 3, 0, "c"))), OK) // by the other access token
	b.want(b.one(0, RevokeAccessToken{Accessor: "a2"}), OK)
	for _, c := range []Command{inSession(0, 4, 0, "d"), open, OpenSession{Session: genSession(2), TTL: 9 * second, Owner: "token:shop"}} {
		if r := b.want(b.one(0, as(c)), NotOwner); r.Field != "caller" {
			t.Errorf("%+v: %+v", c, r)
		}
	}
	b.reload()
	a := b.at(1, Release{ID: RequestID{Session: genSession(1), Sequence: 3}, Token: held.Token})
	if len(a.Events) != 3 || a.Events[1].Kind != EventWaitEnded || a.Events[1].Code != NotOwner || a.Events[1].Result.Field != "caller" || a.Events[1].Session != genSession(0) || a.Events[2].Kind != EventGranted {
		t.Errorf("its turn came: %+v", a.Events)
	}
	if r := b.want(b.one(1, as(inSession(0, 1, -1, "a"))), NotOwner); r.Token != 0 || r.Field != "caller" {
		t.Errorf("a copy of what waited: %+v", r)
	}
	b.want(b.one(1, as(Release{ID: RequestID{Session: genSession(0), Sequence: 9}, Token: own.Token})), OK) // what frees is let through
}

// A waiter that was due, revived and is nobody any more is found by several of its
// sessions, and ends once.
func TestRevivedWaiterOfARevokedCallerEndsOnce(t *testing.T) {
	b := newRightsBench(t)
	b.want(b.one(0, accessTokenFor("a1", "shop")), OK)
	b.want(b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 1}}), OK)
	for i := range 3 {
		b.open(i, 5*second)
	}
	b.want(b.one(0, b.grab("a", 4*second)), OK)
	ask := detached(1, "a", 60*second, 600*second)
	ask.Owner = "token:shop"
	for i := 1; i < 3; i++ {
		ask.ID.Session, ask.ID.Sequence = genSession(i), 1
		b.want(b.one(0, ask), Queued)
	}
	b.want(b.one(0, RevokeAccessToken{Accessor: "a1"}), OK)
	if a := b.at(5); !a.MoreDue || b.table.Lock("a").HolderCount != 0 || b.table.Lock("a").Waiters != 1 {
		t.Fatalf("nothing was cut: %+v, %+v", a, b.table.Lock("a"))
	}
	a := b.at(5, KeepAlive{Sessions: []KeepAliveSession{{Session: genSession(1)}, {Session: genSession(2)}}})
	if v := b.table.Lock("a"); v.Waiters != 0 || countKind(a, EventWaitEnded) != 1 {
		t.Errorf("it waits on, or ended twice: %+v, %+v", v, a.Events)
	}
}

func TestRightsAreUnknownBelowTheirLevel(t *testing.T) {
	b := newBench(t)
	before := snapshotBytes(t, b.table)
	for _, c := range rightsCommands() {
		if LevelOf(c) != levelOfRights {
			t.Errorf("%T is of level %d", c, LevelOf(c))
		}
		b.want(b.one(0, c), UnknownCommand)
	}
	b.table.index, b.table.digest = 1, 0
	after := restore(t, before)
	after.index, after.digest = 1, 0
	if !bytes.Equal(snapshotBytes(t, b.table), snapshotBytes(t, after)) {
		t.Error("commands that were not known have changed the table")
	}
	b.want(b.one(0, raiseTo(Level)), OK)
	for _, c := range rightsCommands() {
		if r := b.one(0, c); r.Code == UnknownCommand || r.Code == Malformed {
			t.Errorf("%T at its level: %+v", c, r)
		}
	}
}

// Nodes of level 1 read an entry of limits as long as it has those that they know.
func TestLimitsOfRightsTakeAnotherKind(t *testing.T) {
	old := Limits{}.WithDefaults() // as it is read out of a table, changed and written
	old.Waiters = 7
	if c := (Configure{Limits: old}); c.kind() != KindConfigure || LevelOf(c) != 1 {
		t.Errorf("limits of level 1 are of kind %d", c.kind())
	}
	later := old
	later.Policies = 7
	if c := (Configure{Limits: later}); c.kind() != KindConfigureRights || LevelOf(c) != levelOfRights {
		t.Errorf("limits of level 2 are of kind %d", c.kind())
	}
	if got := later.OfLevel(1).WithDefaults(); got != old {
		t.Errorf("limits of level 1 are %+v, want %+v", got, old)
	}
	if got := later.OfLevel(levelOfRights); got != later {
		t.Errorf("limits of level 2 are %+v, want %+v", got, later)
	}
	b := newRightsBench(t)
	b.want(b.one(0, Configure{Limits: later}), OK)
	if b.table.Limits() != later {
		t.Errorf("limits are %+v, want %+v", b.table.Limits(), later)
	}
	b.reload()
	b.want(b.one(0, Configure{Limits: old}), OK)
	if b.table.Limits() != old {
		t.Errorf("limits are %+v, want %+v", b.table.Limits(), old)
	}
	// What both kinds can say is said in one way.
	payload := encoder{buf: []byte{byte(KindConfigureRights)}}
	payload.limits(old, len(limitTable))
	e := encoder{buf: AppendHeader(nil, 1, 0, 0, 1)}
	e.bytes(payload.buf)
	if r := b.table.Apply(b.index+1, 1, e.buf).Results[0]; r.Code != Malformed {
		t.Errorf("limits of level 1 in the other kind: %+v", r)
	}
}

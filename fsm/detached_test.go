package fsm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Detached acquires: tries, records, grants that belong to nobody.

// again is another try of what detached asks for, in a session of its own.
func again(c Acquire, session int, sequence uint64) Acquire {
	c.ID = RequestID{Session: genSession(session), Sequence: sequence, Once: c.ID.Once}
	return c
}

// reload goes on with the table as a snapshot keeps it.
func (b *bench) reload() {
	b.Helper()
	restored := restore(b.T, snapshotBytes(b.T, b.table))
	sameTables(b.T, "restored", b.table, restored)
	b.table = restored
}

func (b *bench) waiters(lock string, want int) {
	b.Helper()
	if v := b.table.Lock(lock); v.Waiters != want {
		b.Fatalf("lock %q has %d waiters, want %d", lock, v.Waiters, want)
	}
}

// A copy of an earlier try that comes after a later try, with its cancel behind it,
// must not end what the later try was given.
func TestLateCopyOfATryTakesNothingAway(t *testing.T) {
	for _, wait := range []int64{0, 20 * second} {
		b := newBench(t)
		b.open(0, 600*second)
		first := detached(1, "a", 30*second, wait)
		g := b.want(b.one(0, again(first, 0, 1)), OK) // the second try overtakes the first
		late := b.want(b.one(1, first), OK)           // the first, late
		if late.Token != g.Token {
			t.Fatalf("late copy: %+v, want token %d", late, g.Token)
		}
		b.reload()
		b.want(b.one(1, Cancel{Target: first.ID}), NotHeld) // its caller has hung up long ago
		b.want(b.one(1, Cancel{Target: seqID(0, 1)}), NotHeld)
		b.want(b.one(1, EndSession{Session: host, Undelivered: []uint64{first.ID.Sequence}}), OK)
		b.want(b.one(1, EndSession{Session: genSession(0), Undelivered: []uint64{1}}), OK)
		if v := b.table.Lock("a"); v.HolderCount != 1 || v.Holders[0].Token != g.Token {
			t.Fatalf("wait %d: the grant %d of the second try is gone: %+v", wait, g.Token, v)
		}
		b.want(b.one(1, Release{Token: g.Token}), OK)
	}
}

// Both tries waited for the grant, and either may have been told of it.
func TestCancelOfOneOfTwoTriesLeavesTheirGrant(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	ask := detached(1, "a", 60*second, 60*second)
	b.want(b.one(0, ask), Queued)
	b.want(b.one(1, again(ask, 0, 1)), Queued)
	b.waiters("a", 1)
	b.reload()
	a := b.at(2, Release{Token: held.Token})
	granted := a.Events[1]
	want := Event{
		Kind: EventGranted, Request: ask.ID, Others: []RequestID{again(ask, 0, 1).ID}, Token: held.Token + 1, Wants: ask.Wants,
		Result: Result{Token: held.Token + 1, Deadline: 62 * second, Queued: second, Granted: 2 * second}, Waited: 2 * second,
	}
	if !reflect.DeepEqual(granted, want) {
		t.Fatalf("told\n%+v, want\n%+v", granted, want)
	}
	b.reload()
	for _, id := range []RequestID{ask.ID, seqID(0, 1)} { // both are told
		renew := Renew{ID: RequestID{Session: id.Session, Sequence: 900}, Token: granted.Token, TTL: 60 * second}
		b.want(b.one(2, renew), OK)
	}
	for _, id := range []RequestID{ask.ID, seqID(0, 1)} {
		b.want(b.one(2, Cancel{Target: id}), NotHeld)
	}
	b.holders("a", 1)
	for queued, c := range map[Instant]Acquire{0: ask, second: again(ask, 0, 1)} {
		// Each counts from when it was first applied itself.
		if r := b.want(b.one(3, c), OK); r.Token != granted.Token || r.Queued != queued || r.Deadline != 62*second {
			t.Fatalf("copy of the try of %d: %+v", queued, r)
		}
	}
}

func TestGrantOfOneTryIsReleasedByItsCancel(t *testing.T) {
	for _, joined := range []bool{false, true} {
		b := newBench(t)
		b.open(0, 600*second)
		held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
		ask := detached(1, "a", 60*second, 60*second)
		b.want(b.one(0, ask), Queued)
		if joined { // and left again, before the grant
			b.want(b.one(0, again(ask, 0, 1)), Queued)
			b.want(b.one(0, Cancel{ID: seqID(0, 2), Target: seqID(0, 1)}), OK)
		}
		b.want(b.one(1, Release{Token: held.Token}), OK)
		b.holders("a", 1)
		b.want(b.one(1, Cancel{Target: ask.ID}), OK)
		b.holders("a", 0)
		b.want(b.one(1, Cancel{Target: ask.ID}), NotHeld)
		b.want(b.one(1, ask), NotHeld) // a copy of the cancelled try
		if _, ok := b.table.records.get(ask.ID.Once); ok {
			t.Fatal("what was cancelled has left its record")
		}
		b.want(b.one(1, again(ask, 0, 3)), OK) // another try runs as new
	}
}

// A wait stands as long as one of its tries does.
func TestWaitEndsWithItsLastTry(t *testing.T) {
	ask := detached(1, "a", 60*second, 600*second)
	leave := map[string]struct {
		command Command
		code    Code
	}{
		"cancelled": {Cancel{ID: seqID(0, 5), Target: seqID(0, 1)}, Cancelled},
		"ended":     {EndSession{Session: genSession(0)}, NoSession},
		"killed":    {KillSession{Session: genSession(0)}, NoSession},
	}
	for name, how := range leave {
		b := newBench(t)
		b.open(0, 600*second)
		b.open(1, 600*second)
		held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
		b.want(b.one(0, again(ask, 0, 1)), Queued)
		b.want(b.one(1, again(ask, 1, 1)), Queued)
		b.want(b.one(1, again(ask, 1, 2)), Queued) // two in one session
		v, _ := b.table.Session(genSession(1))
		if v.Waiters != 2 {
			t.Fatalf("session %+v, want 2 tries that wait", v)
		}
		a := b.at(2, how.command)
		e := a.Events[len(a.Events)-1]
		want := Event{
			Kind: EventTryEnded, Code: how.code, Request: again(ask, 0, 1).ID, Wants: ask.Wants, Waited: 2 * second,
			Others: []RequestID{again(ask, 1, 1).ID, again(ask, 1, 2).ID},
		}
		if !reflect.DeepEqual(e, want) {
			t.Fatalf("%s: told\n%+v, want\n%+v", name, e, want)
		}
		b.waiters("a", 1)
		b.reload()
		if how.code == Cancelled {
			b.want(b.one(2, again(ask, 0, 1)), Cancelled)
		}
		a = b.at(3, EndSession{Session: genSession(1)})
		var told []EventKind
		for _, e := range a.Events {
			told = append(told, e.Kind)
		}
		if !slices.Equal(told, []EventKind{EventSessionEnded, EventTryEnded, EventWaitEnded}) {
			t.Fatalf("%s: the end of the last tries told %v", name, told)
		}
		b.waiters("a", 0)
		b.want(b.one(4, Release{Token: held.Token}), OK)
		b.holders("a", 0)
		if _, ok := b.table.records.get(ask.ID.Once); ok {
			t.Fatalf("%s: a record is left", name)
		}
	}
}

// The limit of a wait is the latest of its tries.
func TestWaitLastsAsLongAsItsLatestTry(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	ask := detached(1, "a", 60*second, 5*second)
	b.want(b.one(0, ask), Queued)
	b.want(b.one(3, again(ask, 0, 1)), Queued)
	short := again(ask, 0, 2)
	short.Wait = second
	b.want(b.one(3, short), Queued)
	if a := b.at(7.9); len(a.Events) != 0 {
		t.Fatalf("before the limit of the second try: %+v", a.Events)
	}
	a := b.at(8)
	if len(a.Events) != 1 || a.Events[0].Kind != EventWaitEnded || a.Events[0].Code != TimedOut || len(a.Events[0].Others) != 2 {
		t.Fatalf("at the limit of the second try: %+v", a.Events)
	}
	for _, c := range []Acquire{ask, again(ask, 0, 1), short} {
		b.want(b.one(8, c), TimedOut)
	}
	b.want(b.one(8, again(ask, 0, 3)), Queued) // as new
}

func TestTryThatDoesNotWaitChangesNothing(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	ask := detached(1, "a", 60*second, 60*second)
	b.want(b.one(0, ask), Queued)
	once := again(ask, 0, 1)
	once.Wait = 0
	if r := b.want(b.one(1, once), Busy); len(r.Holders) != 1 || r.Holders[0].Token != held.Token {
		t.Fatalf("busy: %+v, want the holder", r)
	}
	b.want(b.one(1, Cancel{Target: once.ID}), NotHeld)
	b.waiters("a", 1)
	b.want(b.one(2, Release{Token: held.Token}), OK)
	if r := b.want(b.one(2, once), Busy); len(r.Holders) != 1 || r.Holders[0].Token != held.Token+1 {
		t.Fatalf("copy of the try: %+v, want the holder of now", r)
	}
	b.want(b.one(2, Cancel{Target: ask.ID}), OK) // it alone knows of the grant
}

// A refusal is the answer to one try, not to the next.
func TestRefusalIsNotRememberedForAnotherTry(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	ask := detached(1, "a", 60*second, 0)
	b.want(b.one(0, ask), Busy)
	waits := again(ask, 0, 1)
	waits.Wait = second
	b.want(b.one(0, waits), Queued)
	b.at(1)
	b.want(b.one(1, waits), TimedOut)
	waits.ID.Sequence = 2
	b.want(b.one(1, waits), Queued) // its own second begins now
	if a := b.at(1.9); len(a.Events) != 0 {
		t.Fatalf("the second wait ended early: %+v", a.Events)
	}
	b.at(2)
	if n := b.table.records.len; n != 1 { // that of held
		t.Fatalf("%d records, want none of refused requests", n)
	}
	b.want(b.one(3, Release{Token: held.Token}), OK)
	b.want(b.one(3, again(ask, 0, 3)), OK)
	b.want(b.one(3, ask), Busy) // the copy of a try gets its answer
}

// What a repeated acquire is told is true when it is told.
func TestRepeatedAcquireIsToldWhatIsTrueNow(t *testing.T) {
	b := newBench(t)
	b.open(0, 3600*second)
	ask := detached(1, "a", 10*second, 0)
	first := b.want(b.one(0, ask), OK)
	other := b.want(b.one(8, again(ask, 0, 1)), OK)
	if want := (Result{Token: first.Token, Deadline: 10 * second, Queued: 8 * second}); !reflect.DeepEqual(other, want) {
		t.Fatalf("another try after 8 of 10 s: %+v, want %+v", other, want)
	}
	b.want(b.one(9, Renew{Token: first.Token, TTL: 10 * second}), OK)
	for _, c := range []Acquire{ask, again(ask, 0, 1), again(ask, 0, 2)} {
		if r := b.want(b.one(10, c), OK); r.Deadline != 19*second {
			t.Fatalf("after the renewal: %+v, want the new deadline", r)
		}
	}
	ends := map[string]Command{
		"released": Release{Token: first.Token},
		"forced":   ForceRelease{Lock: "a"},
		"expired":  nil,
	}
	for name, end := range ends {
		c := &bench{T: t, table: restore(t, snapshotBytes(t, b.table)), index: b.index, term: 1}
		at := 11.0
		if end == nil {
			at = 19
			c.at(at)
		} else {
			c.want(c.one(at, end), OK)
		}
		taken := c.want(c.one(at, detached(2, "a", 600*second, 0)), OK) // somebody else has it
		for round := range 2 {
			for i, copied := range []Acquire{ask, again(ask, 0, 1), again(ask, 0, 2), again(ask, 0, 5)} {
				r := c.want(c.one(at, copied), NotHeld)
				if r.Token != first.Token || !strings.Contains(r.Detail, fmt.Sprintf("token %d", first.Token)) || r.Field != "id" {
					t.Fatalf("%s, round %d, copy %d: %+v, want the token that has ended", name, round, i, r)
				}
			}
			c.reload()
		}
		if v := c.table.Lock("a"); v.HolderCount != 1 || v.Holders[0].Token != taken.Token {
			t.Fatalf("%s: lock %+v, want token %d to hold it", name, v, taken.Token)
		}
		c.want(c.one(at+299.9, again(ask, 0, 6)), NotHeld)
		c.want(c.one(at+300, again(ask, 0, 7)), Busy) // forgotten: as new
	}
}

// One ID for another request is not answered with the first one's grant.
func TestOtherRequestUnderTheSameIDIsInvalid(t *testing.T) {
	ask := detached(1, "a", 60*second, 60*second)
	ask.Wants = append(ask.Wants, Want{Lock: "p", Mode: Permits, Permits: 2, Limit: 5})
	ask.Value, ask.Delay = []byte("v"), second
	changes := []struct {
		field  string
		change func(*Acquire)
	}{
		{"locks", func(c *Acquire) { c.Wants = c.Wants[:1] }},
		{"locks", func(c *Acquire) { c.Wants[0].Lock = "b" }},
		{"locks", func(c *Acquire) { c.Wants[0].Mode = Shared }},
		{"locks", func(c *Acquire) { c.Wants[1].Permits = 1 }},
		{"locks", func(c *Acquire) { c.Wants[1].Limit = 4 }},
		{"ttl", func(c *Acquire) { c.TTL++ }},
		{"value", func(c *Acquire) { c.Value = []byte("w") }},
		{"value", func(c *Acquire) { c.Value = nil }},
		{"delay", func(c *Acquire) { c.Delay = 0 }},
	}
	b := newBench(t)
	b.open(0, 3600*second)
	held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	b.want(b.one(0, ask), Queued)
	sequence := uint64(0)
	for _, state := range []string{"waits", "holds", "has ended"} {
		for _, c := range changes {
			sequence++
			other := again(ask, 0, sequence)
			other.Wants = slices.Clone(ask.Wants)
			c.change(&other)
			if r := b.want(b.one(1, other), Invalid); r.Field != c.field || r.Detail == "" {
				t.Fatalf("%s, other %s: %+v", state, c.field, r)
			}
		}
		// In another order they are the same locks; who asks, and for how long, may differ.
		sequence++
		same := again(ask, 0, sequence)
		same.Wants = []Want{ask.Wants[1], ask.Wants[0]}
		same.Holder, same.Labels, same.Wait = "ann", []Label{{"k", "v"}}, second
		b.want(b.one(1, same), map[string]Code{"waits": Queued, "holds": OK, "has ended": NotHeld}[state])
		switch state {
		case "waits":
			b.want(b.one(1, Release{Token: held.Token}), OK)
			b.want(b.one(1, SetValue{Token: held.Token + 1, Value: []byte("changed since")}), OK)
		case "holds":
			b.want(b.one(1, Release{Token: held.Token + 1}), OK)
		}
		b.reload()
	}
	b.holders("b", 0)
}

func TestTriesAreBounded(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.open(1, 600*second)
	b.want(b.one(0, Configure{Limits: Limits{GrantsPerSession: 12}}), OK)
	b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	ask := detached(1, "a", 60*second, 60*second)
	b.want(b.one(0, ask), Queued)
	for q := range uint64(12) {
		b.want(b.one(0, again(ask, 0, q+1)), Queued)
	}
	if r := b.want(b.one(0, again(ask, 0, 13)), OverLimit); r.Field != "grants_per_session" {
		t.Fatalf("a session's 13th try: %+v", r)
	}
	for q := range uint64(3) {
		b.want(b.one(0, again(ask, 1, q+1)), Queued)
	}
	if r := b.want(b.one(0, again(ask, 1, 4)), OverLimit); r.Field != "id" || !strings.Contains(r.Detail, "16") {
		t.Fatalf("the 17th try: %+v", r)
	}
	b.want(b.one(0, Cancel{Target: seqID(0, 5)}), OK)
	b.want(b.one(0, again(ask, 1, 5)), Queued)
	b.reload()
}

// A session that was due, in a mass expiry that was cut, keeps no waiter queued; one
// that is not does.
func TestDetachedWaiterIsGrantedIfOneOfItsTriesIsAlive(t *testing.T) {
	for ttl, holders := range map[int64]int{5 * second: 0, 60 * second: 1} {
		b := newBench(t)
		b.want(b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 1}}), OK)
		b.open(0, 5*second)
		b.open(1, ttl)
		b.want(b.one(0, detached(9, "a", 2*second, 0)), OK)
		ask := detached(1, "a", 60*second, 60*second)
		b.want(b.one(0, again(ask, 0, 1)), Queued)
		b.want(b.one(0, again(ask, 1, 1)), Queued)
		if a := b.at(6); !a.MoreDue || countKind(a, EventExpired) != 1 { // the grant ends and no more
			t.Fatalf("more due %v, %+v", a.MoreDue, a.Events)
		}
		b.holders("a", holders)
		b.waiters("a", 1-holders)
	}
}

// What is due and was passed over has its turn when it is tried again.
func TestDueRequestThatIsTriedAgainHasItsTurn(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 1}}), OK)
	b.open(0, 600*second)
	b.want(b.one(0, detached(9, "a", 2*second, 0)), OK)
	ask := detached(1, "a", 60*second, 3*second)
	b.want(b.one(0, ask), Queued)
	a := b.at(5, again(ask, 0, 1)) // the grant ends and no more; the waiter is due
	r := b.want(a.Results[0], OK)
	if !a.MoreDue || r.Queued != 5*second || r.Granted != 5*second {
		t.Fatalf("more due %v, %+v, want a grant", a.MoreDue, r)
	}
	b.holders("a", 1)
	b.want(b.one(5, Cancel{Target: ask.ID}), NotHeld) // two know of it
	b.reload()
}

func TestDetachedGrantOutlivesItsSession(t *testing.T) {
	b := newBench(t)
	b.open(0, 5*second)
	now, later := again(detached(1, "a", 60*second, 0), 0, 1), again(detached(2, "b", 60*second, 60*second), 0, 2)
	now.Holder, later.Holder = "ann", "bob"
	held := b.want(b.one(0, detached(9, "b", 600*second, 0)), OK)
	b.want(b.one(0, now), OK)
	b.want(b.one(0, later), Queued)
	granted := b.at(1, Release{Token: held.Token}).Events[1]
	confirm := Renew{ID: RequestID{Session: genSession(0), Sequence: 3}, Token: granted.Token, TTL: 60 * second}
	b.want(b.one(1, confirm), OK)
	if v, _ := b.table.Session(genSession(0)); len(v.Tokens) != 0 || v.Waiters != 0 {
		t.Fatalf("session %+v, want nothing to belong to it", v)
	}
	b.at(5) // the session ends
	for lock, holder := range map[string]string{"a": "ann", "b": "bob"} {
		v := b.table.Lock(lock)
		if v.HolderCount != 1 || v.Holders[0].Session != (SessionID{}) || v.Holders[0].Holder != holder {
			t.Fatalf("lock %+v, want a detached grant of %s", v, holder)
		}
	}
	b.reload()
	b.want(b.one(6, again(now, 0, 3)), NoSession)
	b.open(1, 60*second)
	b.want(b.one(7, again(now, 1, 1)), OK) // the record is there
	if a := b.at(60); countKind(a, EventExpired) != 1 {
		t.Fatalf("%+v, want the first grant to end by its TTL", a.Events)
	}
}

// The answer came when nobody was there to take it.
func TestUndeliveredGrantIsReleasedWithItsSession(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	for i := range byte(3) {
		b.want(b.one(0, again(detached(i+1, string('a'+rune(i)), 60*second, 0), 0, uint64(i+1))), OK)
	}
	mine := b.want(b.one(0, inSession(0, 4, 0, "d")), OK)
	b.want(b.one(0, again(detached(5, "a", 60*second, 60*second), 0, 5)), Queued)
	b.want(b.one(1, detached(2, "b", 60*second, 0)), OK) // another try knows of it
	a := b.at(1, EndSession{Session: genSession(0), Undelivered: []uint64{1, 2, 4, 5, 99}})
	b.want(a.Results[0], OK)
	for lock, want := range map[string]int{"a": 0, "b": 1, "c": 1, "d": 0} {
		b.holders(lock, want)
	}
	released := 0
	for _, e := range a.Events {
		if e.Kind == EventReleased && e.Token != mine.Token {
			released++
		}
	}
	if released != 1 {
		t.Fatalf("%d detached grants released: %+v", released, a.Events)
	}
	b.want(b.one(1, detached(1, "a", 60*second, 0)), OK) // as new
}

// Beyond the limit a new ID is refused; one that is remembered keeps its time.
func TestOnceIDsAreNeverForgottenEarly(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{OnceRemembered: 4}}), OK) // half of it for one owner
	first := b.want(b.one(0, detached(1, "a", 30*second, 0)), OK)
	b.want(b.one(1, Release{Token: first.Token}), OK)
	b.want(b.one(1, detached(2, "a", 600*second, 0)), OK)
	for i := range byte(100) {
		r := b.want(b.one(2, detached(100+i, "b", 30*second, second)), OverLimit)
		if r.Field != "once_remembered" {
			t.Fatalf("another ID: %+v", r)
		}
		token := b.want(b.one(2, b.grab("b", 30*second)), OK).Token // without an ID: no record
		b.want(b.one(2, Release{Token: token}), OK)
	}
	b.want(b.one(2, Configure{Limits: Limits{OnceRemembered: 1}}), OK)
	other := detached(1, "a", 30*second, 0)
	other.ID.Sequence = 1
	other.ID.Acked = 0
	b.open(0, 600*second)
	if r := b.want(b.one(300.9, again(other, 0, 1)), NotHeld); r.Token != first.Token {
		t.Fatalf("within five minutes: %+v", r)
	}
	b.want(b.one(301, detached(200, "b", 30*second, 0)), OverLimit) // one is still held
	b.want(b.one(301, Configure{Limits: Limits{OnceRemembered: 4}}), OK)
	b.want(b.one(301, detached(201, "b", 30*second, 0)), OK)
}

// A session's client must not hear from others that its lock is gone.
func TestSessionsGrantIsForItsSessionAlone(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.open(1, 600*second)
	own := inSession(0, 1, 0, "a")
	own.TTL = 60 * second
	token := b.want(b.one(0, own), OK).Token
	for i, id := range []RequestID{{}, seqID(1, 1), {Session: host, Sequence: 7}} {
		before := b.table.Lock("a")
		b.want(b.one(1, Release{ID: id, Token: token}), NotHeld)
		id.Sequence++
		b.want(b.one(1, Renew{ID: id, Token: token, TTL: 90 * second}), NotHeld)
		id.Sequence++
		b.want(b.one(1, SetValue{ID: id, Token: token, Value: []byte("x")}), NotHeld)
		if after := b.table.Lock("a"); !reflect.DeepEqual(after, before) {
			t.Fatalf("stranger %d changed %+v to %+v", i, before, after)
		}
	}
	b.want(b.one(1, Renew{ID: seqID(0, 2), Token: token, TTL: 90 * second}), OK)
	b.want(b.one(1, SetValue{ID: seqID(0, 3), Token: token, Value: []byte("x")}), OK)
	b.want(b.one(1, Release{ID: seqID(0, 4), Token: token}), OK)
	b.holders("a", 0)
}

func TestDetachedGrantIsForWhoeverKnowsItsToken(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	token := b.want(b.one(0, detached(1, "a", 60*second, 0)), OK).Token
	b.want(b.one(1, Renew{Token: token, TTL: 90 * second}), OK)
	b.want(b.one(1, SetValue{ID: seqID(0, 1), Token: token, Value: []byte("x")}), OK)
	b.want(b.one(1, Release{ID: seqID(0, 2), Token: token + 1}), NotHeld)
	b.want(b.one(1, Release{ID: seqID(0, 3), Token: token}), OK)
	b.holders("a", 0)
}

// A client that has lost its grant by its own clock says so: the lock stays free as
// long as after any loss by time.
func TestLostGrantIsFollowedByItsDelay(t *testing.T) {
	for _, lost := range []bool{false, true} {
		b := newBench(t)
		b.open(0, 600*second)
		ask := inSession(0, 1, 0, "a")
		ask.Delay = 30 * second
		token := b.want(b.one(0, ask), OK).Token
		a := b.at(1, Release{ID: seqID(0, 2), Token: token, Lost: lost})
		want := map[bool]EventKind{false: EventReleased, true: EventExpired}[lost]
		if countKind(a, want) != 1 || len(a.Events) != 1 {
			t.Fatalf("lost %v: told %+v", lost, a.Events)
		}
		if v := b.table.Lock("a"); (v.DelayUntil == 31*second) != lost {
			t.Fatalf("lost %v: %+v", lost, v)
		}
	}
}

// Who has no session, or a once ID for what is no detached acquire, made a mistake.
func TestAcquiresAreInSessions(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	c := detached(1, "a", 60*second, 0)
	c.ID = RequestID{}
	b.want(b.one(0, c), Invalid)
	c.ID = RequestID{Once: OnceID{1}}
	b.want(b.one(0, c), Invalid)
	c = inSession(0, 1, 0, "a")
	c.ID.Once = OnceID{1}
	b.want(b.one(0, c), Invalid)
	release := Release{ID: seqID(0, 2), Token: 1}
	release.ID.Once = OnceID{1}
	for field, bad := range map[string]Command{
		"id":     release,
		"target": Cancel{Target: RequestID{Once: OnceID{1}}},
		"ttl":    again(detached(2, "a", 0, 0), 0, 3),
		"wait":   again(detached(2, "a", 9*second, -1), 0, 4),
	} {
		if r := b.want(b.one(0, bad), Invalid); r.Field != field {
			t.Errorf("%+v: %+v, want the field %s", bad, r, field)
		}
	}
	long := again(detached(2, "a", 9*second, b.table.limits.MaxWait+1), 0, 5)
	b.want(b.one(0, long), Invalid)
	b.holders("a", 0)
}

// A waiter that has died is granted the lock, and nobody tells it: the lock goes on to
// the next when the waiter's session ends, and not when the TTL of the grant is over.
func TestGrantThatNobodyIsToldOfEndsWithItsSessions(t *testing.T) {
	for _, end := range []struct {
		name string
		by   func(b *bench, at float64) Applied
		kind EventKind
	}{
		{"by time", func(b *bench, at float64) Applied { return b.at(at) }, EventExpired},
		{"by its client", func(b *bench, _ float64) Applied { return b.at(4, EndSession{Session: genSession(0)}) }, EventReleased},
		{"by an operator", func(b *bench, _ float64) Applied { return b.at(4, KillSession{Session: genSession(0)}) }, EventRevoked},
	} {
		t.Run(end.name, func(t *testing.T) {
			b := newBench(t)
			b.open(0, 5*second)
			held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
			dead := again(detached(1, "a", 600*second, 60*second), 0, 1)
			dead.Delay = 60 * second
			b.want(b.one(0, dead), Queued)
			b.want(b.one(0, detached(2, "a", 600*second, 60*second)), Queued)
			granted := b.at(1, Release{Token: held.Token}).Events[1]
			if granted.Kind != EventGranted || granted.Request.Sequence != 1 || granted.Request.Session != genSession(0) {
				t.Fatalf("told %+v, want the grant to the first waiter", granted)
			}
			b.reload()
			a := end.by(b, 5)
			if n := len(a.Events); n != 3 || a.Events[1].Kind != end.kind || a.Events[1].Token != granted.Token || a.Events[2].Kind != EventGranted {
				t.Fatalf("told %+v, want the grant to end and the next one to have the lock, without a delay", a.Events)
			}
			b.reload()
			b.open(1, 600*second)
			if r := b.one(6, again(dead, 1, 1)); r.Code != Queued {
				t.Fatalf("another try of the ID: %+v, want it to wait as a new request", r)
			}
		})
	}
}

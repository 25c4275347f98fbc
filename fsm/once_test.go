package fsm

import (
	"reflect"
	"slices"
	"testing"
)

// Requests that are sent again, cancelled, or late.

func seqID(session int, sequence uint64) RequestID {
	return RequestID{Session: genSession(session), Sequence: sequence}
}

func (b *bench) open(i int, ttl int64) {
	b.Helper()
	b.want(b.one(0, OpenSession{Session: genSession(i), TTL: ttl}), OK)
}

func TestRetryGetsTheFirstAnswerAndChangesNothing(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	first := b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
	for range 3 {
		if again := b.want(b.one(1, inSession(0, 1, 0, "a")), OK); again.Token != first.Token || again.Granted != first.Granted {
			t.Fatalf("retry: %+v, want %+v", again, first)
		}
	}
	if r := b.want(b.one(1, inSession(0, 2, 0, "a")), Busy); len(r.Holders) != 1 {
		t.Fatalf("busy: %+v, want the holder", r)
	}
	b.want(b.one(2, Release{ID: seqID(0, 3), Token: first.Token}), OK)
	// As the first answer; and the lock is free now.
	if r := b.want(b.one(2, inSession(0, 2, 0, "a")), Busy); len(r.Holders) != 0 {
		t.Fatalf("copy after the release: %+v, want no holders", r)
	}
	if again := b.want(b.one(2, inSession(0, 1, 0, "a")), OK); again.Token != first.Token {
		t.Fatalf("retry after the release: %+v, want %+v", again, first)
	}
	b.holders("a", 0)
	b.want(b.one(2, Release{ID: seqID(0, 3), Token: first.Token}), OK)
	b.want(b.one(2, Release{ID: seqID(0, 4), Token: first.Token}), NotHeld)
}

func TestAcknowledgedSequenceIsRefusedLater(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
	c := inSession(0, 2, 0, "b")
	c.ID.Acked = 1
	b.want(b.one(0, c), OK)
	b.want(b.one(0, inSession(0, 1, 0, "a")), StaleRequest)
	b.holders("a", 1)
}

func TestRetryOfAWaiterFindsItsPlaceAndThenItsGrant(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(9, "a", 600*second, 0)), OK)
	b.want(b.one(1, inSession(0, 1, -1, "a")), Queued)
	b.want(b.one(1, detached(1, "a", 60*second, 60*second)), Queued)
	for range 2 {
		if r := b.want(b.one(2, inSession(0, 1, -1, "a")), Queued); r.Queued != second {
			t.Fatalf("retry of a waiter: %+v, want it queued at 1 s", r)
		}
		b.want(b.one(2, detached(1, "a", 60*second, 60*second)), Queued)
	}
	if v := b.table.Lock("a"); v.Waiters != 2 {
		t.Fatalf("%d waiters, want 2", v.Waiters)
	}
	b.want(b.one(3, Release{Token: held.Token}), OK)
	got := b.want(b.one(4, inSession(0, 1, -1, "a")), OK)
	if got.Token <= held.Token || got.Queued != second || got.Granted != 3*second {
		t.Fatalf("retry of a granted waiter: %+v", got)
	}
}

// A lost answer to a release must not make the retry release the next holder.
func TestStaleReleaseChangesNothing(t *testing.T) {
	b := newBench(t)
	first := b.want(b.one(0, detached(1, "a", 2*second, 0)), OK)
	b.at(2)
	second := b.want(b.one(2, detached(2, "a", 60e9, 0)), OK)
	for _, c := range []Command{
		Release{Token: first.Token}, Release{Lock: "a", Token: first.Token}, Release{Token: second.Token + 1}, Release{},
		Release{Lock: "b", Token: second.Token}, Renew{Token: first.Token, TTL: 5e9}, SetValue{Token: first.Token, Value: []byte("x")},
	} {
		before := b.table.Lock("a")
		b.want(b.one(2, c), NotHeld)
		if after := b.table.Lock("a"); !reflect.DeepEqual(after, before) {
			t.Fatalf("%+v changed %+v to %+v", c, before, after)
		}
	}
}

func TestSequenceOfAnotherRequestIsInvalid(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	token := b.want(b.one(0, inSession(0, 1, 0, "a")), OK).Token
	first := inSession(0, 1, 0, "a")
	others := map[string]Command{
		"another kind": Release{ID: first.ID, Token: token},
		"another lock": inSession(0, 1, 0, "b"),
	}
	for name, change := range map[string]func(*Acquire){
		"another mode":  func(c *Acquire) { c.Wants = []Want{{Lock: "a", Mode: Shared}} },
		"another ttl":   func(c *Acquire) { c.TTL = 9 * second },
		"another wait":  func(c *Acquire) { c.Wait = -1 },
		"another value": func(c *Acquire) { c.Value = []byte("v") },
		"detached":      func(c *Acquire) { c.Detached, c.TTL = true, 9*second },
	} {
		c := first
		change(&c)
		others[name] = c
	}
	for name, c := range others {
		if r := b.want(b.one(0, c), Invalid); r.Field != "id" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	b.holders("a", 1)
	b.holders("b", 0)
	release := Release{ID: seqID(0, 2), Token: token}
	b.want(b.one(0, release), OK)
	b.want(b.one(0, Release{ID: seqID(0, 2), Token: token + 1}), Invalid)
	b.want(b.one(0, Release{ID: seqID(0, 2), Token: token, Lost: true}), Invalid)
	// What the client has been told may differ from copy to copy.
	release.ID.Acked, release.ID.Answered[1] = 1, Span{3, 3}
	b.want(b.one(0, release), OK)
	b.want(b.one(0, Cancel{ID: seqID(0, 4), Target: seqID(0, 9)}), OK)
	b.want(b.one(0, Cancel{ID: seqID(0, 4), Target: RequestID{Session: genSession(0), Sequence: 9, Acked: 2}}), OK)
	b.table = restore(t, snapshotBytes(t, b.table))
	b.want(b.one(0, inSession(0, 2, 0, "a")), Invalid)
}

func TestCancelledWaiterLeavesNoTrace(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, detached(1, "a", 600*second, 0)), OK)
	b.want(b.one(0, inSession(0, 1, -1, "a", "b")), Queued)
	b.want(b.one(0, inSession(0, 2, -1, "b")), Queued) // behind the first
	b.want(b.one(1, Cancel{ID: seqID(0, 3), Target: seqID(0, 1)}), OK)
	b.holders("b", 1)
	if v := b.table.Lock("a"); v.Waiters != 0 {
		t.Fatalf("lock %+v, want no waiters", v)
	}
	b.want(b.one(1, inSession(0, 1, -1, "a", "b")), Cancelled)
}

func TestCancelReleasesAGrantThatRacedAhead(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, inSession(0, 1, -1, "a")), OK)
	b.want(b.one(1, Cancel{ID: seqID(0, 2), Target: seqID(0, 1)}), OK)
	b.holders("a", 0)
	ask := detached(1, "a", 60*second, second)
	b.want(b.one(1, ask), OK)
	b.want(b.one(1, Cancel{Target: ask.ID}), OK)
	b.holders("a", 0)
	b.want(b.one(1, ask), NotHeld)
}

// A client that gave up may be heard before its own acquire is.
func TestAcquireThatArrivesAfterItsCancelIsNotGranted(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.one(0, Cancel{ID: seqID(0, 2), Target: seqID(0, 1)})
	b.want(b.one(1, inSession(0, 1, -1, "a")), Cancelled)
	b.holders("a", 0)
}

// A session that ends leaves all lines before anything is handed on: its own
// waiter never gets what it just lost.
func TestEndedSessionsWaiterIsNeverGranted(t *testing.T) {
	ends := map[string]func(b *bench) Applied{
		"ended":   func(b *bench) Applied { return b.at(1, EndSession{Session: genSession(0)}) },
		"killed":  func(b *bench) Applied { return b.at(1, KillSession{Session: genSession(0), Who: "ops"}) },
		"expired": func(b *bench) Applied { return b.at(6) },
	}
	for name, end := range ends {
		b := newBench(t)
		b.open(0, 5*second)
		b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
		b.want(b.one(0, inSession(0, 2, -1, "a")), Queued)
		b.want(b.one(0, detached(1, "a", 60*second, 60*second)), Queued)
		a := end(b)
		var granted []uint64
		for _, e := range a.Events {
			if e.Kind == EventGranted {
				granted = append(granted, e.Token)
			}
		}
		if v := b.table.Lock("a"); !slices.Equal(granted, []uint64{2}) || v.HolderCount != 1 || v.Holders[0].Session != (SessionID{}) {
			t.Fatalf("%s: granted %v, lock %+v; want the detached waiter alone", name, granted, v)
		}
		b.want(b.one(6, inSession(0, 2, -1, "a")), NoSession)
	}
}

// A copy of OpenSession may be minutes late: the session that it opened has ended,
// and copies of its requests come after it.
func TestEndedSessionStaysEnded(t *testing.T) {
	open := OpenSession{Session: genSession(0), TTL: 5 * second, Holder: "ann"}
	ends := map[string]func(b *bench) Applied{
		"ended":   func(b *bench) Applied { return b.at(5, EndSession{Session: genSession(0)}) },
		"killed":  func(b *bench) Applied { return b.at(5, KillSession{Session: genSession(0), Who: "ops"}) },
		"expired": func(b *bench) Applied { return b.at(5) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.one(0, Configure{Limits: Limits{OnceNanos: 60 * second}})
			b.want(b.one(0, open), OK)
			b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
			if a := end(b); countKind(a, EventSessionEnded) != 1 {
				t.Fatalf("%+v, want the end of the session", a.Events)
			}
			for _, at := range []float64{5, 6, 64.9} {
				a := b.at(at, open, inSession(0, 1, 0, "a"))
				if a.Results[0].Code != NoSession || a.Results[1].Code != NoSession || len(a.Events) != 0 {
					t.Fatalf("late copies at %v s: %+v, want no session, and nothing to happen", at, a)
				}
				b.table = restore(t, snapshotBytes(t, b.table))
			}
			b.holders("a", 0)
			b.want(b.one(65, open), OK) // forgotten
			b.want(b.one(65, EndSession{Session: genSession(0)}), OK)
			b.want(b.one(65, open), NoSession) // and remembered again
		})
	}
}

func TestManyLocksAreGrantedTogetherOrNotAtAll(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.open(1, 600*second)
	holdB := b.want(b.one(0, detached(1, "b", 600*second, 0)), OK).Token
	b.want(b.one(0, inSession(0, 1, -1, "a", "b")), Queued)
	// Whichever of them is held: not only the last.
	permit := Want{Lock: "e", Mode: Permits, Permits: 1, Limit: 2}
	both := inSession(0, 3, 0, "b")
	both.Wants = append(both.Wants, permit)
	b.want(b.one(0, Acquire{ID: RequestID{Session: both.ID.Session, Sequence: 2}, Wants: []Want{permit}}), OK)
	b.want(b.one(0, both), Busy)
	b.holders("a", 0)                                       // free, but promised
	b.want(b.one(0, inSession(1, 1, 0, "a")), Busy)         // nobody overtakes
	b.want(b.one(0, inSession(1, 2, -1, "a")), Queued)      // behind
	b.want(b.one(0, inSession(1, 3, -1, "c", "a")), Queued) // behind that
	b.want(b.one(0, inSession(1, 4, 0, "d")), OK)           // not concerned
	b.want(b.one(1, Release{Token: holdB}), OK)
	b.holders("a", 1)
	b.holders("b", 1)
	r := b.want(b.one(1, inSession(0, 1, -1, "a", "b")), OK)
	b.want(b.one(1, Release{ID: seqID(0, 4), Lock: "a", Token: r.Token}), OK) // gives back both
	b.holders("b", 0)
	b.holders("a", 1)
	b.holders("c", 0)
}

func TestShrunkSemaphoreDoesNotBlockItsLine(t *testing.T) {
	b := newBench(t)
	ask := func(once byte, permits, limit uint32, wait int64) Acquire {
		c := detached(once, "", 600*second, wait)
		c.Wants = []Want{{Lock: "c", Mode: Permits, Permits: permits, Limit: limit}}
		return c
	}
	first := b.want(b.one(0, ask(1, 2, 3, 0)), OK).Token
	greedy := ask(2, 3, 3, 600*second)
	b.want(b.one(0, greedy), Queued)
	b.want(b.one(0, ask(3, 1, 3, 600*second)), Queued)
	a := b.at(1, Resize{Lock: "c", Limit: 2})
	b.want(a.Results[0], OK)
	const told = "lock 1 of the request asks for 3 permits, and the semaphore was made smaller meanwhile: it has 2"
	if len(a.Events) != 2 || a.Events[0].Kind != EventResized || a.Events[0].Wants[0].Limit != 2 || a.Events[1].Result.Detail != told {
		t.Fatalf("events %+v, want the new size, and a wait that ended because %q", a.Events, told)
	}
	if copied := b.want(b.one(1, greedy), KindMismatch); copied.Detail != told {
		t.Fatalf("a copy of the request is told %+v, want %q", copied, told)
	}
	b.holders("c", 1) // nothing is taken away
	b.want(b.one(2, Release{Token: first}), OK)
	if v := b.table.Lock("c"); v.HolderCount != 1 || v.Waiters != 0 {
		t.Fatalf("semaphore %+v, want the waiter that fits as its holder and nobody stuck", v)
	}
}

func TestRevocationsAreToldUntilSeen(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	token := b.want(b.one(0, inSession(0, 1, 0, "a", "b")), OK).Token
	r := b.want(b.one(1, ForceRelease{Lock: "a", Reason: "stuck", Who: "ops"}), OK)
	if len(r.Holders) != 1 || r.Holders[0].Token != token {
		t.Fatalf("force-release: %+v, want token %d", r, token)
	}
	b.holders("b", 0)
	ask := func(seen uint64) []Revocation {
		return b.want(b.one(1, KeepAlive{Sessions: []KeepAliveSession{{genSession(0), seen}}}), OK).Alive[0].Revocations
	}
	want := []Revocation{{Number: 1, Token: token, Reason: "stuck", Who: "ops"}}
	if got := ask(0); !slices.Equal(got, want) {
		t.Fatalf("revocations %+v, want %+v", got, want)
	}
	if got := ask(0); !slices.Equal(got, want) {
		t.Fatalf("revocations asked again %+v, want %+v", got, want)
	}
	if got := ask(1); len(got) != 0 {
		t.Fatalf("revocations after they were seen: %+v", got)
	}
}

// Its answer would stand twice in the session's window, and no snapshot of the
// table could be restored.
func TestCancelOfItselfIsInvalid(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	b.want(b.one(0, Cancel{ID: seqID(0, 1), Target: seqID(0, 1)}), Invalid)
	b.want(b.one(0, Cancel{ID: seqID(0, 1), Target: seqID(0, 1)}), Invalid)
	sameTables(t, "restored", b.table, restore(t, snapshotBytes(t, b.table)))
}

func TestReleasedPermitsGoToAllWhomTheyAreEnoughFor(t *testing.T) {
	b := newBench(t)
	ask := func(once byte, permits uint32) Acquire {
		c := detached(once, "", 600*second, 600*second)
		c.Wants = []Want{{Lock: "c", Mode: Permits, Permits: permits, Limit: 4}}
		return c
	}
	first := b.want(b.one(0, ask(1, 4)), OK).Token
	for once, permits := range []uint32{1, 2, 1, 3, 1} {
		b.want(b.one(0, ask(byte(once+2), permits)), Queued)
	}
	a := b.at(1, Release{Token: first})
	if v := b.table.Lock("c"); v.HolderCount != 3 || v.Waiters != 2 || countKind(a, EventGranted) != 3 {
		t.Fatalf("semaphore %+v, want three holders and nobody past the one who wants 3", v)
	}
}

// After a mass end and a pause there is much to forget. A lock that is due then ends
// in the first entry all the same.
func TestForgettingKeepsNothingFromEndingInTime(t *testing.T) {
	b := newBench(t)
	b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 4, OnceNanos: second}})
	for i := range 40 {
		b.open(i, 5*second)
	}
	for countKind(b.at(5), EventSessionEnded) > 0 {
	}
	b.want(b.one(6, detached(1, "a", 2*second, 0)), OK)
	remembered := b.table.ended.len
	if a := b.at(8); countKind(a, EventExpired) != 1 || a.MoreDue {
		t.Errorf("with %d sessions to forget, at the end of a lock: %+v", remembered, a)
	}
	if left := b.table.ended.len; remembered < 30 || left != remembered-4 {
		t.Errorf("%d of %d sessions are left after one entry, want 4 fewer", left, remembered)
	}
}

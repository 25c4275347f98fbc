package fsm

import (
	"math"
	"testing"
)

// bench is a table that is driven by hand.
type bench struct {
	*testing.T
	table *Table
	index uint64
	term  uint64

	sequence uint64 // the last one in host that grab and share used
}

func newBench(t *testing.T) *bench { return &bench{T: t, table: hosted(), term: 1} }

// host is the session in which the tests send detached acquires. It outlives most of
// them: its deadline is far off.
var host = SessionID{0: 0xff, 15: 0xff}

const hostTTL = 24 * 3600 * second

func opensHost() Command { return OpenSession{Session: host, TTL: hostTTL} }

// hosted returns a table in which host is open, and nothing else.
func hosted() *Table {
	t := New()
	t.Apply(1, 1, encode(1, 0, 0, opensHost()))
	return t
}

// at applies commands stamped with seconds of cluster time.
func (b *bench) at(seconds float64, commands ...Command) Applied {
	b.Helper()
	return b.stamped(b.term, Instant(seconds*second), commands...)
}

func (b *bench) stamped(term uint64, stamp Instant, commands ...Command) Applied {
	b.Helper()
	b.index++
	a := b.table.Apply(b.index, b.term, encode(term, stamp, 0, commands...))
	if err := b.table.check(); err != nil {
		b.Fatalf("check after entry %d: %v", b.index, err)
	}
	return a
}

// one applies a single command and returns its result.
func (b *bench) one(seconds float64, c Command) Result {
	b.Helper()
	a := b.at(seconds, c)
	if len(a.Results) != 1 {
		b.Fatalf("apply %+v: %+v", c, a)
	}
	return a.Results[0]
}

func (b *bench) want(r Result, code Code) Result {
	b.Helper()
	if r.Code != code {
		b.Fatalf("code %d (%s %s), want %d", r.Code, r.Field, r.Detail, code)
	}
	return r
}

func (b *bench) holders(lock string, want int) {
	b.Helper()
	if v := b.table.Lock(lock); v.HolderCount != want {
		b.Fatalf("lock %q has %d holders, want %d", lock, v.HolderCount, want)
	}
}

// grab is a detached acquire whose answer has come.
func (b *bench) grab(lock string, ttl int64) Acquire {
	b.sequence++
	return Acquire{
		ID:    RequestID{Session: host, Sequence: b.sequence, Acked: b.sequence - 1},
		Wants: exclusive(lock), TTL: ttl, Detached: true,
	}
}

// detached is the first try of a once ID.
func detached(once byte, lock string, ttl, wait int64) Acquire {
	return Acquire{
		ID:    RequestID{Session: host, Sequence: 1000 + uint64(once), Once: OnceID{once}},
		Wants: []Want{{Lock: lock, Mode: Exclusive}}, TTL: ttl, Wait: wait, Detached: true,
	}
}

func inSession(i int, sequence uint64, wait int64, locks ...string) Acquire {
	c := Acquire{ID: RequestID{Session: genSession(i), Sequence: sequence}, Wait: wait}
	for _, lock := range locks {
		c.Wants = append(c.Wants, Want{Lock: lock, Mode: Exclusive})
	}
	return c
}

// The directed test of T3. Leader A stamps an entry and is held up before the
// append; it loses and gains leadership, and the entry is stored in the later
// term with a stamp from a clock that ran ahead. Without the term check the
// second client gets the lock long before the first one's TTL has passed.
func TestStampFromAnotherTermIsRefused(t *testing.T) {
	for _, stampedIn := range []uint64{0, 4, 6, math.MaxUint64} {
		b := newBench(t)
		b.term = 5
		b.want(b.one(1, detached(1, "a", 10*second, 0)), OK)
		before := b.table.Hash()
		a := b.stamped(stampedIn, 12*second, detached(2, "a", 10*second, 0))
		if a.Refused != StaleStamp || len(a.Results) != 0 || len(a.Events) != 0 || a.Now != second {
			t.Fatalf("entry stamped in term %d, stored in term 5: %+v", stampedIn, a)
		}
		if got := b.table.Lock("a"); got.HolderCount != 1 || got.Holders[0].Token != 1 {
			t.Fatalf("holders after the stale stamp: %+v", got)
		}
		if b.table.Now() != second {
			t.Fatalf("stale stamp moved time to %d", b.table.Now())
		}
		// The same entry, proposed again with a stamp of this term, is fine.
		b.want(b.one(2, detached(2, "a", 10*second, 0)), Busy)
		_ = before
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	b := newBench(t)
	b.at(5)
	for _, stamp := range []Instant{4 * second, 0, -1, math.MinInt64} {
		if a := b.stamped(1, stamp); a.Now != 5*second || b.table.Now() != 5*second {
			t.Fatalf("stamp %d after %d: now %d", stamp, int64(5*second), a.Now)
		}
	}
	if r := b.want(b.one(1, detached(1, "a", 2*second, 0)), OK); r.Deadline != 7*second || r.Granted != 5*second {
		t.Fatalf("acquire with an old stamp: %+v, want it to count from 5 s", r)
	}
}

// A renewal that stands earlier in the log than the stamp that would end the
// grant wins, in its own entry too as long as its stamp is before the deadline.
func TestRenewalEarlierInTheLogWinsOverExpiry(t *testing.T) {
	b := newBench(t)
	token := b.want(b.one(0, detached(1, "a", 2*second, 0)), OK).Token
	b.stampedRenew(2*second-1, token, OK)
	b.at(3)
	b.holders("a", 1)
	b.stampedRenew(4*second-2, token, OK)
	b.stampedRenew(6*second-2, token, NotHeld) // due at exactly this stamp
	b.holders("a", 0)
}

func (b *bench) stampedRenew(stamp Instant, token uint64, want Code) {
	b.Helper()
	a := b.stamped(1, stamp, Renew{Token: token, TTL: 2 * second})
	b.want(a.Results[0], want)
}

func TestKeepAliveEarlierInTheLogWinsOverExpiry(t *testing.T) {
	b := newBench(t)
	b.one(0, OpenSession{Session: genSession(0), TTL: 2 * second})
	b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
	b.stamped(1, 2*second-1, KeepAlive{Sessions: []KeepAliveSession{{Session: genSession(0)}}})
	b.at(3)
	b.holders("a", 1)
	a := b.stamped(1, 4*second-1, KeepAlive{Sessions: []KeepAliveSession{{Session: genSession(0)}}})
	if a.Results[0].Alive[0].Deadline != 0 {
		t.Fatalf("keep-alive stamped at the deadline: %+v, want no session", a.Results[0])
	}
	b.holders("a", 0)
}

func TestDeadlineNeverMovesBack(t *testing.T) {
	b := newBench(t)
	token := b.want(b.one(0, detached(1, "a", 60*second, 0)), OK).Token
	r := b.want(b.one(1, Renew{Token: token, TTL: second}), OK)
	if r.Deadline != 60*second {
		t.Fatalf("renewal with a smaller TTL moved the deadline to %d", r.Deadline)
	}
	b.at(59)
	b.holders("a", 1)
	b.at(60)
	b.holders("a", 0)
	b.want(b.one(60, Renew{Token: token, TTL: second}), NotHeld)
	b.want(b.one(60, Release{Token: token}), NotHeld)
}

func TestNothingEndsWhileNothingIsStamped(t *testing.T) {
	b := newBench(t)
	b.want(b.one(100, detached(1, "a", second, 0)), OK)
	for range 50 { // entries of leaders that have just taken over: the clock starts again at now
		b.at(100)
	}
	b.holders("a", 1)
}

// A waiter that is due is not granted what the same entry frees.
func TestExpiredWaiterIsNotGranted(t *testing.T) {
	for _, limits := range []Limits{{}, {ExpiriesPerEntry: 1}} {
		b := newBench(t)
		b.one(0, Configure{Limits: limits})
		b.one(0, OpenSession{Session: genSession(0), TTL: 4 * second})
		b.want(b.one(0, detached(1, "a", 3*second, 0)), OK)
		b.want(b.one(0, detached(2, "a", 9*second, 4*second)), Queued)
		b.want(b.one(0, inSession(0, 1, -1, "a")), Queued)
		b.want(b.one(0, detached(3, "a", 9*second, 9*second)), Queued)
		a := b.at(5)
		for a.MoreDue {
			a = b.at(5)
		}
		v := b.table.Lock("a")
		if v.HolderCount != 1 || v.Waiters != 0 || v.Holders[0].Token != 2 {
			t.Fatalf("limits %+v: lock %+v, want the third waiter as the only second grant", limits, v)
		}
		b.want(b.one(5, detached(2, "a", 9*second, 4*second)), TimedOut)
		b.want(b.one(5, detached(3, "a", 9*second, 9*second)), OK)
	}
}

func TestEqualDeadlinesEndInTheOrderInWhichTheyCame(t *testing.T) {
	b := newBench(t)
	for i := range byte(5) {
		b.want(b.one(0, detached(i+1, string('a'+rune(i)), 2*second, 0)), OK)
	}
	a := b.at(2)
	for i, e := range a.Events {
		if e.Kind != EventExpired || e.Token != uint64(i+1) {
			t.Fatalf("event %d: %+v, want token %d expired", i, e, i+1)
		}
	}
	if len(a.Events) != 5 {
		t.Fatalf("%d events, want 5", len(a.Events))
	}
}

func TestMassExpiryIsCutAndGoesOn(t *testing.T) {
	b := newBench(t)
	b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 3}})
	for i := range byte(7) {
		b.want(b.one(0, detached(i, string('a'+rune(i)), 2*second, 0)), OK)
	}
	for _, want := range []struct {
		ended int
		more  bool
	}{{3, true}, {3, true}, {1, false}, {0, false}} {
		a := b.at(10)
		if len(a.Events) != want.ended || a.MoreDue != want.more {
			t.Fatalf("%d ended, more %v; want %d, %v", len(a.Events), a.MoreDue, want.ended, want.more)
		}
	}
}

func TestTimesStopAtTheEndOfTime(t *testing.T) {
	b := newBench(t)
	b.one(0, OpenSession{Session: genSession(0), TTL: 24 * 3600 * second})
	b.want(b.one(0, inSession(0, 1, 0, "a")), OK)
	b.want(b.one(0, inSession(0, 2, math.MaxInt64, "a")), Queued)
	b.stamped(1, 3600*second)
	b.want(b.one(3600, inSession(0, 3, math.MaxInt64, "a")), Queued)
	if v := b.table.Lock("a"); v.Waiters != 2 {
		t.Fatalf("lock %+v, want both waiters", v)
	}
	b.table.now = math.MaxInt64 - 1 // as if the time had gone by
	b.stamped(1, math.MaxInt64)     // all sessions end
	c := detached(1, "a", 2*second, 0)
	c.ID.Session = genSession(1)
	a := b.stamped(1, math.MaxInt64, OpenSession{Session: genSession(1), TTL: second}, c)
	b.want(a.Results[1], OK)
	if at := a.Results[1].Deadline; at != math.MaxInt64 {
		t.Fatalf("deadline at the end of time: %d", at)
	}
}

// The two delays end at the same time and come from the same grant; a cut must
// not make a restored table end the other one first.
func TestDelaysOfOneGrantEndInTheSameOrderEverywhere(t *testing.T) {
	for _, locks := range [][]string{{"b", "a", "c"}, {"a", "b", "c"}, {"c", "b", "a"}} {
		b := newBench(t)
		b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 1}})
		ask := b.grab("", second)
		ask.Wants, ask.Delay = nil, second
		for _, lock := range locks {
			ask.Wants = append(ask.Wants, Want{Lock: lock, Mode: Exclusive})
		}
		b.want(b.one(0, ask), OK)
		b.at(1)
		other := restore(t, snapshotBytes(t, b.table))
		for range 3 {
			b.at(2)
			other.Apply(b.index, 1, encode(1, 2*second, 0))
			sameTables(t, "wanted in the order "+locks[0]+locks[1]+locks[2], b.table, other)
		}
		if n := b.table.Stats().Locks; n != 0 {
			t.Fatalf("%d locks left, want none", n)
		}
	}
}

// What does not fit 32 bits must be refused where an int has 64 bits and where
// it has 32.
func TestLimitsBeyond32BitsAreRefusedEverywhere(t *testing.T) {
	payload := []byte{byte(KindConfigure)}
	payload = append(payload, 0x8a, 0x80, 0x80, 0x80, 0x20) // zigzag of 1<<32 + 5
	for range firstLimits - 1 {
		payload = append(payload, 0)
	}
	data := AppendHeader(nil, 1, 0, 0, 1)
	data = append(append(data, byte(len(payload))), payload...)
	a := New().Apply(1, 1, data)
	if len(a.Results) != 1 || a.Results[0].Code != Invalid {
		t.Fatalf("name_bytes of 1<<32 + 5: %+v, want Invalid", a)
	}
}

// A session that was due, but not ended by a mass expiry that was cut, was
// passed over when its lock became free. If it is kept alive after all, its
// waiter has its turn.
func TestWaiterOfARevivedSessionHasItsTurn(t *testing.T) {
	for _, revive := range []Command{
		KeepAlive{Sessions: []KeepAliveSession{{Session: genSession(0)}}},
		OpenSession{Session: genSession(0), TTL: 5 * second},
	} {
		b := newBench(t)
		b.one(0, Configure{Limits: Limits{ExpiriesPerEntry: 1}})
		b.open(0, 5*second)
		b.want(b.one(0, detached(1, "a", 2*second, 0)), OK)
		b.want(b.one(0, inSession(0, 1, -1, "a")), Queued)
		a := b.at(6, revive) // one thing ends, the grant; then the session is kept alive
		if v := b.table.Lock("a"); !a.MoreDue || v.HolderCount != 1 || v.Waiters != 0 {
			t.Fatalf("after %+v: more due %v, lock %+v; want the waiter to hold it", revive, a.MoreDue, v)
		}
	}
}

// No entry brings cluster time to its end: one whose stamp is implausibly far ahead changes
// nothing.
func TestStampsThatAreImplausiblyFarAheadAreRefused(t *testing.T) {
	for _, stamp := range []Instant{math.MaxInt64, math.MaxInt64 / 2, Instant(second + maxStep + 1)} {
		b := newBench(t)
		b.want(b.one(1, b.grab("a", 60*second)), OK)
		a := b.stamped(b.term, stamp, b.grab("b", 60*second))
		if a.Refused != Malformed || len(a.Results) != 0 || len(a.Events) != 0 || a.Now != second {
			t.Errorf("stamp %d: %+v", stamp, a)
		}
		b.holders("a", 1)
		b.want(b.one(2, b.grab("b", 60*second)), OK)
	}
}

package fsm

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// What a session remembers of its requests, and for how long.

// One request waits for long, and thousands of others are answered behind it: what
// frees a lock is not refused because of that.
func TestLongWaitKeepsNothingFromBeingReleased(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{RequestsWindow: 100}}), OK)
	b.open(0, 600*second)
	b.want(b.one(0, detached(1, "hot", 600*second, 0)), OK)
	token := b.want(b.one(0, inSession(0, 1, 0, "mine")), OK).Token
	waits := inSession(0, 2, -1, "hot")
	b.want(b.one(0, waits), Queued)
	index := b.index
	sequence := uint64(2)
	for range 1000 {
		sequence++
		index++
		c := SetValue{ID: RequestID{Session: genSession(0), Sequence: sequence, Acked: 1}, Token: token, Value: []byte("v")}
		if r := b.table.Apply(index, 1, encode(1, 0, 0, c)).Results[0]; r.Code != OK {
			t.Fatalf("request %d behind the wait: %+v", sequence, r)
		}
	}
	if err := b.table.check(); err != nil {
		t.Fatal(err)
	}
	s, _ := b.table.Session(genSession(0))
	if s.Answers > 100+100/8+1 || s.Answers < 100 {
		t.Fatalf("%d answers are remembered", s.Answers)
	}
	b.reload()
	b.want(b.one(1, SetValue{ID: seqID(0, 10), Token: token, Value: []byte("v")}), StaleRequest) // long forgotten
	b.want(b.one(1, SetValue{ID: seqID(0, sequence), Token: token, Value: []byte("v")}), OK)     // not forgotten
	b.want(b.one(1, Release{ID: seqID(0, sequence+1), Token: token}), OK)
	b.want(b.one(1, waits), Queued) // it has kept its place, and its answer
	b.want(b.one(1, Release{Token: 1}), OK)
	b.want(b.one(1, waits), OK)
}

// A copy of a request whose answer was forgotten never runs.
func TestForgottenAnswerIsStale(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{RequestsWindow: 2}}), OK)
	b.open(0, 600*second)
	for q := uint64(1); q <= 3; q++ {
		b.want(b.one(0, inSession(0, q, 0, fmt.Sprint(q))), OK)
	}
	b.reload()
	b.want(b.one(0, inSession(0, 1, 0, "1")), StaleRequest)
	b.want(b.one(0, inSession(0, 2, 0, "2")), OK)
	b.want(b.one(0, Cancel{Target: seqID(0, 1)}), OK) // its grant is there
	b.holders("1", 0)
	b.want(b.one(0, Cancel{Target: seqID(0, 1)}), NotHeld)
	// A cancel that came first counts as an answer, and as one is not forgotten as if
	// it had never been.
	b.want(b.one(0, Cancel{Target: seqID(0, 9)}), OK)
	b.want(b.one(0, inSession(0, 10, 0, "10")), OK)
	b.want(b.one(0, inSession(0, 11, 0, "11")), OK)
	b.want(b.one(0, inSession(0, 9, 0, "9")), StaleRequest)
	b.holders("9", 0)
}

// What is answered behind a request that waits is acknowledged in spans.
func TestAnsweredBehindAWaitIsForgotten(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(1, "a", 600*second, 0)), OK)
	b.want(b.one(0, inSession(0, 1, -1, "a")), Queued)
	for q := uint64(2); q <= 9; q++ {
		b.want(b.one(0, inSession(0, q, 0, fmt.Sprint(q))), OK)
	}
	answers := func(want ...uint64) {
		t.Helper()
		s, _ := b.table.sessions.get(genSession(0))
		var got []uint64
		for _, a := range s.window {
			got = append(got, a.sequence)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("answers %d, want %d; acknowledged %+v", got, want, s.acked)
		}
	}
	ask := func(sequence uint64, acked uint64, spans ...Span) {
		t.Helper()
		c := Release{ID: RequestID{Session: genSession(0), Sequence: sequence, Acked: acked}, Token: 99}
		copy(c.ID.Answered[:], spans)
		b.want(b.one(1, c), NotHeld)
		b.reload()
	}
	ask(10, 0, Span{2, 4}, Span{7, 8})
	answers(1, 5, 6, 9, 10)
	for q, want := range map[uint64]Code{2: StaleRequest, 4: StaleRequest, 5: OK, 7: StaleRequest, 9: OK, 1: Queued} {
		wait := int64(0)
		if q == 1 {
			wait = -1
		}
		lock := fmt.Sprint(q)
		if q == 1 {
			lock = "a"
		}
		b.want(b.one(1, inSession(0, q, wait, lock)), want)
	}
	ask(11, 0, Span{5, 6}, Span{3, 2}) // the second is none
	answers(1, 9, 10, 11)
	ask(12, 0, Span{9, 11}, Span{13, math.MaxUint64 - 1})
	answers(1, 12)
	b.want(b.one(1, inSession(0, 13, 0, "13")), StaleRequest) // it said that it has the answer
	// The request at the head is answered, and acknowledged as all others.
	b.want(b.one(2, Release{Token: held.Token}), OK)
	b.want(b.one(2, inSession(0, 1, -1, "a")), OK)
	ask(math.MaxUint64, 1, Span{12, 12})
	answers(math.MaxUint64)
	if s, _ := b.table.sessions.get(genSession(0)); s.acked.upTo != math.MaxUint64-1 || len(s.acked.above) != 0 {
		t.Fatalf("acknowledged %+v, want all but the last", s.acked)
	}
}

// A request that waits is answered, whatever was said of its sequence meanwhile.
func TestWaitKeepsItsAnswerUntilItHasOne(t *testing.T) {
	b := newBench(t)
	b.open(0, 600*second)
	held := b.want(b.one(0, detached(1, "a", 600*second, 0)), OK)
	b.want(b.one(0, inSession(0, 1, -1, "a")), Queued)
	c := inSession(0, 3, 0, "c")
	c.ID.Acked = 2
	b.want(b.one(0, c), OK)
	b.reload()
	b.want(b.one(0, inSession(0, 1, -1, "a")), Queued)
	b.want(b.one(0, inSession(0, 2, 0, "b")), StaleRequest)
	b.want(b.one(1, Release{Token: held.Token}), OK)
	b.want(b.one(1, inSession(0, 1, -1, "a")), OK)
	c = inSession(0, 4, 0, "d")
	c.ID.Acked = 2
	b.want(b.one(1, c), OK)
	b.want(b.one(1, inSession(0, 1, -1, "a")), StaleRequest)
}

// The gaps between what is acknowledged are bounded: the lowest is closed.
func TestGapsAreBounded(t *testing.T) {
	b := newBench(t)
	b.want(b.one(0, Configure{Limits: Limits{RequestsWindow: 3}}), OK)
	b.open(0, 600*second)
	b.want(b.one(0, detached(1, "a", 600*second, 0)), OK)
	b.want(b.one(0, inSession(0, 2, -1, "a")), Queued)
	for q := uint64(10); q < 20; q += 2 { // 11, 13, … never come
		c := inSession(0, q, 0, fmt.Sprint(q))
		c.ID.Answered[0] = Span{q - 2, q - 2}
		b.want(b.one(0, c), OK)
	}
	s, _ := b.table.sessions.get(genSession(0))
	if want := []Span{{12, 12}, {14, 14}, {16, 16}}; s.acked.upTo != 10 || !slices.Equal(s.acked.above, want) {
		t.Fatalf("acknowledged %+v, want up to 10 and %v", s.acked, want)
	}
	b.reload()
	b.want(b.one(1, inSession(0, 1, 0, "1")), StaleRequest)
	b.want(b.one(1, inSession(0, 9, 0, "9")), StaleRequest)
	b.want(b.one(1, inSession(0, 2, -1, "a")), Queued)
	b.want(b.one(1, inSession(0, 11, 0, "11")), OK)
}

// A session that ended is remembered for its time, however many end.
func TestEndedSessionsAreNeverForgottenEarly(t *testing.T) {
	b := newBench(t)
	for i := range 8 {
		b.open(i, 5*second)
	}
	b.one(0, Configure{Limits: Limits{EndedRemembered: 3}})
	if a := b.at(5); countKind(a, EventSessionEnded) != 8 || b.table.ended.len != 8 {
		t.Fatalf("%d sessions ended, %d remembered, want 8 and 8", countKind(a, EventSessionEnded), b.table.ended.len)
	}
	b.reload()
	for i := range 8 {
		b.want(b.one(5, OpenSession{Session: genSession(i), TTL: second}), NoSession)
	}
	if r := b.want(b.one(5, OpenSession{Session: genSession(8), TTL: second}), OverLimit); r.Field != "ended_remembered" {
		t.Fatalf("another session: %+v", r)
	}
	b.want(b.one(5, opensHost()), OK) // it is open: a keep-alive
	b.want(b.one(304.9, OpenSession{Session: genSession(8), TTL: second}), OverLimit)
	b.want(b.one(305, OpenSession{Session: genSession(8), TTL: second}), OK)
	b.want(b.one(305, OpenSession{Session: genSession(0), TTL: second, Owner: "10.0.0.2"}), OK) // forgotten in time
}

// The same bytes may be a session's ID and a once ID.
func TestEndedSessionIsNoAnswerToAOnceID(t *testing.T) {
	b := newBench(t)
	id := genSession(0)
	b.open(0, 60*second)
	b.want(b.one(1, EndSession{Session: id}), OK)
	ask := detached(1, "a", 60*second, 0)
	ask.ID.Once = OnceID(id)
	b.want(b.one(1, ask), OK)
	b.holders("a", 1)
	b.want(b.one(1, OpenSession{Session: id, TTL: second}), NoSession)
}

// Sets of sequences, against a plain list of all of them.
func TestSequences(t *testing.T) {
	for seed := range uint64(200) {
		src := &byteSource{pseudoRandom(seed+1, 400)}
		var q sequences
		var plain [64]bool // plain[0] belongs to it always
		plain[0] = true
		for range 30 {
			first := uint64(src.pick(60, "first") + 1)
			last := min(first+uint64(src.pick(6, "last")), 63)
			covered := q.covers(Span{first, last})
			all := true
			for i := first; i <= last; i++ {
				all = all && plain[i]
				plain[i] = true
			}
			if covered != all {
				t.Fatalf("seed %d: %+v covers %d to %d: %v", seed, q, first, last, covered)
			}
			q.add(Span{first, last})
			if most := src.pick(12, "most"); most > 0 {
				q.bound(most)
				for i := range plain {
					plain[i] = plain[i] || uint64(i) <= q.upTo
				}
				if len(q.above) > most {
					t.Fatalf("seed %d: %+v, want at most %d spans", seed, q, most)
				}
			}
			for i := range plain {
				if q.has(uint64(i)) != plain[i] {
					t.Fatalf("seed %d: %+v has %d: %v", seed, q, i, q.has(uint64(i)))
				}
			}
		}
	}
}

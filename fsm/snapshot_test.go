package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// fullTable has, in numbers that need several blocks, something of everything:
// all modes, waiters, several locks in a request, delays, values, revocations,
// answers with holders and refusals, records of all kinds, sessions that have ended.
func fullTable(tb testing.TB, scale int) (*Table, uint64) {
	tb.Helper()
	t, index := New(), uint64(0)
	apply := func(stamp Instant, commands ...Command) {
		index++
		if a := t.Apply(index, 1, encode(1, stamp, int64(index), commands...)); a.Refused != OK {
			tb.Fatalf("refused: %d", a.Refused)
		}
	}
	for i := range scale {
		id, rival := benchSession(2*i), benchSession(2*i+1)
		name := func(s string) string { return fmt.Sprintf("%s/%d", s, i*7919%scale) }
		in := func(s SessionID, q uint64) RequestID { return RequestID{Session: s, Sequence: q} }
		under := func(once int, id RequestID) RequestID {
			id.Once = OnceID(benchSession(once))
			return id
		}
		apply(0,
			OpenSession{Session: id, TTL: 60 * second, Holder: "ann", Labels: []Label{{"zone", "x"}}},
			OpenSession{Session: rival, TTL: 30 * second, Holder: "bob"},
			Acquire{ID: in(id, 1), Wants: exclusive(name("a")), Value: bytes.Repeat([]byte("v"), i%300)},
			Acquire{ID: in(rival, 1), Wants: exclusive(name("a")), Wait: -1},
			Acquire{ID: in(rival, 2), Wants: exclusive(name("a"))},
			Acquire{ID: in(rival, 3), Wants: exclusive(""), Wait: -1},
			Acquire{ID: in(id, 2), Wants: []Want{{Lock: name("r"), Mode: Shared}, {Lock: name("s"), Mode: Permits, Permits: 2, Limit: 3}}},
			Acquire{ID: in(rival, 4), Wants: []Want{{Lock: name("r"), Mode: Shared}}},
			Acquire{ID: in(rival, 5), Wants: []Want{{Lock: name("s"), Mode: Permits, Permits: 3, Limit: 3}, {Lock: name("r"), Mode: Exclusive}}, Wait: 20 * second},
			Acquire{ID: in(id, 3), Wants: exclusive(name("gone"))},
			ForceRelease{ID: in(rival, 6), Lock: name("gone"), Reason: "stuck", Who: "ops"},
			Cancel{ID: in(id, 4), Target: in(id, 9)},
			Acquire{ID: under(i, in(id, 10)), Wants: exclusive(name("d")), TTL: 3 * second, Delay: 10 * second, Holder: "curl", Detached: true},
			Acquire{ID: under(i+scale, in(id, 11)), Wants: exclusive(name("d")), TTL: 3 * second, Wait: 15 * second, Detached: true},
			Acquire{ID: under(i+scale, in(rival, 11)), Wants: exclusive(name("d")), TTL: 3 * second, Wait: 25 * second, Detached: true},
			Acquire{ID: in(id, 12), Wants: exclusive(name("d")), TTL: 3 * second, Wait: 15 * second, Detached: true},
			Acquire{ID: under(i+2*scale, in(id, 13)), Wants: exclusive(name("e")), TTL: 30 * second, Value: []byte("e"), Detached: true},
			Acquire{ID: under(i+2*scale, in(rival, 13)), Wants: exclusive(name("e")), TTL: 30 * second, Value: []byte("e"), Detached: true},
			Release{ID: RequestID{Session: rival, Sequence: 16, Answered: [2]Span{{2, 2}, {13, 14}}}, Token: 1 << 50},
			OpenSession{Session: benchSession(i + 2*scale), TTL: 10 * second},
			EndSession{Session: benchSession(i + 2*scale)},
		)
	}
	apply(5 * second)
	apply(5*second, Found{Cluster: [16]byte{7}}, Configure{Limits: Limits{Labels: 7}})
	if err := t.check(); err != nil {
		tb.Fatal(err)
	}
	return t, index
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, scale := range []int{0, 1, 500} {
		table, index := fullTable(t, scale)
		data := snapshotBytes(t, table)
		if scale == 500 && len(data) < 3*blockSize {
			t.Fatalf("snapshot of %d bytes: want several blocks", len(data))
		}
		for name, r := range map[string]*Table{
			"whole":     restore(t, data),
			"in halves": mustRestore(t, iotest.HalfReader(bytes.NewReader(data))),
			"by bytes":  mustRestore(t, iotest.OneByteReader(bytes.NewReader(data))),
		} {
			sameTables(t, name, table, r)
			if table.Stats() != r.Stats() || table.Now() != r.Now() || table.Cluster() != r.Cluster() {
				t.Fatalf("%s: stats %+v, want %+v", name, r.Stats(), table.Stats())
			}
			// Both live on alike, to the last deadline.
			live := restore(t, data)
			for i := range uint64(80) {
				entry := encode(1, Instant(i+5)*second, 0, everyCommand()...)
				if a, b := live.Apply(index+1+i, 1, entry), r.Apply(index+1+i, 1, entry); a.Digest != b.Digest {
					t.Fatalf("%s: digests differ %d entries on", name, i)
				}
			}
			sameTables(t, name+", later", live, r)
		}
	}
}

func mustRestore(t *testing.T, r interface{ Read([]byte) (int, error) }) *Table {
	t.Helper()
	table, err := Restore(r)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// The order in which things came to be leaves no trace where it makes no
// difference to what they are.
func TestSnapshotIsCanonical(t *testing.T) {
	quiet, busy := hosted(), hosted()
	keep := detached(1, "kept", 900*second, 0)
	quiet.Apply(1, 1, encode(1, 0, 0, keep))
	busy.Apply(1, 1, encode(1, 0, 0, keep))
	for i := range byte(20) { // several of each kind of record
		c := detached(2+i, "", 900*second, 0)
		c.Wants = []Want{{Lock: fmt.Sprint("kept", i), Mode: Permits, Permits: 1, Limit: 2}}
		more := []Command{OpenSession{Session: SessionID{i, 1}, TTL: 900 * second}, c}
		quiet.Apply(1, 1, encode(1, 0, 0, more...))
		busy.Apply(1, 1, encode(1, 0, 0, more...))
	}
	for i := range 2000 { // splits and merges nodes, moves the heap about
		c := Acquire{
			ID: RequestID{Session: host, Sequence: 5000 + uint64(i)}, Wants: exclusive(fmt.Sprint(i)), TTL: 9 * second, Detached: true,
		}
		token := busy.Apply(2, 1, encode(1, 0, 0, c)).Results[0].Token
		if i%3 == 0 {
			busy.Snapshot()
		}
		busy.Apply(3, 1, encode(1, 0, 0, Release{Token: token}))
	}
	ack := Renew{ID: RequestID{Session: host, Sequence: 9000, Answered: [2]Span{{5000, 8999}}}, TTL: second}
	quiet.Apply(4, 1, encode(1, 0, 0, ack))
	busy.Apply(4, 1, encode(1, 0, 0, ack))
	quiet.lastToken, quiet.lastNumber = busy.lastToken, busy.lastNumber
	quiet.index, quiet.digest = busy.index, busy.digest
	if !bytes.Equal(snapshotBytes(t, quiet), snapshotBytes(t, busy)) {
		t.Fatal("the past shows in the snapshot")
	}
}

// A snapshot is the table at the moment it was taken, whatever is applied while
// it is written. Run with -race.
func TestSnapshotIsIsolated(t *testing.T) {
	table, index := fullTable(t, 300)
	var wg sync.WaitGroup
	for round := range uint64(6) {
		want := snapshotBytes(t, table)
		s := table.Snapshot()
		for range 2 {
			wg.Go(func() {
				var got bytes.Buffer
				if n, err := s.WriteTo(&got); err != nil || n != int64(got.Len()) {
					t.Errorf("write: %d, %v", n, err)
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("round %d: the snapshot changed", round)
				}
			})
		}
		for i := range uint64(40) {
			index++
			var commands []Command
			for k := range 20 {
				s := benchSession(int(i)*7 + k)
				q := round*1000 + i*20 + uint64(k) + 10
				name := fmt.Sprintf("a/%d", (int(i)*11+k)%300)
				commands = append(commands,
					KeepAlive{Sessions: []KeepAliveSession{{s, 0}}},
					Acquire{ID: RequestID{Session: s, Sequence: q, Acked: q - 5}, Wants: exclusive(name), Wait: -1},
					ForceRelease{Lock: name, Reason: "again"},
					SetValue{Token: uint64(int(i)*5 + k), Value: []byte("new")},
				)
			}
			table.Apply(index, 1, encode(1, Instant(round)*5*second, 0, commands...))
		}
		if err := table.check(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// Any flipped bit, cut or addition is an error, and never a panic.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	table, _ := fullTable(t, 2)
	data := snapshotBytes(t, table)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d of %d flipped: no error", i, len(data))
		}
		if _, err := Restore(bytes.NewReader(data[:i])); err == nil {
			t.Fatalf("cut to %d of %d bytes: no error", i, len(data))
		}
	}
	for name, bad := range map[string][]byte{
		"more bytes":      append(bytes.Clone(data), 0),
		"another version": append([]byte(snapshotMagic+"\x02"), data[9:]...),
		"another file":    []byte("PK\x03\x04 something else"),
		"a huge block":    append([]byte(snapshotMagic+"\x01"), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0),
		"a long block":    append([]byte(snapshotMagic+"\x01"), 0x03, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3),
	} {
		var err error
		if n := allocated(func() { _, err = Restore(bytes.NewReader(bad)) }); n > allowance(len(bad)) {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "restore snapshot: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	broken := errors.New("disk on fire")
	if _, err := Restore(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("reader's error: %v", err)
	}
	if _, err := Restore(iotest.DataErrReader(iotest.TimeoutReader(bytes.NewReader(data)))); err == nil {
		t.Error("a reader that fails in the middle: no error")
	}
}

// Blocks that are sound one by one, in another order.
func TestExchangedBlocksAreRefused(t *testing.T) {
	table, _ := fullTable(t, 500)
	data := snapshotBytes(t, table)
	var blocks [][]byte
	for rest := data[9:]; len(rest) > 0; {
		size := 8 + int(rest[0])<<24 + int(rest[1])<<16 + int(rest[2])<<8 + int(rest[3])
		blocks = append(blocks, rest[:size])
		rest = rest[size:]
	}
	if len(blocks) < 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	join := func(blocks ...[]byte) []byte { return append(bytes.Clone(data[:9]), bytes.Join(blocks, nil)...) }
	last := len(blocks) - 1
	for name, bad := range map[string][]byte{
		"exchanged": join(append([][]byte{blocks[0], blocks[2], blocks[1]}, blocks[3:]...)...),
		"lost":      join(append([][]byte{blocks[0]}, blocks[2:]...)...),
		"doubled":   join(append([][]byte{blocks[0], blocks[1], blocks[1]}, blocks[2:]...)...),
		"no end":    join(blocks[:last]...),
		"end twice": join(append(blocks[:last:last], blocks[last], blocks[last])...),
	} {
		if _, err := Restore(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// failingWriter takes so many bytes.
type failingWriter struct{ left int }

var errFull = errors.New("no space left")

func (w *failingWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		n := w.left
		w.left = 0
		return n, errFull
	}
	w.left -= len(p)
	return len(p), nil
}

func TestWriteErrorIsReturned(t *testing.T) {
	table, _ := fullTable(t, 500)
	size := len(snapshotBytes(t, table))
	for _, room := range []int{0, 5, blockSize, size / 2, size - 1} {
		if _, err := table.Snapshot().WriteTo(&failingWriter{room}); !errors.Is(err, errFull) {
			t.Errorf("%d of %d bytes: error %v", room, size, err)
		}
	}
	if n, err := table.Snapshot().WriteTo(&failingWriter{size}); err != nil || n != int64(size) {
		t.Errorf("enough room: %d, %v", n, err)
	}
}

// corruptions break one invariant each, without a trace in the checksums.
var corruptions = map[string]func(t *Table){
	"negative time":               func(t *Table) { t.now = -1 },
	"tokens beyond 2^53":          func(t *Table) { t.lastToken = maxToken + 1 },
	"a token above the last":      func(t *Table) { t.lastToken = 1 },
	"a number above the last":     func(t *Table) { t.lastNumber = 3 },
	"a limit of zero":             func(t *Table) { t.limits.MaxWait = 0 },
	"a limit out of range":        func(t *Table) { t.limits.NameBytes = 1 << 30 },
	"two holders alone":           func(t *Table) { waiterOf(t).token = t.lastToken },
	"a token twice":               func(t *Table) { w := waiterOf(t); w.token, w.granted = holderOf(t).token, t.now },
	"a request without a session": func(t *Table) { holderOf(t).session = SessionID{9, 9, 9} },
	"a request without locks":     func(t *Table) { holderOf(t).wants = nil },
	"a lock twice":                func(t *Table) { r := holderOf(t); r.wants = append(r.wants[:1:1], r.wants[0]) },
	"an unknown mode":             func(t *Table) { holderOf(t).wants[0].Mode = 9 },
	"permits of a mutex":          func(t *Table) { holderOf(t).wants[0].Permits = 1 },
	"granted before it was asked": func(t *Table) { holderOf(t).queued = t.now + 1 },
	"a session without a TTL":     func(t *Table) { sessionOf(t).ttl = 0 },
	"a session for ever":          func(t *Table) { sessionOf(t).deadline = 1 << 62 },
	"two sessions of a number":    func(t *Table) { sessionOf(t).number = holderOf(t).number },
	"acknowledged twice":          func(t *Table) { sessionOf(t).acked = sequences{7, []Span{{7, 9}}} },
	"acknowledged backwards":      func(t *Table) { sessionOf(t).acked = sequences{7, []Span{{12, 11}}} },
	"acknowledged without a gap":  func(t *Table) { sessionOf(t).acked = sequences{7, []Span{{9, 10}, {11, 11}}} },
	"answers out of order":        func(t *Table) { s := sessionOf(t); s.window[0], s.window[1] = s.window[1], s.window[0] },
	"an answer of another token":  func(t *Table) { sessionOf(t).window[0].token++ },
	"an unknown reason":           func(t *Table) { sessionOf(t).window[0].more = &answerMore{refusal: refusal{why: reasonsEnd}} },
	"a revocation unheard of":     func(t *Table) { s := sessionOf(t); s.revocations = []Revocation{{Number: s.revoked + 1}} },
	"a delay of no number":        func(t *Table) { delayOf(t).delayNumber = t.lastNumber + 1 },
	"a delay of a request":        func(t *Table) { delayOf(t).delayNumber = holderOf(t).number },
	"a negative delay":            func(t *Table) { delayOf(t).delayUntil = -5 },
	"a record of no request":      func(t *Table) { recordOf(t, 1).number = 1 << 40 },
	"a record of another request": func(t *Table) { recordOf(t, 1).number = holderOf(t).number },
	"a record of a number":        func(t *Table) { recordOf(t, 0).number = holderOf(t).number },
	"a record that asks nothing":  func(t *Table) { recordOf(t, 0).asked.ttl = 0 },
	"a record of a live token":    func(t *Table) { recordOf(t, 0).token = holderOf(t).token },
	"a record of no token":        func(t *Table) { recordOf(t, 0).token = 0 },
	"a record of the past":        func(t *Table) { recordOf(t, 0).forget = -1 },
	"a record that has ended":     func(t *Table) { m := recordOf(t, 1); m.forget, m.token = 1<<40, 1 },
	"a request without a record":  func(t *Table) { t.records.delete(OnceID(benchSession(1))) },
	"a try twice":                 func(t *Table) { x := triedOf(t).extra; x.tries[1] = x.tries[0] },
	"a try of no session":         func(t *Table) { triedOf(t).extra.tries[1].session = SessionID{9, 9, 9} },
	"a try of no sequence":        func(t *Table) { triedOf(t).extra.tries[1].sequence = 99 },
	"a try of another answer":     func(t *Table) { triedOf(t).extra.tries[1].sequence = 1 },
	"a wait that is shared":       func(t *Table) { triedOf(t).extra.shared = true },
	"a wait without an end":       func(t *Table) { r := triedOf(t); t.deadlines.remove(r.timer); r.deadline, r.timer = 0, 0 },
	"a grant of two tries":        func(t *Table) { x := grantedOf(t).extra; x.tries = append(x.tries, x.tries[0]) },
	"a grant of no session's try": func(t *Table) { grantedOf(t).extra.tries[0].session = SessionID{} },
	"an answer to nothing":        func(t *Table) { s := sessionOf(t); s.window[0].asked = 0 },
	"an open session has ended":   func(t *Table) { t.rememberEnded(holderOf(t).session, holderOf(t).owner) },
	"an end of a used number": func(t *Table) {
		t.ended.put(SessionID{1}, endedSession{forgetKey{1 << 40, holderOf(t).number}, holderOf(t).owner})
	},
	"an end of the past":   func(t *Table) { t.ended.put(SessionID{1}, endedSession{forgetKey{-1, 1 << 40}, holderOf(t).owner}) },
	"an end of no session": func(t *Table) { t.rememberEnded(SessionID{}, holderOf(t).owner) },
}

// The first of each, of the table that fullTable makes.

func holderOf(t *Table) *request {
	l, _ := t.locks.get("a/0")
	number, _, _ := l.holders.first()
	r, _ := t.requests.get(number)
	return r
}

func waiterOf(t *Table) *request {
	l, _ := t.locks.get("a/0")
	number, _, _ := l.queue.others.first()
	r, _ := t.requests.get(number)
	return r
}

func sessionOf(t *Table) *session {
	s, _ := t.sessions.get(holderOf(t).session)
	return s
}

func delayOf(t *Table) *lock {
	l, _ := t.locks.get("d/0")
	return l
}

// recordOf is 0: of a grant that has ended, 1: of a request that waits.
func recordOf(t *Table, once int) *record {
	m, _ := t.records.get(OnceID(benchSession(once)))
	return m
}

// triedOf waits with two tries.
func triedOf(t *Table) *request {
	r, _ := t.requests.get(recordOf(t, 1).number)
	return r
}

// grantedOf is a detached grant.
func grantedOf(t *Table) *request {
	r, _ := t.requests.get(recordOf(t, 2).number)
	return r
}

// What no table would have written is refused, even with the right checksums.
func TestRestoreRefusesWhatNoTableIs(t *testing.T) {
	for name, corrupt := range corruptions {
		table, _ := fullTable(t, 1)
		corrupt(table)
		var buf bytes.Buffer
		if _, err := table.Snapshot().WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(&buf); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// check is worth nothing if it cannot fail.
func TestCheckFindsBrokenInvariants(t *testing.T) {
	inMemory := map[string]func(t *Table){
		"grants miscounted":        func(t *Table) { t.grants++ },
		"waiters miscounted":       func(t *Table) { t.waiters-- },
		"a holder not held":        func(t *Table) { l, _ := t.locks.get("a/0"); l.holders = numbers[none]{} },
		"a waiter not queued":      func(t *Table) { l, _ := t.locks.get("a/0"); l.queue.others = numbers[uint32]{} },
		"a waiter not watching":    func(t *Table) { l, _ := t.locks.get("a/0"); l.queue.registered = numbers[none]{} },
		"a waiter forgotten":       func(t *Table) { l, _ := t.locks.get("a/0"); waiterOf(t).unregister(l) },
		"a waiter never looked at": func(t *Table) { t.addCandidate(candidate{number: waiterOf(t).number}) },
		"permits miscounted":       func(t *Table) { l, _ := t.locks.get("s/0"); l.used++ },
		"a stranger's size":        func(t *Table) { l, _ := t.locks.get("s/0"); l.limit = 0 },
		"nobody is alone":          func(t *Table) { l, _ := t.locks.get("a/0"); l.heldAlone = false },
		"an empty lock":            func(t *Table) { t.locks.put("empty", &lock{gen: t.locks.gen}) },
		"a grant not its own":      func(t *Table) { sessionOf(t).grants = numbers[uint64]{} },
		"a wait not its own":       func(t *Table) { sessionOf(t).waits.add(holderOf(t).number) },
		"waits miscounted":         func(t *Table) { sessionOf(t).waits.total++ },
		"a token lost":             func(t *Table) { t.tokens.delete(holderOf(t).token) },
		"a deadline lost":          func(t *Table) { t.deadlines.remove(sessionOf(t).timer) },
		"a deadline too late":      func(t *Table) { sessionOf(t).deadline = t.deadlines.heap[0].at - 1 },
		"the next one is stale":    func(t *Table) { t.deadlines.heap[0].at-- },
		"an end not forgotten":     func(t *Table) { k, _, _ := t.endings.first(); t.endings.delete(k) },
		"a record not forgotten":   func(t *Table) { k, _, _ := t.forgets.first(); t.forgets.delete(k) },
		"shown miscounted":         func(t *Table) { sessionOf(t).shown++ },
		"a lock not handed on":     func(t *Table) { l, _ := t.locks.get("a/0"); t.free(l) },
		"a waiter passed over": func(t *Table) {
			delayOf(t).delayUntil, delayOf(t).delayNumber = 0, 0
			t.deadlines.remove(delayOf(t).timer)
			delayOf(t).timer = 0
		},
	}
	for _, set := range []map[string]func(*Table){corruptions, inMemory} {
		for name, corrupt := range set {
			table, _ := fullTable(t, 1)
			corrupt(table)
			if table.check() == nil && name != "an unknown reason" { // which only a text is made from
				t.Errorf("%s: check finds nothing", name)
			}
		}
	}
}

// No node writes such a request into the log: it has no ID, and is not run.
func TestSequenceWithoutASessionIsNoID(t *testing.T) {
	b := newBench(t)
	c := b.grab("a", 10*second)
	c.ID.Session = SessionID{}
	b.want(b.one(0, c), Invalid)
	if s := b.table.Stats(); s.Grants != 0 {
		t.Fatalf("%+v, want no grant", s)
	}
}

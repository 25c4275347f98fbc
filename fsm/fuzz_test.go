package fsm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"runtime"
	"slices"
	"testing"
)

// allocated runs f and returns how much it allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allowance is what an input of so many bytes may make the table allocate.
// Hostile counts and lengths must not get beyond a multiple of what was sent.
func allowance(bytes int) uint64 { return 1<<20 + 400*uint64(bytes) }

// busyTable is a table with something of everything in it.
func busyTable(tb testing.TB) *Table {
	tb.Helper()
	table := New()
	for i, r := range randomLog(&byteSource{pseudoRandom(3, 4096)}, 40, true) {
		table.Apply(uint64(i+1), r.term, r.data)
	}
	return table
}

// FuzzApply takes any bytes as an entry: nothing panics, and two tables agree
// on what it did.
func FuzzApply(f *testing.F) {
	for _, r := range randomLog(&byteSource{pseudoRandom(2, 4096)}, 30, false) {
		f.Add(r.data)
	}
	for _, c := range everyCommand() {
		f.Add(encode(1, second, 1, c))
	}
	f.Add([]byte{})
	f.Add(AppendHeader(nil, 1, second, 1, math.MaxInt))
	f.Add(AppendHeader(nil, 1, math.MaxInt64, math.MinInt64, 0))
	for _, c := range rightsCommands() {
		f.Add(encode(1, second, 1, c))
	}
	snaps := [][]byte{snapshotBytes(f, busyTable(f)), snapshotBytes(f, busyRightsTable(f))}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, snap := range snaps {
			applyAnything(t, snap, data)
		}
	})
}

// applyAnything applies an entry of any bytes to two tables.
func applyAnything(t *testing.T, snap, data []byte) {
	t.Helper()
	term := uint64(1)
	if e, err := DecodeEntry(data); err == nil {
		term = e.Term
	}
	a, b := restore(t, snap), restore(t, snap)
	_, index := a.Digest()
	var got, again Applied
	if n := allocated(func() { got = a.Apply(index+1, term, data) }); n > allowance(len(data)) {
		t.Errorf("%d bytes allocated for an entry of %d", n, len(data))
	}
	again = b.Apply(index+1, term, bytes.Clone(data))
	if got.Digest != again.Digest || got.Refused != again.Refused || len(got.Events) != len(again.Events) {
		t.Fatalf("applied %+v and %+v", got, again)
	}
	if err := a.check(); err != nil {
		t.Fatalf("check: %v", err)
	}
	sameTables(t, "after any bytes", a, b)
	sameTables(t, "restored after any bytes", a, restore(t, snapshotBytes(t, a)))
}

func restore(t interface {
	Helper()
	Fatalf(string, ...any)
}, snap []byte) *Table {
	t.Helper()
	table, err := Restore(bytes.NewReader(snap))
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	return table
}

// FuzzRestore takes any bytes as a snapshot: it is refused, or it is a sound
// table that is written back as the same bytes.
func FuzzRestore(f *testing.F) {
	f.Add([]byte{})
	f.Add(snapshotBytes(f, New()))
	busy := snapshotBytes(f, busyTable(f))
	f.Add(busy)
	f.Add(snapshotBytes(f, busyRightsTable(f)))
	for seed := range uint64(6) {
		small := New()
		for i, r := range randomLog(&byteSource{pseudoRandom(seed+20, 512)}, int(seed)+3, false) {
			small.Apply(uint64(i+1), r.term, r.data)
		}
		f.Add(snapshotBytes(f, small))
	}
	f.Add(busy[len(snapshotMagic)+1+8 : len(busy)-8]) // what is in its block
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, snap := range [][]byte{data, resealed(data)} {
			var table *Table
			var err error
			n := allocated(func() { table, err = Restore(bytes.NewReader(snap)) })
			if n > allowance(len(snap)) {
				t.Errorf("%d bytes allocated for a snapshot of %d", n, len(snap))
			}
			if err != nil {
				continue
			}
			if err := table.check(); err != nil {
				t.Fatalf("check of a restored table: %v", err)
			}
			if !bytes.Equal(snapshotBytes(t, table), snap) {
				t.Fatal("a snapshot was restored and is written back as other bytes")
			}
			// It must also live on without a panic.
			_, index := table.Digest()
			for i := range uint64(3) {
				table.Apply(index+1+i, 1, encode(1, later(table.Now(), 10*second), 0, append(everyCommand(), rightsCommands()...)...))
				if err := table.check(); err != nil {
					t.Fatalf("check after entry %d on a restored table: %v", i, err)
				}
			}
		}
	})
}

// FuzzDamagedSnapshot damages a snapshot of several blocks without mending its
// checksums: it is refused, whatever was done to it.
func FuzzDamagedSnapshot(f *testing.F) {
	table := busyTable(f)
	_, index := table.Digest()
	for i, r := range manyGrants(100) {
		table.Apply(index+1+uint64(i), r.term, r.data)
	}
	good := snapshotBytes(f, table)
	if len(good) < 2*blockSize {
		f.Fatalf("a snapshot of %d bytes is too small for this test", len(good))
	}
	for _, at := range []int{0, 8, 9, 13, 17, 40, blockSize / 2, blockSize + 30, len(good) - 9, len(good) - 1} {
		f.Add(uint32(at), uint32(0), byte(0), []byte{good[at] ^ 1}) // a flipped bit
		f.Add(uint32(at), uint32(0), byte(1), []byte{})             // cut off
		f.Add(uint32(at), uint32(7), byte(2), []byte{})             // bytes are lost
		f.Add(uint32(at), uint32(0), byte(3), []byte("new"))        // or come in
	}
	f.Fuzz(func(t *testing.T, at, n uint32, how byte, with []byte) {
		i := int(at % uint32(len(good)))
		j := i + int(n%uint32(len(good)-i+1))
		bad := bytes.Clone(good)
		switch how % 4 {
		case 0:
			copy(bad[i:], with)
		case 1:
			bad = bad[:i]
		case 2:
			bad = slices.Delete(bad, i, j)
		case 3:
			bad = slices.Replace(bad, i, j, with...)
		}
		restored, err := Restore(bytes.NewReader(bad))
		if err == nil && !bytes.Equal(bad, good) {
			t.Fatalf("a snapshot with damage at byte %d was restored: %+v", i, restored.Stats())
		}
		if err != nil && bytes.Equal(bad, good) {
			t.Fatalf("a good snapshot is refused: %v", err)
		}
	})
}

// FuzzCommands turns bytes into commands and compares the table with the model.
func FuzzCommands(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(pseudoRandom(seed+1, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &byteSource{data}
		l := newLockstep(src, failer(t))
		for len(src.data) > 0 && l.index < 400 {
			l.step()
		}
	})
}

// FuzzRights is FuzzCommands with access tokens, policies and callers.
func FuzzRights(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(pseudoRandom(seed+1, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &byteSource{data}
		l := newRightsLockstep(src, failer(t))
		for len(src.data) > 0 && l.index < 400 {
			l.step()
		}
	})
}

// FuzzDecode: whatever can be decoded is encoded as an entry that decodes to
// the same.
func FuzzDecode(f *testing.F) {
	for _, c := range everyCommand() {
		f.Add(encode(7, second, 1, c, Found{}))
	}
	for _, c := range rightsCommands() {
		f.Add(encode(7, second, 1, c, Found{}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Entry
		var err error
		if n := allocated(func() { e, err = DecodeEntry(data) }); n > allowance(len(data)) {
			t.Errorf("%d bytes allocated to decode %d", n, len(data))
		}
		if err != nil {
			return
		}
		first := encode(e.Term, e.Stamp, e.Wall, e.Commands...)
		again, err := DecodeEntry(first)
		if err != nil {
			t.Fatalf("decode what was encoded from %+v: %v", e, err)
		}
		if !bytes.Equal(encode(again.Term, again.Stamp, again.Wall, again.Commands...), first) {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}

// everyCommand has one command of each kind, every field set.
func everyCommand() []Command {
	id := RequestID{Session: genSession(0), Sequence: 3, Acked: 1}
	once := RequestID{Session: genSession(0), Sequence: 2, Answered: [2]Span{{5, 6}, {9, 9}}, Once: genOnce(1)}
	labels := []Label{{"k", "v"}, {"", ""}}
	return []Command{
		OpenSession{Session: genSession(0), TTL: 10 * second, Holder: "ann", Labels: labels},
		KeepAlive{Sessions: []KeepAliveSession{{genSession(0), 1}, {genSession(1), 0}}},
		Acquire{
			ID: id, Wants: []Want{{Lock: "a", Mode: Exclusive}, {Lock: "b", Mode: Shared}, {Lock: "c", Mode: Permits, Permits: 2, Limit: 3}},
			TTL: 5 * second, Wait: -1, Holder: "ann", Value: []byte("v"), Labels: labels, Delay: second,
		},
		Acquire{ID: once, Wants: []Want{{Lock: "a", Mode: Exclusive}}, TTL: 5 * second, Wait: second, Holder: "bob", Detached: true},
		Cancel{ID: RequestID{Session: genSession(0), Sequence: 4}, Target: RequestID{Session: genSession(0), Sequence: 2}},
		Renew{ID: RequestID{Session: genSession(0), Sequence: 5}, Lock: "a", Token: 1, TTL: 7 * second},
		SetValue{ID: RequestID{Session: genSession(0), Sequence: 6}, Lock: "a", Token: 1, Value: []byte("w")},
		Resize{ID: RequestID{Session: genSession(0), Sequence: 8}, Lock: "c", Limit: 5},
		ForceRelease{Lock: "a", Token: 1, Reason: "stuck", Who: "ops"},
		Release{ID: RequestID{Session: genSession(0), Sequence: 7}, Lock: "a", Token: 1, Lost: true},
		EndSession{Session: genSession(1), Undelivered: []uint64{1, 300}},
		KillSession{Session: genSession(0), Reason: "stuck", Who: "ops"},
		Configure{Limits: Limits{Waiters: 5, OnceNanos: second}},
		Found{Cluster: [16]byte{1}},
		Clear{Lock: "a", UpTo: 300, Reason: "stuck", Who: "ops"},
		RaiseLevel{Level: 1, Version: "0.1.0"},
	}
}

// rightsCommands has one command of each kind of level 2.
func rightsCommands() []Command {
	return []Command{
		PutAccessToken{Accessor: "a1", Hash: [32]byte{1}, Name: "shop", Labels: []Label{{"team", "x"}}, MadeBy: "token:root", MadeAt: 3, TTL: 30 * second},
		ChangePolicies{
			Put: []Policy{{
				Name: "p", For: []string{"token:shop", "label:team=x"}, Rules: []Rule{{Rights: RightRead | RightLock, Name: "a"}, {true, RightLock, "a/b", true}},
				Quota: Quota{1, 2, 3, 1 << 20, 5, 6, 7, 8},
			}},
			Remove: []string{"q"}, If: 4,
		},
		As{Caller: "token:shop", Force: true, Command: OpenSession{Session: genSession(2), TTL: 10 * second, Owner: "token:shop"}},
		Configure{Limits: Limits{AccessTokens: 5, Policies: 6, PolicyBytes: 700}},
		RevokeAccessToken{Accessor: "a1"},
	}
}

// busyRightsTable is busyTable at level 2: of the first log that leaves something of everything.
func busyRightsTable(tb testing.TB) *Table {
	tb.Helper()
	for seed := uint64(1); seed < 1000; seed++ {
		table := New()
		for i, r := range rightsLog(seed, 60) {
			table.Apply(uint64(i+1), r.term, r.data)
		}
		if table.accessTokens.len > 1 && table.policies.len > 1 && table.quotas.len > 0 && table.sessions.len > 1 && table.requests.len > 1 {
			return table
		}
	}
	tb.Fatal("no log leaves something of everything")
	return nil
}

// rightsLog is a log of a table of level 2.
func rightsLog(seed uint64, entries int) []logged {
	gen := newRightsGenerator(&byteSource{pseudoRandom(seed, 200*entries)}, newModel())
	raise := raiseTo(Level)
	gen.model.run(raise)
	return append([]logged{{1, encode(1, 0, 0, raise)}}, logOf(gen, entries, false)...)
}

// resealed makes a snapshot whose checksums are right, so that the fuzzer gets
// beyond them: of a damaged one, or of bytes that are to be its only block.
func resealed(data []byte) []byte {
	start := append([]byte(snapshotMagic), snapshotVersion)
	if !bytes.HasPrefix(data, start) {
		data = slices.Concat(start, binary.BigEndian.AppendUint32(nil, uint32(len(data))), make([]byte, 4), data, make([]byte, 8))
	}
	data = bytes.Clone(data)
	sum := crc32.Checksum(start, castagnoli)
	for at := len(start); at+8 <= len(data); {
		end := at + 8 + int(min(binary.BigEndian.Uint32(data[at:]), 1<<30))
		if end > len(data) {
			break
		}
		sum = crc32.Update(sum, castagnoli, data[at+8:end])
		binary.BigEndian.PutUint32(data[at+4:], sum)
		at = end
	}
	return data
}

package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files again")

// logged is one entry of a log.
type logged struct {
	term uint64
	data []byte
}

// randomLog makes a log that works a table well, damaged here and there if asked
// for. The model only aims it.
func randomLog(src source, entries int, damaged bool) []logged {
	return logOf(newGenerator(src, newModel()), entries, damaged)
}

func logOf(gen *generator, entries int, damaged bool) []logged {
	var log []logged
	for i := range entries {
		stamp := gen.stamp()
		var commands []Command
		for range gen.pick(5, "batch") {
			commands = append(commands, gen.command())
		}
		gen.model.apply(stamp, int64(i), commands)
		log = append(log, logged{1, encode(1, stamp, int64(i), commands...)})
		if !damaged {
			continue
		}
		switch gen.pick(25, "damage") {
		case 23:
			log = append(log, logged{2, log[len(log)-1].data}) // stamped in another term
		case 24:
			data := bytes.Clone(log[len(log)-1].data)
			data[gen.pick(min(len(data), 256), "at")] ^= byte(1 + gen.pick(255, "flip"))
			log = append(log, logged{1, data})
		}
	}
	return log
}

func snapshotBytes(t interface {
	Helper()
	Fatalf(string, ...any)
}, table *Table) []byte {
	t.Helper()
	var buf bytes.Buffer
	n, err := table.Snapshot().WriteTo(&buf)
	if err != nil || n != int64(buf.Len()) {
		t.Fatalf("write snapshot: %d bytes of %d, %v", n, buf.Len(), err)
	}
	return buf.Bytes()
}

func sameTables(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, a, b *Table) {
	t.Helper()
	if !bytes.Equal(snapshotBytes(t, a), snapshotBytes(t, b)) {
		t.Fatalf("%s: snapshots differ", what)
	}
	if a.Hash() != b.Hash() {
		t.Fatalf("%s: hashes differ", what)
	}
	digestA, indexA := a.Digest()
	digestB, indexB := b.Digest()
	if digestA != digestB || indexA != indexB {
		t.Fatalf("%s: digests %x at %d and %x at %d", what, digestA, indexA, digestB, indexB)
	}
}

// The same log gives the same bytes, whether a table lived through it, was
// restored midway, was snapshotted all the time or never.
func TestReplayIsByteIdentical(t *testing.T) {
	checkMany(t, 3, func(t *rapid.T) {
		src := rapidSource{t}
		log := randomLog(src, src.pick(60, "entries")+10, true)
		plain, restored, watched := New(), New(), New()
		var early *Snapshot
		var earlyWant []byte
		for i, r := range log {
			index := uint64(i + 1)
			a := plain.Apply(index, r.term, r.data)
			b := restored.Apply(index, r.term, r.data)
			c := watched.Apply(index, r.term, r.data)
			if a.Digest != b.Digest || a.Digest != c.Digest || a.Now != b.Now || a.MoreDue != b.MoreDue {
				t.Fatalf("entry %d: applied %+v, %+v and %+v", index, a, b, c)
			}
			if src.pick(6, "restore") == 5 {
				again, err := Restore(bytes.NewReader(snapshotBytes(t, restored)))
				if err != nil {
					t.Fatalf("restore at entry %d: %v", index, err)
				}
				if err := again.check(); err != nil {
					t.Fatalf("check of the restored table: %v", err)
				}
				restored = again
			}
			if src.pick(6, "snapshot") == 5 {
				early, earlyWant = watched.Snapshot(), snapshotBytes(t, plain)
			}
		}
		sameTables(t, "restored midway", plain, restored)
		sameTables(t, "snapshotted midway", plain, watched)
		if early != nil {
			var got bytes.Buffer
			if _, err := early.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), earlyWant) {
				t.Fatalf("a snapshot changed after it was taken (%v)", err)
			}
		}
	})
}

// Snapshots are written by other goroutines while the table goes on.
func TestSnapshotsAreWrittenWhileTheTableGoesOn(t *testing.T) {
	log := logOf(newWideGenerator(&byteSource{pseudoRandom(1, 1<<17)}, newModel()), 800, true)
	quiet, busy := New(), New()
	var wg sync.WaitGroup
	for i, r := range log {
		quiet.Apply(uint64(i+1), r.term, r.data)
		busy.Apply(uint64(i+1), r.term, r.data)
		if i%30 != 0 {
			continue
		}
		want := snapshotBytes(t, quiet)
		snapshot := busy.Snapshot()
		wg.Go(func() {
			var got bytes.Buffer
			if _, err := snapshot.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("snapshot taken at entry %d differs (%v)", i+1, err)
			}
		})
	}
	wg.Wait()
	sameTables(t, "in the end", quiet, busy)
}

// pseudoRandom gives the same bytes for ever (xorshift64*).
func pseudoRandom(seed uint64, n int) []byte {
	data := make([]byte, 0, n+8)
	for len(data) < n {
		seed ^= seed >> 12
		seed ^= seed << 25
		seed ^= seed >> 27
		data = binary.LittleEndian.AppendUint64(data, seed*0x2545F4914F6CDD1D)
	}
	return data[:n]
}

// The golden files were written once by version 1 of the encodings. They must
// be read, on every architecture, for as long as there is a version to come.
// testdata/golden.log: entries as (index 8, term 8, length 4, data), big endian.
// testdata/golden.snap: the table after them. testdata/golden.hash: its Hash and Digest.
func TestGoldenLogAndSnapshotReadForEver(t *testing.T) {
	logPath, snapPath, hashPath := golden("log"), golden("snap"), golden("hash")
	if *update {
		writeGolden(t, logPath, snapPath, hashPath)
	}
	table := New()
	kinds := map[Kind]int{}
	var last Applied
	for i, r := range readGoldenLog(t, logPath) {
		if e, err := DecodeEntry(r.data); err == nil {
			for _, c := range e.Commands {
				kinds[c.kind()]++
			}
		}
		last = table.Apply(uint64(i+1), r.term, r.data)
	}
	if len(last.Results) != 1 || last.Results[0].Code != UnknownCommand {
		t.Errorf("the last entry of the golden log, of a kind that was removed: %+v", last)
	}
	for k := KindOpenSession; k <= KindClear; k++ {
		if kinds[k] == 0 && k != removedKind {
			t.Errorf("the golden log has no command of kind %d", k)
		}
	}
	hash := table.Hash()
	digest, _ := table.Digest()
	got := hex.EncodeToString(hash[:]) + " " + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, digest)) + "\n"
	if want := string(readFile(t, hashPath)); got != want {
		t.Errorf("the golden log gives %s, want %s", got, want)
	}
	snap := readFile(t, snapPath)
	restored, err := Restore(bytes.NewReader(snap))
	if err != nil {
		t.Fatalf("restore the golden snapshot: %v", err)
	}
	if err := restored.check(); err != nil {
		t.Fatalf("check of the golden snapshot: %v", err)
	}
	sameTables(t, "golden snapshot and golden log", restored, table)
	if !bytes.Equal(snapshotBytes(t, restored), snap) {
		t.Error("the golden snapshot is written back as other bytes")
	}
	stats := restored.Stats()
	if stats.Grants == 0 || stats.Waiters == 0 || stats.Sessions == 0 || restored.forgets.len == 0 || triesIn(restored) == 0 {
		t.Errorf("the golden snapshot is too empty to tell anything: %+v", stats)
	}
}

// triesIn counts the tries that wait beside others.
func triesIn(t *Table) int {
	n := 0
	for _, r := range t.requests.all() {
		n += max(0, len(r.more().tries)-1)
	}
	return n
}

func golden(ext string) string { return filepath.Join("testdata", "golden."+ext) }

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readGoldenLog(t *testing.T, path string) []logged {
	t.Helper()
	data := readFile(t, path)
	var log []logged
	for len(data) > 0 {
		index, term := binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])
		size := binary.BigEndian.Uint32(data[16:])
		log = append(log, logged{term, data[20 : 20+size]})
		if index != uint64(len(log)) {
			t.Fatalf("entry %d of %s says index %d", len(log), path, index)
		}
		data = data[20+size:]
	}
	return log
}

// manyGrants is a log of grants that fill more than one block of a snapshot.
func manyGrants(n int) []logged {
	log := []logged{{1, encode(1, 0, 0, opensHost())}}
	for i := range n {
		c := Acquire{
			ID:  RequestID{Session: host, Sequence: uint64(i + 1), Acked: uint64(i), Once: OnceID{15: 1, 14: byte(i), 13: byte(i >> 8)}},
			TTL: 24 * 3600 * second, Holder: "many", Detached: true,
			Wants: []Want{{Lock: fmt.Sprintf("many/%05d", i), Mode: Exclusive}}, Value: bytes.Repeat([]byte{'m'}, 1500),
		}
		log = append(log, logged{1, encode(1, 0, 0, c)})
	}
	return log
}

func TestSnapshotOfManyBlocksIsRestoredAndItsDamageSeen(t *testing.T) {
	table := New()
	for i, r := range manyGrants(200) {
		table.Apply(uint64(i+1), r.term, r.data)
	}
	snap := snapshotBytes(t, table)
	if len(snap) < 4*blockSize {
		t.Fatalf("a snapshot of %d bytes is too small for this test", len(snap))
	}
	sameTables(t, "restored from many blocks", table, restore(t, snap))
	for at := 0; at < len(snap); at += 997 {
		damaged := bytes.Clone(snap)
		damaged[at] ^= 0x10
		if _, err := Restore(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d went unseen", at, len(snap))
		}
		if _, err := Restore(bytes.NewReader(snap[:at])); err == nil {
			t.Fatalf("a snapshot cut to %d of %d bytes went unseen", at, len(snap))
		}
	}
	if _, err := Restore(bytes.NewReader(append(bytes.Clone(snap), 0))); err == nil {
		t.Fatal("a byte after the end went unseen")
	}
}

// twoTries is an entry after which a request waits with two tries, and a grant under a
// once ID has ended.
func twoTries() logged {
	a, b := SessionID{0xfe, 1}, SessionID{0xfe, 2}
	ask := Acquire{Wants: exclusive("golden"), TTL: 30 * second, Wait: 60 * second, Holder: "gold", Detached: true}
	in := func(s SessionID, sequence uint64, once byte) Acquire {
		c := ask
		c.ID = RequestID{Session: s, Sequence: sequence, Once: OnceID{0xfe, once}}
		return c
	}
	return logged{1, encode(
		1, 0, 0, Configure{}, Found{Cluster: [16]byte{0xfe}}, OpenSession{Session: a, TTL: 3600 * second}, OpenSession{Session: b, TTL: 3600 * second},
		in(a, 1, 1), in(a, 2, 2), in(b, 1, 2), in(a, 3, 3), ForceRelease{Lock: "golden", Reason: "gold", Who: "ops"}, in(b, 2, 3),
	)}
}

// writeGolden makes the golden files; it takes the first seed whose table has
// something of everything.
func writeGolden(t *testing.T, logPath, snapPath, hashPath string) {
	t.Helper()
	for seed := uint64(1); ; seed++ {
		log := append(manyGrants(60), randomLog(&byteSource{pseudoRandom(seed, 1<<15)}, 400, false)...)
		log = append(log, twoTries(), logged{1, append(AppendHeader(nil, 1, 0, 0, 1), 1, removedKind)})
		table := New()
		var out []byte
		for i, r := range log {
			table.Apply(uint64(i+1), r.term, r.data)
			out = binary.BigEndian.AppendUint64(out, uint64(i+1))
			out = binary.BigEndian.AppendUint64(out, r.term)
			out = binary.BigEndian.AppendUint32(out, uint32(len(r.data)))
			out = append(out, r.data...)
		}
		if s := table.Stats(); s.Grants < 2 || s.Waiters < 2 || s.Sessions < 3 || table.forgets.len == 0 || triesIn(table) == 0 {
			continue
		}
		hash := table.Hash()
		digest, _ := table.Digest()
		line := hex.EncodeToString(hash[:]) + " " + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, digest)) + "\n"
		for path, data := range map[string][]byte{logPath: out, snapPath: snapshotBytes(t, table), hashPath: []byte(line)} {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

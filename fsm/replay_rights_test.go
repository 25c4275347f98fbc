package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// As TestGoldenLogAndSnapshotReadForEver, for what came with level 2: testdata/golden-rights.*
// were written once, by the first version that knew it.
func TestGoldenRightsReadForEver(t *testing.T) {
	logPath, snapPath, hashPath := goldenRights("log"), goldenRights("snap"), goldenRights("hash")
	if *update {
		writeGoldenRights(t)
	}
	table, kinds := New(), map[Kind]int{}
	for i, r := range readGoldenLog(t, logPath) {
		if e, err := DecodeEntry(r.data); err == nil {
			for _, c := range e.Commands {
				kinds[c.kind()]++
			}
		}
		table.Apply(uint64(i+1), r.term, r.data)
	}
	for k := KindPutAccessToken; k <= KindConfigureRights; k++ {
		if kinds[k] == 0 {
			t.Errorf("the golden log has no command of kind %d", k)
		}
	}
	if got, want := hashLine(table), string(readFile(t, hashPath)); got != want {
		t.Errorf("the golden log gives %s, want %s", got, want)
	}
	snap := readFile(t, snapPath)
	restored := restore(t, snap)
	sameTables(t, "golden snapshot and golden log", restored, table)
	if !bytes.Equal(snapshotBytes(t, restored), snap) {
		t.Error("the golden snapshot is written back as other bytes")
	}
	if restored.accessTokens.len < 2 || restored.policies.len < 2 || restored.RightsIndex() == 0 {
		t.Errorf("the golden snapshot is too empty to tell anything: %d access tokens, %d policies", restored.accessTokens.len, restored.policies.len)
	}
}

func goldenRights(ext string) string { return "testdata/golden-rights." + ext }

func hashLine(table *Table) string {
	hash := table.Hash()
	digest, _ := table.Digest()
	return hex.EncodeToString(hash[:]) + " " + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, digest)) + "\n"
}

func writeGoldenRights(t *testing.T) {
	t.Helper()
	for seed := uint64(1); ; seed++ {
		log := append(rightsLog(seed, 200), logged{1, encode(1, 0, 0, rightsCommands()[:4]...)})
		table := New()
		var out []byte
		for i, r := range log {
			table.Apply(uint64(i+1), r.term, r.data)
			out = binary.BigEndian.AppendUint64(out, uint64(i+1))
			out = binary.BigEndian.AppendUint64(out, r.term)
			out = binary.BigEndian.AppendUint32(out, uint32(len(r.data)))
			out = append(out, r.data...)
		}
		if s := table.Stats(); s.Grants < 2 || s.Waiters < 1 || s.Sessions < 2 || table.accessTokens.len < 2 || table.policies.len < 2 {
			continue
		}
		for path, data := range map[string][]byte{goldenRights("log"): out, goldenRights("snap"): snapshotBytes(t, table), goldenRights("hash"): []byte(hashLine(table))} {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

// The same log of rights gives the same bytes, restored midway or not.
func TestReplayOfRightsIsByteIdentical(t *testing.T) {
	checkMany(t, 2, func(t *rapid.T) {
		src := rapidSource{t}
		gen := newRightsGenerator(src, newModel())
		gen.model.run(raiseTo(Level))
		log := append([]logged{{1, encode(1, 0, 0, raiseTo(Level))}}, logOf(gen, src.pick(60, "entries")+10, true)...)
		plain, restored, watched := New(), New(), New()
		for i, r := range log {
			index := uint64(i + 1)
			a, b, c := plain.Apply(index, r.term, r.data), restored.Apply(index, r.term, r.data), watched.Apply(index, r.term, r.data)
			if a.Digest != b.Digest || a.Digest != c.Digest || a.MoreDue != b.MoreDue {
				t.Fatalf("entry %d: applied %+v, %+v and %+v", index, a, b, c)
			}
			if src.pick(6, "restore") == 5 {
				restored = restore(t, snapshotBytes(t, restored))
			}
			if src.pick(6, "snapshot") == 5 {
				watched.Snapshot()
			}
		}
		sameTables(t, "restored midway", plain, restored)
		sameTables(t, "snapshotted midway", plain, watched)
	})
}

// What a snapshot says of rights is refused where it contradicts itself.
func TestSnapshotWithDamagedRightsIsRefused(t *testing.T) {
	for what, damage := range map[string]func(*Table){
		"a hash twice": func(t *Table) { t.putTwin("zz", func(a *accessToken) {}) },
		"a name that is none": func(t *Table) {
			t.putTwin("zz", func(a *accessToken) { a.Hash, a.Name = [32]byte{0xee}, "" })
		},
		"no hash":                  func(t *Table) { t.putTwin("zz", func(a *accessToken) { a.Hash = [32]byte{} }) },
		"a number twice":           func(t *Table) { t.putTwin("zz", func(a *accessToken) { a.Hash = [32]byte{0xee} }) },
		"another accessor":         func(t *Table) { t.putTwin("\x00", func(a *accessToken) { a.Hash = [32]byte{0xee} }) },
		"a policy for nobody":      func(t *Table) { t.policies.put("zz", &Policy{Name: "zz"}) },
		"a policy of another name": func(t *Table) { t.policies.put("zz", &Policy{Name: "aa", For: []string{"*"}}) },
		"rights of a later entry":  func(t *Table) { t.rightsIndex = t.index + 1 },
		"rights of no entry":       func(t *Table) { t.rightsIndex = 0 },
	} {
		b := newRightsBench(t)
		b.want(b.one(0, accessTokenFor("a1", "shop")), OK)
		b.want(b.one(0, ChangePolicies{Put: []Policy{policyFor("p", "*")}}), OK)
		damage(b.table)
		if _, err := Restore(bytes.NewReader(snapshotBytes(t, b.table))); err == nil {
			t.Errorf("%s: it was restored", what)
		}
	}
}

// putTwin puts a changed copy of an access token into the table, past all checks.
func (t *Table) putTwin(accessor string, change func(*accessToken)) {
	first, _ := t.accessTokens.get("a1")
	twin := *first
	twin.Accessor = accessor
	change(&twin)
	t.accessTokens.put(accessor, &twin)
}

package gossipkeys

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// key returns a key that is easily told apart.
func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func ring(version uint64, keys ...byte) Ring {
	r := Ring{Version: version, Given: true}
	for _, k := range keys {
		r.Keys = append(r.Keys, key(k))
	}
	return r
}

func TestOfTwoRingsThatDifferOneIsNewer(t *testing.T) {
	madeUp := Ring{Keys: [][]byte{key(1)}}
	rings := []Ring{madeUp, {Keys: [][]byte{key(2)}}, ring(0, 1), ring(0, 2), ring(1, 1), ring(1, 2), ring(1, 1, 2), ring(1, 2, 1), ring(2, 1)}
	for i, a := range rings {
		for j, b := range rings {
			if got := a.NewerThan(b) != b.NewerThan(a); got != (i != j) {
				t.Errorf("of %+v and %+v one is newer: %v, want %v", a, b, got, i != j)
			}
		}
	}
	for _, c := range []struct{ newer, older Ring }{{ring(2, 1), ring(1, 9, 8)}, {ring(0, 1), madeUp}, {ring(1, 1), ring(0, 1)}} {
		if !c.newer.NewerThan(c.older) {
			t.Errorf("%+v is not newer than %+v", c.newer, c.older)
		}
	}
}

func TestTheKeyThatEncryptsIsNotRemoved(t *testing.T) {
	r := ring(3, 1, 2)
	if got, err := r.Without(FingerprintOf(key(1)), 9); err == nil || !got.Equal(r) {
		t.Errorf("removed: %+v, %v, want an error", got, err)
	}
	got, err := r.Without(FingerprintOf(key(2)), 9)
	if err != nil || !got.Equal(ring(9, 1)) {
		t.Errorf("the other one: %+v, %v, want version 9 with key 1", got, err)
	}
	if len(r.Keys) != 2 || !bytes.Equal(r.Keys[1], key(2)) {
		t.Errorf("the ring itself has changed: %+v", r)
	}
}

func TestAKeyIsUsedOnlyIfItIsThere(t *testing.T) {
	r := ring(3, 1, 2, 3)
	if got, err := r.Using(FingerprintOf(key(9)), 9); err == nil || !got.Equal(r) {
		t.Errorf("used: %+v, %v, want an error", got, err)
	}
	got, err := r.Using(FingerprintOf(key(2)), 0)
	if err != nil || !got.Equal(ring(4, 2, 1, 3)) {
		t.Errorf("use: %+v, %v, want version 4 with 2, 1, 3", got, err)
	}
	if !bytes.Equal(r.Keys[0], key(1)) || !bytes.Equal(r.Keys[1], key(2)) {
		t.Errorf("the ring itself has changed: %+v", r)
	}
}

func TestARingHasABoundedNumberOfKeys(t *testing.T) {
	r := ring(1, 0)
	for i := byte(1); i < MaxKeys; i++ {
		var err error
		if r, err = r.With(key(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.With(key(99), 0); err == nil || !got.Equal(r) {
		t.Errorf("%d keys: %v, want an error", len(got.Keys), err)
	}
	if got, err := r.With(key(3), 99); err != nil || !got.Equal(r) {
		t.Errorf("a key that is there: %+v, %v, want no change", got, err)
	}
	if _, err := ring(1, 1).With([]byte("short"), 0); err == nil {
		t.Error("a key of 5 bytes is installed")
	}
}

func TestAFingerprintDoesNotContainTheKey(t *testing.T) {
	f := FingerprintOf(key(0x61))
	if len(f) != 16 || strings.Contains(string(f), "6161") || f == FingerprintOf(key(0x62)) {
		t.Errorf("fingerprint %q", f)
	}
}

// Whatever the order of exchanges, all stores end with the same ring.
func TestExchangesEndWithOneRing(t *testing.T) {
	var stores []*Store
	for range 5 {
		s, err := Open(Options{MakeUp: true})
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	for range len(stores) { // a chain needs as many rounds
		for i := 1; i < len(stores); i++ {
			got, _, err := stores[i-1].Merge(stores[i].Ring())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := stores[i].Merge(got); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range stores[1:] {
		if !s.Ring().Equal(stores[0].Ring()) {
			t.Errorf("%v and %v", s.Ring().Fingerprints(), stores[0].Ring().Fingerprints())
		}
	}
}

func TestAMadeUpKeyNeverReplacesThatOfACluster(t *testing.T) {
	cluster, err := Open(Options{MakeUp: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Formed(); err != nil {
		t.Fatal(err)
	}
	had := cluster.Ring()
	for _, configured := range [][]byte{nil, nil, nil, nil, key(0), key(255)} { // hashes that are greater, and smaller
		fresh, err := Open(Options{MakeUp: true, Configured: configured})
		if err != nil {
			t.Fatal(err)
		}
		if _, changed, err := cluster.Merge(fresh.Ring()); changed || err != nil {
			t.Fatalf("the ring of the cluster is replaced: %v, %v", changed, err)
		}
		if _, changed, err := fresh.Merge(cluster.Ring()); !changed || err != nil || !fresh.Ring().Equal(had) {
			t.Fatalf("the fresh node keeps its own ring: %v, %v", changed, err)
		}
	}
}

func TestTheRingSurvivesARestart(t *testing.T) {
	o := Options{Dir: t.TempDir(), Configured: key(1), Formed: true}
	s, err := Open(o)
	if err != nil || !s.Ring().Equal(ring(1, 1)) {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, do := range []func() (Ring, error){
		func() (Ring, error) { return s.Install(key(2), 0) },
		func() (Ring, error) { return s.Encrypt(FingerprintOf(key(2)), 0) },
		func() (Ring, error) { return s.Remove(FingerprintOf(key(1)), 0) },
	} {
		if _, err := do(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(o.Dir, FileName))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file: %v, %v, want one that its user alone can read", info, err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v, want the file alone", entries, err)
	}
	// The key of the settings was removed, and does not come back.
	if s, err = Open(o); err != nil || !s.Ring().Equal(ring(4, 2)) {
		t.Fatalf("after a restart: %+v, %v, want version 4 with key 2", s.Ring(), err)
	}
	// Another one is installed, and does not encrypt.
	o.Configured = key(3)
	if s, err = Open(o); err != nil || !s.Ring().Equal(ring(5, 2, 3)) {
		t.Fatalf("with another key in the settings: %+v, %v, want version 5 with 2, 3", s.Ring(), err)
	}
	if fresh, err := s.TakeConfigured(key(3)); fresh || err != nil {
		t.Errorf("taken again: %v, %v", fresh, err)
	}
}

// A start on a file system that is full or read-only needs no room for keys that it has.
func TestAStartThatChangesNothingWritesNothing(t *testing.T) {
	o := Options{Dir: t.TempDir(), Configured: key(1)}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(o.Dir, FileName+".tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil { // in the place of what would be written
		t.Fatal(err)
	}
	again, err := Open(o)
	if err != nil || !again.Ring().Equal(s.Ring()) {
		t.Fatalf("opened again: %v", err)
	}
	if ring, err := again.Install(key(2), 0); err == nil || !ring.Equal(s.Ring()) || !again.Ring().Equal(s.Ring()) {
		t.Errorf("a ring that cannot be written is in use: %v, %v", ring.Fingerprints(), err)
	}
}

func TestWithoutKeysThereIsNoStore(t *testing.T) {
	if s, err := Open(Options{Dir: t.TempDir()}); s != nil || err != nil {
		t.Errorf("%+v, %v, want none", s, err)
	}
}

func TestADamagedFileIsRefusedWithARemedy(t *testing.T) {
	o := Options{Dir: t.TempDir(), MakeUp: true}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, FileName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	for what, bad := range map[string]string{
		"empty": "", "cut off": text[:len(text)/2], "another version": strings.Replace(text, `"format": 1`, `"format": 2`, 1),
		"another key order": strings.Replace(text, `"version": 0`, `"version": 7`, 1), "no JSON": "keys",
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete it") {
			t.Errorf("%s: %v, want an error that names the file and says what to do", what, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(o); err != nil || !again.Ring().Equal(s.Ring()) {
		t.Errorf("the file itself: %v", err)
	}
}

func TestTheKeysInUseAreThoseOfTheRing(t *testing.T) {
	s, err := Open(Options{Configured: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	var used [][]byte
	if err := s.Use(func(r Ring) error { used = append(used, r.Keys[0]); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Merge(ring(5, 2)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Merge(ring(4, 3)); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(used, [][]byte{key(1), key(2)}, bytes.Equal) {
		t.Errorf("used %v, want keys 1 and 2", used)
	}
}

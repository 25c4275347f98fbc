package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

// shelf is a log store that gives out what was put on it, whatever it is.
type shelf struct {
	raft.LogStore
	log raft.Log
}

func (s *shelf) StoreLogs(logs []*raft.Log) error {
	s.log = *logs[0]
	s.log.Data, s.log.Extensions = bytes.Clone(s.log.Data), bytes.Clone(s.log.Extensions)
	return nil
}

func (s *shelf) GetLog(_ uint64, l *raft.Log) error {
	*l = s.log
	return nil
}

// FuzzLogEntry stores an entry, damages what lies in the store, and reads it: it
// comes back as it was, or not at all.
func FuzzLogEntry(f *testing.F) {
	f.Add(uint64(1), uint64(1), byte(0), []byte("data"), []byte(nil), []byte(nil))
	f.Add(uint64(1), uint64(1), byte(0), []byte("data"), []byte("more"), append([]byte{0}, fuzz.FlipsAt(2)...))
	f.Add(uint64(7), uint64(3), byte(5), []byte(nil), []byte("x"), append([]byte{1}, fuzz.FlipsAt(2, 3)...))
	f.Add(uint64(7), uint64(3), byte(5), []byte("x"), []byte("x\xc5"), append([]byte{2, 0, 0, 0, 0, 0, 0, 0, 1}, fuzz.FlipsAt(1)...))
	f.Add(uint64(7), uint64(3), byte(1), []byte("x"), []byte{}, []byte{3, 0, 0, 0, 0, 0, 0, 0, 1, 4, 2})
	f.Fuzz(func(t *testing.T, index, term uint64, kind byte, data, extensions, choices []byte) {
		want := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: extensions}
		store := &shelf{}
		log := checkedLog{store}
		if err := log.StoreLog(&want); err != nil {
			t.Fatal(err)
		}
		c := &fuzz.Bytes{Data: choices}
		spoil(&store.log, c)
		var got raft.Log
		err := log.GetLog(index, &got)
		same := got.Index == want.Index && got.Term == want.Term && got.Type == want.Type &&
			bytes.Equal(got.Data, want.Data) && bytes.Equal(got.Extensions, want.Extensions)
		switch {
		case err == nil && !same:
			t.Errorf("stored %+v, got %+v", want, got)
		case err != nil && len(choices) == 0:
			t.Errorf("stored %+v and cannot read it: %v", want, err)
		}
	})
}

// spoil changes a field of a stored entry.
func spoil(l *raft.Log, c *fuzz.Bytes) {
	if c.Empty() {
		return
	}
	switch c.Pick(5) {
	case 0:
		l.Data, _ = fuzz.Damage(l.Data, c)
	case 1:
		l.Extensions, _ = fuzz.Damage(l.Extensions, c)
	case 2:
		l.Index ^= c.Uint64()
	case 3:
		l.Term ^= c.Uint64()
		l.Type ^= raft.LogType(c.Pick(256))
	case 4: // bytes move from one to the other
		all := slices.Concat(l.Data, l.Extensions)
		at := c.Pick(256) % (len(all) + 1)
		l.Data, l.Extensions = all[:at], all[at:]
	}
}

// FuzzStableRecord puts any bytes where the term or the vote lies: they are
// refused, or they are the very bytes that this term or vote is written as.
func FuzzStableRecord(f *testing.F) {
	s := stableOn(f, raft.NewInmemStore())
	if err := errors.Join(s.SetUint64([]byte(keyTerm), 3), s.SetUint64([]byte(keyVoteTerm), 3), s.Set([]byte(keyVoteCand), []byte("b"))); err != nil {
		f.Fatal(err)
	}
	inner := s.(*guardedStable).inner
	for _, vote := range []bool{false, true} {
		rec, err := inner.Get([]byte(recordKey(vote)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(vote, rec, []byte(nil))
		f.Add(!vote, rec, []byte(nil)) // one in the place of the other
		f.Add(vote, rec, fuzz.FlipsAt(7))
		f.Add(vote, rec[:len(rec)-1], []byte(nil))
	}
	f.Add(true, []byte{}, []byte(nil))
	f.Fuzz(func(t *testing.T, vote bool, rec, choices []byte) {
		rec, _ = fuzz.Damage(rec, &fuzz.Bytes{Data: choices})
		store := raft.NewInmemStore()
		if err := store.Set([]byte(recordKey(vote)), rec); err != nil {
			t.Fatal(err)
		}
		got, err := newGuardedStable(store, &Stores{})
		if err != nil || len(rec) == 0 {
			return
		}
		body := binary.BigEndian.AppendUint64(nil, got.term)
		if vote {
			body = append(binary.BigEndian.AppendUint64(nil, got.voteTerm), got.voteCand...)
		}
		if want := binary.BigEndian.AppendUint32(body, recordSum(recordKey(vote), body)); !bytes.Equal(rec, want) {
			t.Errorf("%q was read as term %d, vote %d for %q, which is written as %q", rec, got.term, got.voteTerm, got.voteCand, want)
		}
	})
}

func recordKey(vote bool) string {
	if vote {
		return keyVoteRecord
	}
	return keyTermRecord
}

// FuzzSnapshotMeta damages the description of the newer of two snapshots: it is
// left out, or it says what it said.
func FuzzSnapshotMeta(f *testing.F) {
	o, _, newer := withSnapshots(f, 1)
	s := mustOpen(f, o)
	all, err := s.Snapshots.List()
	if err != nil || len(all) != 2 {
		f.Fatalf("List = %v, %v", all, err)
	}
	want := all[0]
	dir := filepath.Join(o.Dir, snapshotDir, newer)
	meta, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		f.Fatal(err)
	}
	check, err := os.ReadFile(filepath.Join(dir, checkFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil), []byte(nil))
	f.Add(fuzz.FlipsAt(30), []byte(nil))
	f.Add([]byte(nil), fuzz.FlipsAt(1))
	f.Add(fuzz.FlipsAt(100), fuzz.FlipsAt(1, 2))
	f.Fuzz(func(t *testing.T, inMeta, inCheck []byte) {
		bad, different := fuzz.Damage(meta, &fuzz.Bytes{Data: inMeta})
		badCheck, differentToo := fuzz.Damage(check, &fuzz.Bytes{Data: inCheck})
		if err := errors.Join(os.WriteFile(filepath.Join(dir, metaFile), bad, 0o600), os.WriteFile(filepath.Join(dir, checkFile), badCheck, 0o600)); err != nil {
			t.Fatal(err)
		}
		all, err := s.Snapshots.List()
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		there := len(all) > 0 && all[0].ID == newer
		if !there {
			if !different && !differentToo {
				t.Error("a good snapshot was left out")
			}
			return
		}
		if !reflect.DeepEqual(all[0], want) {
			t.Errorf("listed %+v, written was %+v, from %q", all[0], want, bad)
		}
		m, r, err := s.Snapshots.Open(newer)
		if err != nil {
			return
		}
		defer r.Close()
		if b, err := io.ReadAll(r); err != nil || string(b) != "newer" || !reflect.DeepEqual(m, want) {
			t.Errorf("opened %+v with %q, %v", m, b, err)
		}
	})
}

// FuzzDamagedDirectory damages one file of a data directory: the directory is
// refused with advice, or raft reads from it what was stored.
func FuzzDamagedDirectory(f *testing.F) {
	type stored struct {
		o     StoreOptions
		paths []string
		files map[string][]byte
		want  contents
	}
	var dirs []stored
	for _, kind := range kinds {
		d := stored{o: seeded(f, kind)}
		s := mustOpen(f, d.o)
		var err error
		if d.want, err = read(s); err != nil {
			f.Fatal(err)
		}
		mustClose(f, s)
		d.files = filesIn(f, d.o.Dir)
		for path := range d.files {
			d.paths = append(d.paths, path)
		}
		slices.Sort(d.paths)
		dirs = append(dirs, d)
		for i := range d.paths {
			f.Add(byte(len(dirs)-1), byte(i), fuzz.FlipsAt(20))
			f.Add(byte(len(dirs)-1), byte(i), fuzz.FlipsAt(4200))
		}
	}
	f.Fuzz(func(t *testing.T, kind, file byte, choices []byte) {
		defer fuzz.Watch()()
		d := dirs[int(kind)%len(dirs)]
		path := d.paths[int(file)%len(d.paths)]
		restore(t, d.files)
		bad, _ := fuzz.Damage(d.files[path], &fuzz.Bytes{Data: choices})
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStores(d.o)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("OpenStores = %v, want ErrDamaged or nil", err)
			}
			return
		}
		got, err := read(s)
		if err != nil || !reflect.DeepEqual(got, d.want) {
			t.Errorf("%s is damaged, raft would read %+v, %v; want %+v", filepath.Base(path), got, err, d.want)
		}
		mustClose(t, s)
	})
}

// FuzzIdentity takes any bytes for an identity file: they are refused, or they
// are an identity that is complete and is written back as the same.
func FuzzIdentity(f *testing.F) {
	whole := Identity{
		Version: 1, NodeID: "a", ClusterID: "c<&>", LogStore: LogStoreWAL, HasState: true, HasLog: true,
		Promise: map[string]string{"a": "h:1", "b": "h:2"}, Created: time.Unix(1, 0).UTC(),
	}
	good, err := encodeIdentity(whole)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte(nil))
	f.Add(good, fuzz.FlipsAt(40))
	f.Add(good, fuzz.FlipsAt(3)) // of the indentation
	f.Add([]byte("{}"), []byte(nil))
	f.Add([]byte(`{"identity":null,"crc32c":0}`), []byte(nil))
	f.Fuzz(func(t *testing.T, b, choices []byte) {
		bad, _ := fuzz.Damage(b, &fuzz.Bytes{Data: choices})
		id, err := decodeIdentity(bad)
		if err != nil {
			if bytes.Equal(bad, good) {
				t.Errorf("a good identity is refused: %v", err)
			}
			return
		}
		if id.NodeID == "" || id.Version != identityVersion {
			t.Errorf("decodeIdentity(%q) = %+v", bad, id)
		}
		if bytes.Equal(b, good) && !reflect.DeepEqual(id, whole) {
			t.Errorf("%q was read as %+v, written was %+v", bad, id, whole)
		}
		again, err := encodeIdentity(id)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeIdentity(again); err != nil || !reflect.DeepEqual(back, id) {
			t.Errorf("%+v was written and read as %+v, %v", id, back, err)
		}
	})
}

// FuzzBoltCheck damages a bbolt file. What the check lets through, bbolt must be
// able to open and walk: it would end this process if it could not.
func FuzzBoltCheck(f *testing.F) {
	path := filepath.Join(tempDir(f), "db")
	growFor(f, path, false, 1, 3)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil))
	page := uint64(os.Getpagesize())
	for i := range uint64(len(good)) / page {
		f.Add(fuzz.FlipsAt(i*page + 8))
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		defer fuzz.Watch()()
		path := filepath.Join(tempDir(t), "db")
		bad, different := fuzz.Damage(good, &fuzz.Bytes{Data: choices})
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkBolt(path); err == nil {
			walk(t, path)
		} else if !different {
			t.Errorf("a good file is refused: %v", err)
		}
	})
}

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
	"github.com/locknode/locknode/internal/proof/testall"
)

// seeded makes a closed directory with 40 entries, a term and a vote.
func seeded(t testing.TB, kind string) StoreOptions {
	t.Helper()
	o := StoreOptions{Dir: tempDir(t), LogStore: kind, NodeID: "n1"}
	s := mustOpen(t, o)
	fill(t, s, 40)
	if err := castVote(s, 3, "b"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	return o
}

func castVote(s *Stores, term uint64, candidate string) error {
	return errors.Join(s.Stable.SetUint64([]byte(keyVoteTerm), term), s.Stable.Set([]byte(keyVoteCand), []byte(candidate)))
}

// contents is all that raft can read from stores.
type contents struct {
	term, voteTerm uint64
	vote           string
	logs           []string
}

func read(s *Stores) (c contents, err error) {
	c.term, _ = s.Stable.GetUint64([]byte(keyTerm))
	c.voteTerm, _ = s.Stable.GetUint64([]byte(keyVoteTerm))
	vote, _ := s.Stable.Get([]byte(keyVoteCand))
	c.vote = string(vote)
	first, err := s.Log.FirstIndex()
	if err != nil {
		return c, err
	}
	last, err := s.Log.LastIndex()
	if err != nil || last == 0 {
		return c, err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := s.Log.GetLog(i, &l); err != nil {
			return c, err
		}
		c.logs = append(c.logs, fmt.Sprintf("%d/%d/%d:%s%s", l.Index, l.Term, l.Type, l.Data, l.Extensions))
	}
	return c, nil
}

// TestFlippedByteNeverReachesRaft flips bytes all over the files of a directory.
// Each time the directory is refused with advice, or holds exactly what was
// stored; it never panics and never hangs.
func TestFlippedByteNeverReachesRaft(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := seeded(t, kind)
		s := mustOpen(t, o)
		want, err := read(s)
		if err != nil || len(want.logs) != 40 || want.vote != "b" {
			t.Fatalf("seeded directory: %+v, %v", want, err)
		}
		mustClose(t, s)
		files := filesIn(t, o.Dir)
		refused, harmless := 0, 0
		for path, good := range files {
			for _, at := range positions(good, flips()) {
				bad := bytes.Clone(good)
				bad[at] ^= 0x11
				restore(t, files)
				if err := os.WriteFile(path, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				where := fmt.Sprintf("%s byte %d", strings.TrimPrefix(path, o.Dir), at)
				s, err := OpenStores(o)
				switch {
				case errors.Is(err, ErrDamaged):
					refused++
					continue
				case errors.Is(err, ErrWrongNode), errors.Is(err, ErrWrongStore), err != nil:
					t.Fatalf("%s: OpenStores = %v, want ErrDamaged or nil", where, err)
				}
				got, err := read(s)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%s: accepted, but raft would read %+v, %v; want %+v", where, got, err, want)
				}
				mustClose(t, s)
				harmless++
			}
		}
		t.Logf("%d flips refused, %d without effect", refused, harmless)
		if refused < 2*flips() {
			t.Errorf("only %d flips were refused; the test does not hit", refused)
		}
	})
}

// positions are up to n of the non-zero bytes of a file, evenly spread, and a few
// zero ones.
func positions(b []byte, n int) (at []int) {
	var set []int
	for i, c := range b {
		if c != 0 {
			set = append(set, i)
		}
	}
	for i := range min(n, len(set)) {
		at = append(at, set[i*len(set)/min(n, len(set))])
	}
	for i := range 5 {
		at = append(at, i*len(b)/5)
	}
	return at
}

func filesIn(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 1<<20 { // a preallocated segment: keep what is used
			b = append(bytes.TrimRight(b, "\x00"), make([]byte, 4096)...)
		}
		files[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// restore puts the files back, and only them.
func restore(t testing.TB, files map[string][]byte) {
	t.Helper()
	var dir string
	for path := range files {
		if d := filepath.Dir(path); dir == "" || len(d) < len(dir) {
			dir = d
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		if _, ok := files[path]; !ok {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The error of a flipped byte in an entry names file, index and the way out.
func TestFlippedEntryIsNamed(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := seeded(t, kind)
		for path, b := range filesIn(t, o.Dir) {
			good := fmt.Appendf(nil, "%-99d|", 17)
			bad := bytes.Clone(good)
			bad[50] ^= 1
			b = bytes.ReplaceAll(b, good, bad) // bbolt has copies of old pages
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := &Stores{dir: o.Dir, identity: Identity{LogStore: kind}}
		wantDamaged(t, o, "entry 17 ", s.logPath(), "checksum", "locknode reseed --data-dir "+o.Dir)
	})
}

// An entry that is damaged while the node runs is not handed out either.
func TestFlipWhileRunningIsNotReadBack(t *testing.T) {
	store := raft.NewInmemStore()
	var got []error
	reported := make(chan error, 10)
	s := mustOpen(t, StoreOptions{NodeID: "a", OnFailure: func(err error) { reported <- err },
		Memory: &Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}})
	fill(t, s, 2*logCacheSize)
	var inner raft.Log
	if err := store.GetLog(5, &inner); err != nil {
		t.Fatal(err)
	}
	inner.Data[3] ^= 1 // the store's own copy
	var l raft.Log
	if err := s.Log.GetLog(5, &l); !errors.Is(err, ErrFailed) {
		t.Fatalf("GetLog of a damaged entry = %v, want ErrFailed", err)
	}
	got = append(got, <-reported)
	if err := s.Log.GetLog(6, &l); err != nil {
		t.Errorf("GetLog of a good entry = %v", err)
	}
	if len(got) != 1 || len(reported) != 0 {
		t.Errorf("reported %v and %d more, want one", got, len(reported))
	}
}

func TestMissingFileIsRefused(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := seeded(t, kind)
		files := filesIn(t, o.Dir)
		for path := range files {
			if filepath.Base(path) == identityFile {
				continue // TestFilesWithoutIdentityAreRefused
			}
			t.Run(filepath.Base(path), func(t *testing.T) {
				restore(t, files)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				wantDamaged(t, o)
				if there, err := exists(path); there && filepath.Ext(path) != ".wal" || err != nil {
					t.Errorf("the missing file was made again: %v", err)
				}
				wantDamaged(t, o) // not only the first time
			})
		}
		restore(t, files)
		mustClose(t, mustOpen(t, o))
	})
}

// The end of a segment that is cut or damaged looks like a torn write.
// The mark knows that it was acknowledged.
func TestCutLogIsRefused(t *testing.T) {
	o := seeded(t, LogStoreWAL)
	files := filesIn(t, o.Dir)
	for path, good := range files {
		if filepath.Ext(path) != ".wal" {
			continue
		}
		used := len(bytes.TrimRight(good, "\x00"))
		for at := used - 1; at > 0; at -= 197 {
			restore(t, files)
			cut := bytes.Clone(good)
			clear(cut[at:])
			if err := os.WriteFile(path, cut, 0o600); err != nil {
				t.Fatal(err)
			}
			wantDamaged(t, o)
		}
	}
}

// A batch that was never acknowledged may be lost: that is an ordinary crash.
func TestTornBatchThatNobodySawIsDropped(t *testing.T) {
	o := seeded(t, LogStoreWAL)
	s := mustOpen(t, o)
	// What the crash left: the batch is on disk, the mark is not written.
	if err := s.Log.(*raft.LogCache).StoreLogs(rafttest.Entries(41, 50, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.mark.Advance(1, 40, 3); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	for path, b := range filesIn(t, o.Dir) {
		if filepath.Ext(path) != ".wal" {
			continue
		}
		used := len(bytes.TrimRight(b, "\x00"))
		clear(b[used-500:]) // torn
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, o)
	if last, err := s.Log.LastIndex(); last != 40 || err != nil {
		t.Errorf("LastIndex = %d, %v; want 40", last, err)
	}
	if err := s.Log.StoreLogs(rafttest.Entries(41, 45, 4)); err != nil {
		t.Error(err)
	}
}

// Files that were put back from an earlier copy are consistent in themselves.
func TestEarlierCopyIsRefused(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		for _, part := range []string{"log", stableFile} {
			t.Run(part, func(t *testing.T) {
				o := seeded(t, kind)
				early := filesIn(t, o.Dir)
				s := mustOpen(t, o)
				if err := s.Stable.SetUint64([]byte(keyTerm), 9); err != nil {
					t.Fatal(err)
				}
				if err := s.Log.StoreLogs(rafttest.Entries(41, 60, 9)); err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
				for path, b := range early {
					rel, _ := filepath.Rel(o.Dir, path)
					if strings.HasPrefix(rel, part) {
						if err := os.WriteFile(path, b, 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
				wantDamaged(t, o)
			})
		}
	})
}

// A term or a vote that was forgotten shows against the mark, or, when the mark
// went with the power, against the log.
func TestForgottenTermOrVoteIsRefused(t *testing.T) {
	later := map[string]func(s *Stores) error{
		"term": func(s *Stores) error { return s.Stable.SetUint64([]byte(keyTerm), 9) },
		"vote": func(s *Stores) error { return castVote(s, 4, "c") },
	}
	for name, promise := range later {
		o := seeded(t, LogStoreWAL)
		stable := filepath.Join(o.Dir, stableFile)
		early, err := os.ReadFile(stable)
		if err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, o)
		if err := promise(s); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		if err := os.WriteFile(stable, early, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		wantDamaged(t, o, stableFile, "acknowledged")
	}

	o := seeded(t, LogStoreWAL)
	empty := StoreOptions{Dir: tempDir(t)}
	mustClose(t, mustOpen(t, empty))
	b, err := os.ReadFile(filepath.Join(empty.Dir, stableFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(o.Dir, stableFile), b, 0o600), os.Truncate(filepath.Join(o.Dir, markFile), 0)); err != nil {
		t.Fatal(err)
	}
	wantDamaged(t, o, "the log holds term 3")
}

// swapped answers with another entry than it was asked for.
type swapped struct{ *raft.InmemStore }

func (s swapped) GetLog(i uint64, l *raft.Log) error {
	if i == 7 {
		i = 8
	}
	return s.InmemStore.GetLog(i, l)
}

func TestEntryInTheWrongPlaceIsRefused(t *testing.T) {
	mem := memory()
	s := mustOpen(t, StoreOptions{NodeID: "a", Memory: mem})
	fill(t, s, 10)
	mem.Log = swapped{mem.Log.(*raft.InmemStore)}
	if _, err := OpenStores(StoreOptions{NodeID: "a", Memory: mem}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "entry 7") {
		t.Errorf("OpenStores = %v, want ErrDamaged at entry 7", err)
	}
}

// What raft itself cuts must not be missed afterwards.
func TestTruncationByRaftIsNotDamage(t *testing.T) {
	cuts := map[string][2]uint64{
		"suffix":     {30, 40},
		"prefix":     {1, 20},
		"everything": {1, 40},
	}
	forEachKind(t, func(t *testing.T, kind string) {
		for name, cut := range cuts {
			t.Run(name, func(t *testing.T) {
				o := seeded(t, kind)
				if name != "suffix" { // raft has a snapshot then
					s := mustOpen(t, o)
					takeSnapshot(t, s, 40, "state")
					mustClose(t, s)
				}
				s := mustOpen(t, o)
				if err := s.Log.DeleteRange(cut[0], cut[1]); err != nil {
					t.Fatal(err)
				}
				want, err := read(s)
				if err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
				s = mustOpen(t, o)
				if got, err := read(s); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("after reopening: %v, %v; want %v", got, err, want)
				}
				next := uint64(41)
				if name == "suffix" {
					next = 30
				}
				if err := s.Log.StoreLogs(rafttest.Entries(next, next+5, 4)); err != nil {
					t.Fatal(err)
				}
				if err := s.Stable.SetUint64([]byte(keyTerm), 4); err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
				mustClose(t, mustOpen(t, o))
			})
		}
	})
}

func TestEmptiedLogIsRefused(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := seeded(t, kind)
		s := &Stores{dir: o.Dir, identity: Identity{LogStore: kind}}
		// Another, empty log in its place: all files are there.
		other := StoreOptions{Dir: tempDir(t), LogStore: kind}
		mustClose(t, mustOpen(t, other))
		if err := os.RemoveAll(s.logPath()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename((&Stores{dir: other.Dir, identity: s.identity}).logPath(), s.logPath()); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, o)
		// Also when the mark was lost with the power.
		if err := os.Truncate(filepath.Join(o.Dir, markFile), 0); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, o, "empty")
	})
}

func TestWipedMemoryIsRefused(t *testing.T) {
	store := raft.NewInmemStore()
	mem := &Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}
	mem.SaveIdentity = func(id Identity) error { mem.Identity = id; return nil }
	s := mustOpen(t, StoreOptions{NodeID: "a", Memory: mem})
	fill(t, s, 10)
	mustClose(t, s)
	mustClose(t, mustOpen(t, StoreOptions{NodeID: "a", Memory: mem}))
	mem.Log = raft.NewInmemStore()
	if _, err := OpenStores(StoreOptions{NodeID: "a", Memory: mem}); !errors.Is(err, ErrDamaged) {
		t.Errorf("OpenStores on a wiped log = %v, want ErrDamaged", err)
	}
}

// takeSnapshot makes a snapshot up to index, of term 3.
func takeSnapshot(t testing.TB, s *Stores, index uint64, data string) string {
	t.Helper()
	_, trans := raft.NewInmemTransport("n1")
	conf := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1"}, {ID: "n2", Address: "n2"}}}
	time.Sleep(2 * time.Millisecond) // the ID has milliseconds
	sink, err := s.Snapshots.Create(1, index, 3, conf, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := rafttest.Payload(data).Persist(sink); err != nil {
		t.Fatal(err)
	}
	return sink.ID()
}

// flips is how many bytes of a file to flip.
func flips() int {
	if !testall.On() {
		return 5
	}
	return 20
}

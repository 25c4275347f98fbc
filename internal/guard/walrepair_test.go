package guard

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// sealing is a log in the moment in which a segment becomes full: its directory
// before the last append to the segment, and the segment's file after it.
type sealing struct {
	before  map[string][]byte // path in the directory → content
	segment string            // path
	after   []byte
	last    uint64 // the last entry before
}

const smallSegment = 16 << 10

// bigEntry fills a small segment in few appends.
func bigEntry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, 3<<10)}
}

func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			files[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func writeTree(t *testing.T, files map[string][]byte) (dir string) {
	t.Helper()
	dir = tempDir(t)
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func segments(files map[string][]byte) (names []string) {
	for name := range files {
		if filepath.Ext(name) == ".wal" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fillSegment appends until the first segment is full.
func fillSegment(t *testing.T) (s sealing) {
	t.Helper()
	dir := tempDir(t)
	o := StoreOptions{Dir: dir, NodeID: "n1", LogStore: LogStoreWAL, segmentSize: smallSegment}
	for next := uint64(1); ; next++ {
		// Opened and closed each time, so that the files are as they are on disk.
		stores := mustOpen(t, o)
		if next == 1 {
			if err := stores.Stable.SetUint64([]byte(keyTerm), 3); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, stores)
		s.before = readTree(t, dir)
		stores = mustOpen(t, o)
		s.last = next - 1
		if err := stores.Log.StoreLog(bigEntry(next)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, stores)
		files := readTree(t, dir)
		s.segment = segments(files)[0]
		s.after = files[s.segment]
		tail, err := readWALTail(bytes.NewReader(s.after), 1)
		if err != nil {
			t.Fatal(err)
		}
		if tail.indexStart != 0 {
			return s
		}
	}
}

// cut is the directory if the process ends when so many bytes of the append were
// written.
func (s sealing) cut(t *testing.T, n int) (dir string) {
	t.Helper()
	files := map[string][]byte{}
	for name, content := range s.before {
		files[name] = content
	}
	torn := slices.Clone(s.after)
	from := s.changed()
	for i := from + n; i < len(torn); i++ {
		torn[i] = 0
		if i < len(files[s.segment]) {
			torn[i] = files[s.segment][i]
		}
	}
	files[s.segment] = torn
	return writeTree(t, files)
}

// changed is where the append begins in the file.
func (s sealing) changed() int {
	for i, b := range s.after {
		if i >= len(s.before[s.segment]) || s.before[s.segment][i] != b {
			return i
		}
	}
	return len(s.after)
}

// length of what was appended, to the end of the commit frame.
func (s sealing) length() int {
	return len(bytes.TrimRight(s.after, "\x00")) - s.changed()
}

// Wherever the process ends while a segment is filled, nothing acknowledged is lost
// and the log can be appended to, now and later.
func TestEndOfTheProcessWhileASegmentIsFilledLosesNothing(t *testing.T) {
	s := fillSegment(t)
	n := s.length()
	points := []int{0, 8, 9, 1000}
	for at := n - 120; at <= n; at++ { // the end of the entry, the index and the commit
		points = append(points, at)
	}
	for _, at := range points {
		dir := s.cut(t, at)
		o := StoreOptions{Dir: dir, NodeID: "n1", segmentSize: smallSegment}
		next := uint64(0)
		for life := range 3 {
			stores, err := OpenStores(o)
			if err != nil {
				t.Fatalf("cut after %d of %d bytes, life %d: %v", at, n, life, err)
			}
			last, err := stores.Log.LastIndex()
			if err != nil || last < s.last || life > 0 && last != next {
				t.Fatalf("cut after %d of %d bytes, life %d: the log ends at %d, %v; want at least %d", at, n, life, last, err, max(s.last, next))
			}
			for i := uint64(1); i <= last; i++ {
				var l raft.Log
				if err := stores.Log.GetLog(i, &l); err != nil || !bytes.Equal(l.Data, bigEntry(i).Data) {
					t.Fatalf("cut after %d of %d bytes, life %d: entry %d of %d bytes: %v", at, n, life, i, len(l.Data), err)
				}
			}
			next = last + 1
			if err := stores.Log.StoreLog(bigEntry(next)); err != nil {
				t.Fatalf("cut after %d of %d bytes, life %d: append of entry %d: %v", at, n, life, next, err)
			}
			mustClose(t, stores)
		}
		_ = os.RemoveAll(dir)
	}
}

// The trap: raft-wal by itself refuses every append after that.
func TestRaftWALAloneIsStuckAfterThat(t *testing.T) {
	s := fillSegment(t)
	n := s.length()
	for _, at := range []int{n, n - 8} { // all of it, and all but the commit
		for life := range 2 {
			t.Run(fmt.Sprintf("cut=%d/life=%d", n-at, life), func(t *testing.T) {
				w, err := wal.Open(filepath.Join(s.cut(t, at), logDir), wal.WithSegmentSize(smallSegment))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = w.Close() }()
				last, err := w.LastIndex()
				if err != nil {
					t.Fatal(err)
				}
				if err := w.StoreLog(bigEntry(last + 1)); err == nil {
					t.Error("the append succeeded: raft-wal has changed, and repairWAL may not be needed any more")
				}
			})
		}
	}
}

// A log whose acknowledged end is damaged looks like a torn one. It is not cut.
func TestDamageIsNotRepairedAway(t *testing.T) {
	s := fillSegment(t)
	dir := s.cut(t, s.length())
	// The append was acknowledged: the mark says so.
	m, err := openMark(filepath.Join(dir, markFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.advance(s.last+1, 3); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, s.segment)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[s.changed()+100] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	wantDamaged(t, StoreOptions{Dir: dir, NodeID: "n1", segmentSize: smallSegment}, "acknowledged")
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, b) {
		t.Error("the evidence was changed")
	}
}

package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// rig is a log on a disk in memory.
type rig struct {
	*Log
	t    testing.TB
	disk *disk
	mark *Mark
	o    Options
}

func newRig(t testing.TB, segmentSize int64) *rig {
	r := &rig{t: t, disk: newDisk(rand.New(rand.NewPCG(1, 1)))} //nolint:gosec // a test
	r.o = Options{Dir: "data/log", FS: r.disk, SegmentSize: segmentSize, inline: true}
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	return r
}

// open opens the log on what the disk has.
func (r *rig) open() (err error) {
	r.o.FS = r.disk
	if r.mark, err = OpenMark(r.disk, "data/mark"); err != nil {
		return err
	}
	r.o.Mark = r.mark
	r.Log, err = Open(r.o)
	return err
}

// reopen closes the log and opens it, which must succeed.
func (r *rig) reopen() {
	r.t.Helper()
	r.close()
	if err := r.open(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	r.t.Helper()
	if err := errors.Join(r.Close(), r.mark.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// add appends entries one by one.
func (r *rig) add(entries ...*raft.Log) {
	r.t.Helper()
	for _, e := range entries {
		if err := r.StoreLog(e); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) cut(from, to uint64) {
	r.t.Helper()
	if err := r.DeleteRange(from, to); err != nil {
		r.t.Fatalf("DeleteRange(%d, %d): %v", from, to, err)
	}
}

// wants demands these entries and no others.
func (r *rig) wants(entries ...*raft.Log) {
	r.t.Helper()
	var c content
	for _, e := range entries {
		c.entries = append(c.entries, *e)
	}
	if err := c.differs(r.Log); err != nil {
		r.t.Fatal(err)
	}
}

// batch are entries of a term with 200 bytes each.
func batch(from, to, term uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		data := bytes.Repeat(fmt.Appendf(nil, "%4d/%3d;", i, term), 25)
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: data, AppendedAt: time.Unix(int64(i), 5)}) //nolint:gosec // small
	}
	return logs
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	r := newRig(t, 0)
	logs := []*raft.Log{
		{Index: 7, Term: 1, Type: raft.LogConfiguration, Data: []byte("x"), Extensions: []byte("y"), AppendedAt: time.Unix(1700000000, 123456789)},
		{Index: 8, Term: 1, Type: raft.LogBarrier},
		{Index: 9, Term: 3, Type: 255, Data: make([]byte, 100_000), AppendedAt: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)},
		{Index: 10, Term: 1 << 62, Extensions: []byte("only these")},
	}
	if err := r.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	r.wants(logs...)
	r.reopen()
	r.wants(logs...)
	var e raft.Log
	if err := r.GetLog(8, &e); err != nil || !e.AppendedAt.IsZero() || e.Data != nil || e.Extensions != nil {
		t.Errorf("an entry of nothing comes back as %+v, %v", e, err)
	}
	for _, index := range []uint64{0, 6, 11} {
		if err := r.GetLog(index, &e); err != raft.ErrLogNotFound { //nolint:errorlint // raft compares with ==
			t.Errorf("GetLog(%d) = %v, want ErrLogNotFound itself", index, err)
		}
	}
}

func TestEntriesFollowEachOther(t *testing.T) {
	r := newRig(t, 0)
	r.add(batch(5, 6, 1)...)
	for _, logs := range [][]*raft.Log{batch(6, 6, 1), batch(8, 8, 1), {batch(7, 7, 1)[0], batch(9, 9, 1)[0]}, {{Index: 0}}} {
		if err := r.StoreLogs(logs); err == nil || !strings.Contains(err.Error(), "the next entry of the log is") {
			t.Errorf("StoreLogs of entry %d behind 6 = %v", logs[0].Index, err)
		}
	}
	if err := r.DeleteRange(1, 3); err != nil {
		t.Errorf("DeleteRange of nothing = %v", err)
	}
	r.add(batch(7, 9, 1)...)
	if err := r.DeleteRange(6, 7); err == nil {
		t.Error("entries in the middle were deleted")
	}
	r.wants(batch(5, 9, 1)...)
}

func TestEntryLongerThanASegment(t *testing.T) {
	r := newRig(t, 16<<10)
	big := &raft.Log{Index: 3, Term: 1, Data: bytes.Repeat([]byte("big "), 25_000)}
	all := append(batch(1, 2, 1), big)
	all = append(all, batch(4, 200, 1)...)
	r.add(all...)
	r.wants(all...)
	r.reopen()
	r.wants(all...)
	if err := r.StoreLog(&raft.Log{Index: 201, Term: 1, Data: big.Data}); err != nil { // the first one, too
		t.Fatal(err)
	}
	empty := newRig(t, 16<<10)
	empty.add(&raft.Log{Index: 1, Term: 1, Data: big.Data})
	empty.reopen()
	empty.wants(&raft.Log{Index: 1, Term: 1, Data: big.Data})
}

// A small log is a small file, a longer one has longer files.
func TestSegmentsGrow(t *testing.T) {
	r := newRig(t, 256<<10)
	r.add(batch(1, 4000, 1)...)
	var sizes []int
	for _, name := range r.disk.segments() {
		sizes = append(sizes, len(r.disk.names[name].cache))
	}
	if len(sizes) < 6 || sizes[0] != 16<<10 || sizes[1] != 32<<10 || sizes[4] != 256<<10 || sizes[5] != 256<<10 {
		t.Errorf("segments have %v bytes", sizes)
	}
}

// An append is one write and one sync of the segment, and one write of the mark; it never
// makes a file longer.
func TestAppendIsOneWriteAndOneSync(t *testing.T) {
	r := newRig(t, 0)
	r.add(batch(1, 1, 1)...)
	var ops []string
	r.disk.failing = func(op, path string) error {
		ops = append(ops, op+" "+filepath.Ext(path))
		return nil
	}
	size := len(r.disk.names[r.disk.segments()[0]].cache)
	if err := r.StoreLogs(batch(2, 65, 1)); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(ops, ", "), "write .wal, sync .wal, write "; got != want {
		t.Errorf("an append does %q, want %q", got, want)
	}
	if now := len(r.disk.names[r.disk.segments()[0]].cache); now != size {
		t.Errorf("the file had %d bytes and has %d", size, now)
	}
}

func TestAppendAllocatesNothingForAnEntry(t *testing.T) {
	dir := t.TempDir()
	mark, err := OpenMark(OS{}, filepath.Join(dir, "mark"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: filepath.Join(dir, "log"), Mark: mark})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(l.Close(), mark.Close()) }()
	next := uint64(1)
	logs := batch(1, 64, 1)
	got := testing.AllocsPerRun(20, func() {
		for _, e := range logs {
			e.Index = next
			next++
		}
		if err := l.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	})
	if got > 8 {
		t.Errorf("an append of 64 entries makes %v allocations", got)
	}
}

// Files of segments that the front does not need any more become later segments; what they
// held is not in the log.
func TestRecycledFilesHoldNothingOld(t *testing.T) {
	r := newRig(t, 32<<10)
	r.add(batch(1, 600, 1)...)
	r.cut(1, 590)
	files := map[*inode]bool{}
	for _, n := range r.disk.names {
		files[n] = true
	}
	reused := 0
	for next := uint64(601); next < 3000; next += 10 {
		r.add(batch(next, next+9, 1)...)
		r.cut(1, next-5)
		r.reopen()
		r.wants(batch(next-4, next+9, 1)...)
	}
	for _, n := range r.disk.names {
		if files[n] {
			reused++
		}
	}
	if reused == 0 {
		t.Error("no file was used again; the test does not hit")
	}
	if len(r.disk.segments()) > 3 {
		t.Errorf("%v: segments that are not needed are still there", r.disk)
	}
}

// What was cut off at the end does not come back, whatever follows.
func TestCutEndStaysCut(t *testing.T) {
	r := newRig(t, 32<<10)
	r.add(batch(1, 200, 1)...)
	for _, from := range []uint64{200, 190, 150, 120, 119, 3, 2} {
		r.cut(from, 200)
		r.wants(batch(1, from-1, 1)...)
		r.reopen()
		r.wants(batch(1, from-1, 1)...)
		r.add(batch(from, from, from)...) // of the same length as the one that was there
		r.reopen()
		r.wants(append(batch(1, from-1, 1), batch(from, from, from)...)...)
		r.cut(from, from)
	}
}

func TestFrontAndAllCanBeCut(t *testing.T) {
	r := newRig(t, 32<<10)
	r.add(batch(1, 300, 1)...)
	r.cut(1, 100)
	r.reopen()
	r.wants(batch(101, 300, 1)...)
	r.cut(1, 299)
	r.reopen()
	r.wants(batch(300, 300, 1)...)
	r.cut(300, 300)
	r.wants()
	r.reopen()
	r.wants()
	r.add(batch(1000, 1010, 2)...)
	r.reopen()
	r.wants(batch(1000, 1010, 2)...)
	if n := len(r.disk.segments()); n != 1 {
		t.Errorf("%v: %d segments, want 1", r.disk, n)
	}
}

// A full disk: what was acknowledged stays, and the log goes on when there is room.
func TestFullDiskRefusesBeforeItWrites(t *testing.T) {
	r := newRig(t, 16<<10)
	full := false
	r.disk.failing = func(op, path string) error {
		if full && (op == "create" || op == "write" && strings.HasSuffix(path, freeSuffix)) {
			return syscall.ENOSPC
		}
		return nil
	}
	full = true
	var err error
	next := uint64(1)
	for ; err == nil && next < 1000; next++ {
		err = r.StoreLogs(batch(next, next, 1))
	}
	next--
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "begin segment data/log/") {
		t.Fatalf("append on a full disk = %v, want ENOSPC and the segment", err)
	}
	r.wants(batch(1, next-1, 1)...)
	if err := r.StoreLogs(batch(next, next, 1)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("second append on a full disk = %v, want ENOSPC", err)
	}
	full = false
	r.add(batch(next, next+100, 1)...)
	r.reopen()
	r.wants(batch(1, next+100, 1)...)
}

// After a failed sync, or a write that was cut short, nothing is tried again.
func TestFailedWriteIsTheLastOne(t *testing.T) {
	for _, op := range []string{"write", "sync", "short", "mark"} {
		t.Run(op, func(t *testing.T) {
			r := newRig(t, 0)
			r.add(batch(1, 10, 1)...)
			fail := true
			r.disk.failing = func(did, path string) error {
				isMark := strings.HasSuffix(path, "mark")
				if fail && (did == op && !isMark || op == "mark" && isMark) {
					return syscall.EIO
				}
				return nil
			}
			r.disk.short = op == "short"
			if err := r.StoreLogs(batch(11, 12, 1)); err == nil {
				t.Fatal("a failed append has succeeded")
			} else if op != "short" && !errors.Is(err, syscall.EIO) {
				t.Fatalf("append = %v, want EIO", err)
			}
			fail = false
			before := r.disk.changes
			for _, again := range []error{r.StoreLogs(batch(11, 12, 1)), r.DeleteRange(1, 3), r.DeleteRange(8, 10)} {
				if again == nil {
					t.Error("a write after a failed one has succeeded")
				}
			}
			if r.disk.changes != before {
				t.Errorf("the disk was changed %d times after the failure", r.disk.changes-before)
			}
			r.wants(batch(1, 10, 1)...) // what was acknowledged
			_ = r.Close()
			if err := r.open(); err != nil {
				t.Fatal(err)
			}
			if last, _ := r.LastIndex(); last != 10 && last != 12 {
				t.Errorf("the log ends at %d, want 10 or 12: an append is there as a whole or not at all", last)
			}
		})
	}
}

func TestClosedLogRefusesEverything(t *testing.T) {
	r := newRig(t, 0)
	r.add(batch(1, 3, 1)...)
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	var e raft.Log
	for _, err := range []error{r.GetLog(1, &e), r.StoreLogs(batch(4, 4, 1)), r.DeleteRange(1, 1)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a closed log answers %v, want ErrClosed", err)
		}
	}
}

// Readers are never handed another entry, or called damaged, while the log is cut and its
// files are used again.
func TestReadersAndCutsDoNotMeet(t *testing.T) {
	r := newRig(t, 32<<10)
	r.add(batch(1, 200, 1)...)
	var done sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := r.FirstIndex()
				last, _ := r.LastIndex()
				for i := first; i <= last; i++ {
					var e raft.Log
					err := r.GetLog(i, &e)
					if err != nil && !errors.Is(err, raft.ErrLogNotFound) || err == nil && e.Index != i {
						t.Errorf("GetLog(%d) = %d, %v", i, e.Index, err)
						return
					}
				}
			}
		})
	}
	for next := uint64(201); next < 3000; next += 50 {
		r.add(batch(next, next+49, 1)...)
		r.cut(1, next-100)
		r.cut(next+40, next+49)
		r.add(batch(next+40, next+49, 1)...)
	}
	close(stop)
	done.Wait()
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	mark, err := OpenMark(OS{}, filepath.Join(dir, "mark"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: filepath.Join(dir, "log"), Mark: mark, SegmentSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i < 300; i++ {
		if err := l.StoreLogs(batch(i, i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Close(), mark.Close()); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if want := os.FileMode(0o600); err == nil && !e.IsDir() && info.Mode().Perm() != want ||
			err == nil && e.IsDir() && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

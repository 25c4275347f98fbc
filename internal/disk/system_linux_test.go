package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// whole checks that a directory of withSnapshots(t, 25) still holds everything.
func whole(t *testing.T, o StoreOptions) {
	t.Helper()
	s := mustOpen(t, o)
	defer mustClose(t, s)
	got, err := read(s)
	if err != nil || len(got.logs) != 16 || got.vote != "b" || len(listed(t, s)) != 2 {
		t.Fatalf("the directory holds %+v (%v) and %v, want 16 entries, a vote and two snapshots", got, err, listed(t, s))
	}
	if there, err := exists(filepath.Join(o.Dir, damagedDir)); there || err != nil {
		t.Errorf("%s is there (%v): a good snapshot was moved aside", damagedDir, err)
	}
}

// inItself runs the test again in a process of its own, because of what it changes in it,
// and reports whether this is that process.
func inItself(t *testing.T) bool {
	t.Helper()
	const mark = "GUARD_TEST_ITSELF"
	if os.Getenv(mark) != "" {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	c.Env = append(os.Environ(), mark+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// fewFiles lets the process open so many files more, until the end of the test or the
// next call.
func fewFiles(t *testing.T, more int) {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	r.Cur = r.Max
	if more >= 0 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		r.Cur = uint64(f.Fd()) + uint64(more) // the lowest that is free, and those after it
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
}

// Whichever file is the first that cannot be opened: the start fails, says what to do
// about the limit, and leaves everything as it was.
func TestLackOfFilesAtTheStartIsNotDamage(t *testing.T) {
	if !inItself(t) {
		return
	}
	for _, kind := range kinds {
		o, _, _ := withSnapshots(t, 25)
		if kind == LogStoreBolt {
			o = seeded(t, kind)
		}
		o.OnFailure = func(err error) { t.Errorf("OnFailure(%v) for stores that nobody has yet", err) }
		refused := 0
		for more := 0; ; more++ {
			fewFiles(t, more)
			s, err := OpenStores(o)
			fewFiles(t, -1)
			if err == nil {
				mustClose(t, s)
				break
			}
			wantSystem(t, err, syscall.EMFILE)
			refused++
			if r, err := BeginReseed(o.Dir); err != nil || r.Problem != nil { // nothing holds the directory
				t.Fatalf("BeginReseed = %+v, %v", r, err)
			} else if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if refused < 4 {
			t.Errorf("%s: only %d starts were refused; the test does not hit", kind, refused)
		}
		if kind == LogStoreWAL {
			whole(t, o)
		}
	}
}

func TestReseedDoesNotGiveUpDataThatOnlyCannotBeRead(t *testing.T) {
	if !inItself(t) {
		return
	}
	o, _, _ := withSnapshots(t, 25)
	for more := 0; ; more++ {
		fewFiles(t, more)
		r, err := BeginReseed(o.Dir)
		fewFiles(t, -1)
		if err != nil {
			wantSystem(t, err, syscall.EMFILE)
			continue
		}
		if r.Problem != nil || r.Identity.NodeID != "n1" {
			t.Errorf("BeginReseed with %d files = %+v, want the identity", more, r)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		break
	}
	whole(t, o)
}

// A segment that cannot be begun ends the node, with the cause.
func TestLastWordsNameTheCauseAndNotItsEcho(t *testing.T) {
	if !inItself(t) {
		return
	}
	failed := make(chan error, 2)
	o := StoreOptions{Dir: tempDir(t), NodeID: "n1", segmentSize: 4096, OnFailure: func(err error) { failed <- err }}
	s := mustOpen(t, o)
	fill(t, s, 10)
	fewFiles(t, 0)
	var err error
	for i := uint64(11); i < 1000 && err == nil; i++ {
		err = s.Log.StoreLogs(rafttest.Entries(i, i, 3))
	}
	if err == nil {
		t.Fatal("no segment was begun: the test does not hit")
	}
	told := <-failed
	fewFiles(t, -1)
	for _, err := range []error{told, s.Gate()} {
		wantSystem(t, err, syscall.EMFILE)
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), o.Dir+"/log/") {
			t.Errorf("%v: want ErrFailed and the file", err)
		}
	}
	_ = s.Close()
	last, err := mustOpen(t, o).Log.LastIndex()
	if err != nil || last < 10 {
		t.Errorf("the log ends at %d (%v) after the next start, want all of it", last, err)
	}
}

// asNobody runs f with the rights of a user that owns nothing. Only this thread has them.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := errors.Join(unix.Setfsgid(65534), unix.Setfsuid(65534)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(unix.Setfsuid(0), unix.Setfsgid(0)) }()
	f()
}

// giveAway gives dir to nobody, who must be able to get there.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	for up := filepath.Dir(dir); up != "/tmp" && up != "/dev/shm" && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(path, 65534, 65534))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every file and folder in turn belongs to somebody else, as after a backup that was
// brought back by root.
func TestMissingRightsAreNotDamage(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o, _, _ := withSnapshots(t, 25)
		if kind == LogStoreBolt {
			o = seeded(t, kind)
		}
		giveAway(t, o.Dir)
		var paths []string
		modes := map[string]os.FileMode{}
		if err := filepath.Walk(o.Dir, func(path string, info os.FileInfo, err error) error {
			if err == nil {
				paths, modes[path] = append(paths, path), info.Mode().Perm()
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			asNobody(t, func() {
				s, err := OpenStores(o)
				if err == nil {
					_ = s.Close()
					t.Errorf("%s: OpenStores without any right to it succeeded", path)
					return
				}
				wantSystem(t, err, syscall.EACCES)
			})
			if err := os.Chmod(path, modes[path]); err != nil {
				t.Fatal(err)
			}
		}
		asNobody(t, func() { // nobody may use what is his, so the rights were the only fault
			s, err := OpenStores(o)
			if err != nil {
				t.Errorf("OpenStores with all rights: %v", err)
				return
			}
			_ = s.Close()
		})
		if kind == LogStoreWAL {
			whole(t, o)
		}
	})
}

// The memory of a process, of which the first page is never there, answers every read of
// it with an I/O error.
func TestFilesThatTheDiskCannotReadAreNotCalledDamaged(t *testing.T) {
	o, older, newer := withSnapshots(t, 25)
	segments, err := filepath.Glob(filepath.Join(o.Dir, logDir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	paths := []string{
		filepath.Join(o.Dir, identityFile), filepath.Join(o.Dir, markFile), segments[0],
		filepath.Join(o.Dir, snapshotDir, newer, metaFile), filepath.Join(o.Dir, snapshotDir, newer, checkFile),
		filepath.Join(o.Dir, snapshotDir, newer, "state.bin"), filepath.Join(o.Dir, snapshotDir, older, "state.bin"),
	}
	for _, path := range paths {
		if err := errors.Join(os.Rename(path, path+".good"), os.Symlink("/proc/self/mem", path)); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStores(o)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: OpenStores succeeded without reading it", path)
		} else {
			wantSystem(t, err, syscall.EIO)
		}
		if err := os.Rename(path+".good", path); err != nil {
			t.Fatal(err)
		}
		whole(t, o)
	}
	// An identity that is lost with its disk can be given up.
	if err := errors.Join(os.Remove(paths[0]), os.Symlink("/proc/self/mem", paths[0])); err != nil {
		t.Fatal(err)
	}
	r, err := BeginReseed(o.Dir)
	if err != nil || r.Problem == nil {
		t.Fatalf("BeginReseed = %+v, %v; want the problem", r, err)
	}
	_ = r.Close()
}

// A snapshot that cannot be read now is not left out of the list, as if it had never
// been: the node would cut its log in front of an older one.
func TestSnapshotsThatCannotBeReadAreNotLeftOut(t *testing.T) {
	o, _, newer := withSnapshots(t, 25)
	s := mustOpen(t, o)
	path := filepath.Join(o.Dir, snapshotDir, newer, metaFile)
	if err := errors.Join(os.Rename(path, path+".good"), os.Symlink("/proc/self/mem", path)); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Snapshots.List(); !errors.Is(err, syscall.EIO) {
		t.Errorf("List = %v, %v; want the error of the disk", all, err)
	}
	before := s.mark.Known()
	if err := s.Log.DeleteRange(25, 40); !errors.Is(err, ErrFailed) {
		t.Errorf("DeleteRange of the whole log = %v, want ErrFailed", err)
	}
	if after := s.mark.Known(); !reflect.DeepEqual(before, after) {
		t.Errorf("the mark was %+v and is %+v: what was acknowledged is forgotten", before, after)
	}
}

// onTmpfs mounts a small disk and returns a directory on it with data.
func onTmpfs(t *testing.T) (o StoreOptions, mountPoint string) {
	t.Helper()
	mountPoint = t.TempDir()
	if err := unix.Mount("guard-test", mountPoint, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mountPoint, unix.MNT_DETACH) })
	o = StoreOptions{Dir: filepath.Join(mountPoint, "data"), NodeID: "n1", segmentSize: 64 << 10}
	s := mustOpen(t, o)
	fill(t, s, 40)
	takeSnapshot(t, s, 30, "newer")
	mustClose(t, s)
	return o, mountPoint
}

func TestReadOnlyDiskIsNotDamage(t *testing.T) {
	o, mountPoint := onTmpfs(t)
	if err := unix.Mount("", mountPoint, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot mount read-only: %v", err)
	}
	_, err := OpenStores(o)
	wantSystem(t, err, syscall.EROFS)
	if err := unix.Mount("", mountPoint, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, o))
}

// A full disk ends the node with the cause, and does not keep it from starting with what
// it has: it ends again at the first write.
func TestFullDiskIsNotDamage(t *testing.T) {
	o, mountPoint := onTmpfs(t)
	failed := make(chan error, 1)
	o.OnFailure = func(err error) { failed <- err }
	s := mustOpen(t, o)
	ballast := filepath.Join(mountPoint, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	var err error
	for i := uint64(41); i < 5000 && err == nil; i++ {
		err = s.Log.StoreLogs(rafttest.Entries(i, i, 3))
	}
	if err == nil {
		t.Fatal("5,000 entries were stored on a full disk")
	}
	wantSystem(t, s.Gate(), syscall.ENOSPC)
	select {
	case failure := <-failed:
		wantSystem(t, failure, syscall.ENOSPC)
	case <-time.After(10 * time.Second):
		t.Fatal("OnFailure was not called")
	}
	_ = s.Close()
	if s, err := OpenStores(o); err != nil {
		wantSystem(t, err, syscall.ENOSPC)
	} else {
		_ = s.Close()
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	last, err := s.Log.LastIndex()
	if err != nil || last < 40 {
		t.Errorf("the log ends at %d (%v), want all of it", last, err)
	}
	if err := s.Log.StoreLogs(rafttest.Entries(last+1, last+1, 3)); err != nil {
		t.Errorf("append where there is room again: %v", err)
	}
}

//go:build linux

package faultfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// try is one operation of each kind and no other, on what prepare has made.
var try = map[Op]func(d *disk, a int) error{
	OpWrite: func(_ *disk, a int) error {
		_, err := unix.Pwrite(a, []byte("c"), 0)
		return err
	},
	OpFsync: func(_ *disk, a int) error { return unix.Fsync(a) },
	OpRead: func(_ *disk, a int) error {
		if err := unix.Fadvise(a, 0, 0, unix.FADV_DONTNEED); err != nil { // not from the cache
			return err
		}
		_, err := unix.Pread(a, make([]byte, 1), 0)
		return err
	},
	OpOpen: func(d *disk, _ int) error {
		fd, err := unix.Open(d.path("a"), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	},
	OpCreate: func(d *disk, _ int) error { return unix.Mkdir(d.path("new"), 0o700) },
	OpRename: func(d *disk, _ int) error { return unix.Rename(d.path("b"), d.path("c")) },
	OpRemove: func(d *disk, _ int) error { return unix.Unlink(d.path("d")) },
}

// tryAll tries all and returns what they say.
func tryAll(t *testing.T, d *disk, faults ...string) map[Op]error {
	t.Helper()
	for _, name := range []string{"a", "b", "d"} {
		must(t, os.WriteFile(d.path(name), []byte("content"), 0o600))
	}
	fd, err := unix.Open(d.path("a"), unix.O_RDWR, 0)
	must(t, err)
	for _, f := range faults {
		d.do("%s", f)
	}
	said := map[Op]error{}
	for op, f := range try {
		said[op] = f(d, fd)
	}
	d.do("clear")
	must(t, unix.Close(fd))
	for _, name := range []string{"new", "c"} {
		must(t, os.RemoveAll(d.path(name)))
	}
	return said
}

// prepare mounts a disk with two files, which are durable.
func prepare(t *testing.T, args ...string) *disk {
	t.Helper()
	d := mount(t, args...)
	must(t, os.WriteFile(d.path("a"), []byte("content"), 0o600))
	must(t, os.WriteFile(d.path("b"), nil, 0o600))
	for _, name := range []string{"a", "b", ""} {
		must(t, syncPath(d.path(name)))
	}
	return d
}

// put writes at an offset of a file that exists.
func put(path, what string, off int64, flags ...int) error {
	flag := unix.O_WRONLY
	for _, f := range flags {
		flag |= f
	}
	fd, err := unix.Open(path, flag, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte(what), off)
	return errors.Join(err, unix.Close(fd))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func TestEachOperationFailsAsAskedAndNoOther(t *testing.T) {
	t.Parallel()
	d := mount(t)
	for op := range try {
		for name, errno := range errnos {
			for other, err := range tryAll(t, d, fmt.Sprintf("fail %s %s", op, name)) {
				if other == op && !errors.Is(err, errno) || other != op && err != nil {
					t.Errorf("fail %s %s: %s gives %v", op, name, other, err)
				}
			}
		}
	}
	for op, err := range tryAll(t, d, "fail any EIO") {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("fail any: %s gives %v", op, err)
		}
	}
	for op, err := range tryAll(t, d) {
		if err != nil {
			t.Errorf("without faults: %s gives %v", op, err)
		}
	}
}

func TestSoManyOperationsFailAsAsked(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	d.do("fail fsync EIO 2")
	for i, want := range []error{syscall.EIO, syscall.EIO, nil} {
		if err := syncPath(d.path("a")); !errors.Is(err, want) {
			t.Errorf("fsync %d: got %v, want %v", i+1, err, want)
		}
	}
	var s Stats
	must(t, json.Unmarshal([]byte(d.do("stats")), &s))
	if s.Failed[OpFsync] != 2 || s.Passed[OpFsync] < 4 || s.Passed[OpCreate] != 2 {
		t.Errorf("stats: got %+v, want 2 failed and at least 4 passed syncs, and 2 creations", s)
	}
}

// fsyncer is a process that syncs a file and says before and after that it does.
func fsyncer(path string) int {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		fmt.Println("syncing")
		err = unix.Fsync(int(f.Fd())) // does not try again when it is interrupted
	}
	fmt.Println("done", err)
	return 0
}

// hanging starts such a process and waits until it hangs.
func hanging(t *testing.T, d *disk) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	d.do("hang fsync")
	cmd := role("fsync", d.path("a"))
	out := &bytes.Buffer{}
	cmd.Stdout = out
	must(t, cmd.Start())
	eventually(t, "the process hangs", func() bool { return strings.Contains(d.do("stats"), `"hanging":1`) })
	return cmd, out
}

func TestHangingOperationEndsWithRelease(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"release", "clear"} {
		d := prepare(t)
		cmd, out := hanging(t, d)
		must(t, os.Mkdir(d.path("other"), 0o700)) // others do not hang
		// Signals that a Go program gets all the time end nothing.
		for range 3 {
			must(t, cmd.Process.Signal(syscall.SIGURG))
			time.Sleep(2 * dyingEvery)
		}
		if !strings.Contains(d.do("stats"), `"hanging":1`) {
			t.Error("the operation does not hang any more after a signal")
		}
		d.do("%s", end)
		must(t, cmd.Wait())
		if got := out.String(); got != "syncing\ndone <nil>\n" {
			t.Errorf("after %s: got %q, want a sync without an error", end, got)
		}
		must(t, syncPath(d.path("a"))) // nothing hangs any more
	}
}

func TestSoManyOperationsPassBeforeTheOthersHang(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	d.do("hang fsync 2")
	for range 2 {
		must(t, syncPath(d.path("a")))
	}
	cmd := role("fsync", d.path("a"))
	must(t, cmd.Start())
	eventually(t, "the third hangs", func() bool { return strings.Contains(d.do("stats"), `"hanging":1`) })
	d.do("release")
	must(t, cmd.Wait())
}

func TestKilledProcessEndsWhileItsOperationHangs(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	cmd, _ := hanging(t, d)
	must(t, cmd.Process.Kill())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it was killed
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the process that was killed does not end")
	}
	d.do("clear")
	must(t, syncPath(d.path("a")))
}

func TestSlowOperationsTakeLonger(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	d.do("slow fsync 150ms")
	began := time.Now()
	must(t, syncPath(d.path("a")))
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("slow fsync took %v, want at least 150ms", took)
	}
	d.do("slow fsync 1m")
	done := make(chan error, 1)
	go func() { done <- syncPath(d.path("a")) }()
	eventually(t, "the sync has begun", func() bool { return strings.Contains(d.do("stats"), `"fsync":`) })
	d.do("clear")
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(patience):
		t.Error("clear does not end an operation that is slow")
	}
}

func TestPowerLossUndoesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	must(t, put(d.path("a"), "CONTENT and more", 0))
	must(t, put(d.path("b"), "synced", 0))
	must(t, syncPath(d.path("b")))
	must(t, os.WriteFile(d.path("new"), []byte("x"), 0o600))
	must(t, syncPath(d.path("new"))) // but not its name
	if got := d.do("powerloss"); got != `{"files":1,"sectors":1,"names":1}` {
		t.Errorf("powerloss: got %s", got)
	}
	want := map[string]string{"a": "content", "b": "synced"}
	for where, dir := range map[string]string{"mount": d.dir, "root": d.root} {
		if diff := differences(treeOf(t, dir), want); diff != "" {
			t.Errorf("in the %s: %s", where, diff)
		}
	}
	must(t, put(d.path("a"), "again", 0)) // it goes on
	must(t, syncPath(d.path("a")))
	d.do("powerloss")
	if got := content(t, d.path("a")); got != "againnt" {
		t.Errorf("after a second loss: got %q, want %q", got, "againnt")
	}
}

func TestEachKindOfSyncIsOne(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(path string) error{
		"fsync":     func(p string) error { return errors.Join(put(p, "x", 0), syncPath(p)) },
		"O_DSYNC":   func(p string) error { return put(p, "x", 0, unix.O_DSYNC) },
		"O_SYNC":    func(p string) error { return put(p, "x", 0, unix.O_SYNC) },
		"fdatasync": func(p string) error { return errors.Join(put(p, "x", 0), dataSync(p)) },
		"msync":     mapAndSync,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := prepare(t)
			must(t, write(d.path("a")))
			d.do("powerloss")
			if got := content(t, d.path("a")); got != "xontent" {
				t.Errorf("after %s: got %q, want %q", name, got, "xontent")
			}
			d.do("lie on")
			must(t, write(d.path("a")))
			must(t, put(d.path("a"), "lost", 0))
			must(t, write(d.path("a")))
			d.do("powerloss")
			if got := content(t, d.path("a")); got != "xontent" {
				t.Errorf("after a lying %s: got %q, want %q", name, got, "xontent")
			}
			d.do("lie off")
			must(t, put(d.path("a"), "kept", 0))
			must(t, write(d.path("a")))
			d.do("powerloss")
			if got := content(t, d.path("a")); got != "xeptent" {
				t.Errorf("after an honest %s again: got %q, want %q", name, got, "xeptent")
			}
		})
	}
}

func dataSync(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fdatasync(fd), unix.Close(fd))
}

func mapAndSync(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(fd, 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	b[0] = 'x'
	return errors.Join(unix.Msync(b, unix.MS_SYNC), unix.Munmap(b), unix.Close(fd))
}

// A sync that failed has lost what it was to write. Linux reports that once, and a second sync
// succeeds.
func TestSecondSyncDoesNotSaveWhatTheFirstFailedToSave(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	must(t, put(d.path("a"), "X", 0))
	d.do("fail fsync EIO 1")
	if err := syncPath(d.path("a")); !errors.Is(err, syscall.EIO) {
		t.Fatalf("fsync: got %v, want EIO", err)
	}
	must(t, syncPath(d.path("a")))
	d.do("powerloss")
	if got := content(t, d.path("a")); got != "content" {
		t.Errorf("got %q, want %q", got, "content")
	}
}

// As bbolt does: a shared mapping that is only read, writes beside it, and
// growing by truncating; and as raft-wal does: preallocating.
func TestMappingSeesWritesAndGrowth(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	const page = 4096
	fd, err := unix.Open(d.path("a"), unix.O_RDWR, 0)
	must(t, err)
	must(t, unix.Ftruncate(fd, 4*page))
	view, err := unix.Mmap(fd, 0, 64*page, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	if view[0] != 'c' || view[page] != 0 {
		t.Errorf("mapping: got %q and %d, want 'c' and 0", view[0], view[page])
	}
	for i := range 8 {
		must(t, unix.Ftruncate(fd, int64(8+i)*page))
		_, err := unix.Pwrite(fd, bytes.Repeat([]byte{byte('A' + i)}, page), int64(i)*page)
		must(t, err)
		must(t, unix.Fdatasync(fd))
		if view[i*page] != byte('A'+i) || view[(i+1)*page-1] != byte('A'+i) {
			t.Errorf("page %d: got %q, want %q", i, view[i*page], rune('A'+i))
		}
	}
	must(t, unix.Munmap(view))
	must(t, unix.Fallocate(fd, 0, 0, 1<<20))
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if st.Size != 1<<20 {
		t.Errorf("preallocated: size is %d, want %d", st.Size, 1<<20)
	}
	must(t, unix.Close(fd))
	d.do("powerloss")
	after := content(t, d.path("a"))
	if len(after) != 15*page || after[0] != 'A' || after[8*page-1] != 'H' {
		t.Errorf("after a loss of power: %d bytes that begin with %q, want %d that begin with 'A'", len(after), after[0], 15*page)
	}
}

func TestFlippedByteIsSeenAndStays(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	if got := content(t, d.path("a")); got != "content" { // now it is cached
		t.Fatal(got)
	}
	must(t, os.Mkdir(d.path("sub"), 0o755))
	must(t, os.Link(d.path("a"), d.path("sub/a")))
	must(t, syncPath(d.path("sub")))
	must(t, syncPath(d.dir))
	f, err := os.Open(d.path("a"))
	must(t, err)
	d.do("flip sub/a 1")
	b := make([]byte, 7)
	_, err = f.ReadAt(b, 0)
	must(t, errors.Join(err, f.Close()))
	if b[1] != 'o'^0xff {
		t.Errorf("byte 1: got %#x, want %#x", b[1], 'o'^0xff)
	}
	d.do("powerloss")
	if got := content(t, d.path("a")); got[1] != 'o'^0xff || got[:1] != "c" {
		t.Errorf("after a loss of power: got %q, want it flipped", got)
	}
	for _, bad := range []string{"flip nothing 0", "flip a 7", "flip a -1", "flip sub 0", "flip a"} {
		if got := d.ask("%s", bad); !strings.HasPrefix(got, "error: ") {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}

func TestHandlesFromBeforePowerLossAreVoid(t *testing.T) {
	t.Parallel()
	d := prepare(t)
	fd, err := unix.Open(d.path("a"), unix.O_RDWR, 0)
	must(t, err)
	d.do("powerloss")
	if _, err := unix.Pwrite(fd, []byte("late"), 0); err == nil {
		t.Error("a write through a handle from before the loss of power succeeds")
	}
	if err := unix.Fsync(fd); err == nil {
		t.Error("an fsync of a handle from before the loss of power succeeds")
	}
	_ = unix.Close(fd) // what it says does not matter
	if got := content(t, d.path("a")); got != "content" {
		t.Errorf("got %q, want %q", got, "content")
	}
}

// What cannot be remembered becomes durable, as a kernel writes back what it has
// no memory for. Nothing that was synced suffers.
func TestUndoLogsHaveALimit(t *testing.T) {
	t.Parallel()
	const limit = 100 * sectorCost
	d := prepare(t, "--undo-limit", fmt.Sprint(limit))
	must(t, put(d.path("a"), strings.Repeat("x", 50*sectorSize), 0)) // is written back
	must(t, put(d.path("b"), strings.Repeat("y", 80*sectorSize), 0))
	var s Stats
	must(t, json.Unmarshal([]byte(d.do("stats")), &s))
	if s.WrittenBack != 1 || s.UnsyncedSectors != 80 {
		t.Errorf("got %+v, want one file written back and 80 sectors not", s)
	}
	d.do("powerloss")
	if got := content(t, d.path("a")); len(got) != 50*sectorSize {
		t.Errorf("what was written back has %d bytes, want %d", len(got), 50*sectorSize)
	}
	if got := content(t, d.path("b")); got != "" {
		t.Errorf("what was not has %d bytes, want none", len(got))
	}
	// More at once than may be remembered of it.
	must(t, put(d.path("b"), strings.Repeat("y", 1000*sectorSize), 0))
	must(t, syncPath(d.path("b")))
	must(t, os.Truncate(d.path("b"), 0))
	d.do("powerloss")
	if got := content(t, d.path("b")); got != "" {
		t.Errorf("truncated by more than the limit and %d bytes are back, want none", len(got))
	}
}

// Many processes at once, and nothing is mixed up.
func TestManyAtOnceSurvivePowerLoss(t *testing.T) {
	t.Parallel()
	d := mount(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			dir := d.path(fmt.Sprint("dir", i))
			err := os.Mkdir(dir, 0o755)
			for j := range 20 {
				name := filepath.Join(dir, fmt.Sprint("f", j))
				err = errors.Join(err, os.WriteFile(name+".tmp", []byte(name), 0o600), syncPath(name+".tmp"),
					os.Rename(name+".tmp", name), syncPath(dir), os.WriteFile(filepath.Join(dir, "scratch"), []byte("x"), 0o600))
			}
			if err := errors.Join(err, syncPath(d.dir)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d.do("powerloss")
	want := map[string]string{}
	for i := range 8 {
		dir := fmt.Sprint("dir", i)
		want[dir+"/"], want[dir+"/scratch"] = "", ""
		for j := range 20 {
			name := filepath.Join(dir, fmt.Sprint("f", j))
			want[name] = d.path(name)
		}
	}
	if diff := differences(treeOf(t, d.dir), want); diff != "" {
		t.Error(diff)
	}
}

//go:build unix

package disk

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// anyUmask lets files be made with whatever rights are asked for.
func anyUmask(t *testing.T) {
	t.Helper()
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
}

// wantClosed sees that nobody but its owner can use what is below dir.
func wantClosed(t *testing.T, dir string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		n++
		info, err := e.Info()
		if err == nil && info.Mode()&groupAndOthers != 0 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || n < 6 {
		t.Errorf("%d files in %s, error %v", n, dir, err)
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// snapshot stores one; while checks the folder before it is moved into place.
func snapshot(t *testing.T, s *Stores, index uint64, while func()) {
	t.Helper()
	sink, err := s.Snapshots.Create(raft.SnapshotVersionMax, index, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("the locks")); err != nil {
		t.Fatal(err)
	}
	while()
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsStoredIsForItsOwnerAlone(t *testing.T) {
	anyUmask(t)
	forEachKind(t, func(t *testing.T, kind string) {
		dir := tempDir(t)
		if err := os.Chmod(dir, 0o777); err != nil { // made by others
			t.Fatal(err)
		}
		o := StoreOptions{Dir: dir, LogStore: kind, segmentSize: 4 << 10}
		s := mustOpen(t, o)
		if got := modeOf(t, dir); got != 0o770 {
			t.Errorf("the directory has the mode %v, want what owner and group had", got)
		}
		fill(t, s, 200) // several segments
		snapshot(t, s, 100, func() { wantClosed(t, dir) })
		snapshot(t, s, 150, func() {})
		wantClosed(t, dir)
		mustClose(t, s)

		// An earlier version or a backup has left it open.
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() {
				return os.Chmod(path, 0o755)
			}
			return os.Chmod(path, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		o.Logger = rafttest.Logger(&log)
		s = mustOpen(t, o)
		wantClosed(t, dir)
		if got := modeOf(t, dir); got != 0o750 || !strings.Contains(log.String(), "was open to other users") {
			t.Errorf("the directory has the mode %v; logged: %s", got, log.String())
		}
		mustClose(t, s)
		log.Reset()
		mustClose(t, mustOpen(t, o))
		if strings.Contains(log.String(), "open to other") {
			t.Errorf("nothing was to be closed, and it was logged: %s", log.String())
		}
		if !strings.Contains(log.String(), "open to its group") {
			t.Errorf("logged: %s, want that the group can get in", log.String())
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		mustClose(t, mustOpen(t, o))
		if strings.Contains(log.String(), "open to") {
			t.Errorf("nobody else can get in, and it was logged: %s", log.String())
		}
	})
}

// A directory that is not the node's alone, a home or /tmp, keeps its rights, and so do the
// files of others in it.
func TestRightsOfOthersFilesStay(t *testing.T) {
	anyUmask(t)
	dir := tempDir(t)
	theirs := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := mustOpen(t, StoreOptions{Dir: dir, Logger: rafttest.Logger(&log)})
	if d, f := modeOf(t, dir), modeOf(t, theirs); d != 0o755 || f != 0o644 {
		t.Errorf("modes %v and %v, want them as they were", d, f)
	}
	if !strings.Contains(log.String(), "letter.txt") {
		t.Errorf("logged: %s, want the file that is not the node's", log.String())
	}
	if got := modeOf(t, filepath.Join(dir, snapshotDir)); got != 0o700 {
		t.Errorf("the snapshots have the mode %v", got)
	}
	mustClose(t, s)
}

// A link in the place of a folder is another disk: what is there is the node's, too.
func TestFolderOnAnotherDiskIsClosed(t *testing.T) {
	anyUmask(t)
	dir, other := tempDir(t), tempDir(t)
	o := StoreOptions{Dir: dir}
	mustClose(t, mustOpen(t, o))
	if err := os.Rename(filepath.Join(dir, snapshotDir), filepath.Join(other, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(other, snapshotDir), filepath.Join(dir, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(other, snapshotDir), 0o777); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, o))
	if got := modeOf(t, filepath.Join(other, snapshotDir)); got != 0o700 {
		t.Errorf("mode %v, want 0700", got)
	}
}

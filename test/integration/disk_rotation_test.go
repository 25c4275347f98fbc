//go:build unix

package integration

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/faultdisk"
)

// The log creates its next file when one is full, and syncs the file's name with the
// first entry in it. When the node is stopped in between, its next run finds the
// file and uses it: what that run acknowledges must not be in a file that has no name after a
// loss of power.
func TestLogFileOfAnEarlierRunSurvivesALossOfPower(t *testing.T) {
	slow(t, "real disks that are broken")
	binary, err := buildFaultfs()
	if err != nil {
		t.Skip(err)
	}
	below, mount := t.TempDir(), t.TempDir()
	broken, err := faultdisk.Start(within(t, patience), binary, below, mount)
	if errors.Is(err, faultdisk.ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, broken.Close()) })
	do := func(command string) {
		t.Helper()
		_, err := broken.Do(command)
		must(t, err)
	}
	dir := filepath.Join(mount, "n1")
	open := func() *disk.Stores {
		t.Helper()
		s, err := disk.OpenStores(disk.StoreOptions{Dir: dir, NodeID: "n1", LogStore: disk.LogStoreWAL})
		must(t, err)
		return s
	}
	entry := func(s *disk.Stores, index uint64, size int) {
		t.Helper()
		must(t, s.Log.StoreLog(&raft.Log{Index: index, Term: 1, Data: make([]byte, size)}))
	}

	s := open()
	must(t, s.Stable.SetUint64([]byte("CurrentTerm"), 1))
	files := func() int {
		found, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
		must(t, err)
		return len(found)
	}
	last := uint64(0)
	for ; files() < 2; last++ {
		entry(s, last+1, 1<<20)
		time.Sleep(20 * time.Millisecond) // the next file is created in the background, and must not get an entry yet
	}
	must(t, s.Close())

	s = open()
	last, err = s.Log.LastIndex()
	must(t, err)
	for range 10 {
		last++
		entry(s, last, 100)
	}
	must(t, s.Close())
	do("powerloss")

	s = open()
	got, err := s.Log.LastIndex()
	must(t, errors.Join(err, s.Close()))
	if got != last {
		t.Errorf("after the loss of power the log ends at %d, and %d was acknowledged", got, last)
	}
}

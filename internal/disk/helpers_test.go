package disk

import (
	"errors"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

var errEIO = errors.New("input/output error")

func TestMain(m *testing.M) {
	racedetector.OneThread()
	goleak.VerifyTestMain(m)
}

// kinds are the log stores that everything is tested with.
var kinds = []string{LogStoreWAL, LogStoreBolt}

func forEachKind(t *testing.T, f func(t *testing.T, kind string)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// mustOpen opens stores that are closed at the end of the test.
func mustOpen(t testing.TB, o StoreOptions) *Stores {
	t.Helper()
	s, err := OpenStores(o)
	if err != nil {
		t.Fatalf("OpenStores(%+v): %v", o, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustClose(t testing.TB, s *Stores) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// fill appends entries 1 to n in batches of ten, as raft would: term first.
func fill(t testing.TB, s *Stores, n uint64) {
	t.Helper()
	if err := s.Stable.SetUint64([]byte(keyTerm), 3); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= n; i += 10 {
		if err := s.Log.StoreLogs(rafttest.Entries(i, min(i+9, n), 3)); err != nil {
			t.Fatalf("StoreLogs from %d: %v", i, err)
		}
	}
}

// tempDir is t.TempDir in memory where there is such a file system: most tests
// are about what files hold, not about how long an fsync takes.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "guard-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

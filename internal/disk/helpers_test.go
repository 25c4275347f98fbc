package disk

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/proof/onethread"
)

var errEIO = errors.New("input/output error")

func TestMain(m *testing.M) {
	onethread.UnderRace()
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

// entries makes commands from to to, of one term, 100 bytes each.
func entries(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		data := fmt.Appendf(nil, "%-99d|", i)
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(int64(i), 0).UTC()})
	}
	return logs
}

// fill appends entries 1 to n in batches of ten, as raft would: term first.
func fill(t testing.TB, s *Stores, n uint64) {
	t.Helper()
	if err := s.Stable.SetUint64([]byte(keyTerm), 3); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= n; i += 10 {
		if err := s.Log.StoreLogs(entries(i, min(i+9, n), 3)); err != nil {
			t.Fatalf("StoreLogs from %d: %v", i, err)
		}
	}
}

// recorder is a state machine that remembers what it applied.
type recorder struct {
	mu      sync.Mutex
	applied []string // "index:data"
}

func (r *recorder) Apply(l *raft.Log) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied = append(r.applied, recorded(l))
	return nil
}

func recorded(l *raft.Log) string { return fmt.Sprintf("%d:%s", l.Index, l.Data) }

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.applied...)
}

func (r *recorder) Snapshot() (raft.FSMSnapshot, error) { return payload("state"), nil }

func (r *recorder) Restore(rc io.ReadCloser) error {
	_, err := io.ReadAll(rc)
	return err
}

// payload is a snapshot with these bytes.
type payload string

func (p payload) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, string(p)); err != nil {
		return err
	}
	return sink.Close()
}

func (payload) Release() {}

// testConfig has the timing that is the project's default.
func testConfig(id string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout = 200 * time.Millisecond
	c.ElectionTimeout = 200 * time.Millisecond
	c.LeaderLeaseTimeout = 150 * time.Millisecond
	c.CommitTimeout = 20 * time.Millisecond
	c.Logger = hclog.NewNullLogger()
	return c
}

// waitFor polls until ok, in real or virtual time.
func waitFor(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// newTestLogger writes info and above without times.
func newTestLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
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

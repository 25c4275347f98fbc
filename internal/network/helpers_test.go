package network

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/onethread"
)

func TestMain(m *testing.M) {
	onethread.UnderRace()
	goleak.VerifyTestMain(m)
}

// mustOpen opens stores that are closed at the end of the test.
func mustOpen(t testing.TB, o disk.StoreOptions) *disk.Stores {
	t.Helper()
	s, err := disk.OpenStores(o)
	if err != nil {
		t.Fatalf("OpenStores(%+v): %v", o, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
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

// startAmong starts a, a new voter whose peers b and c the test plays.
func startAmong(t *testing.T, trans raft.Transport, conf *raft.Config, fsm raft.FSM) (*raft.Raft, *disk.Stores) {
	t.Helper()
	s := mustOpen(t, disk.StoreOptions{NodeID: "a", Memory: memory()})
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}, {ID: "c", Address: "c"}}}
	if err := raft.BootstrapCluster(conf, s.Log, s.Stable, s.Snapshots, trans, servers); err != nil {
		t.Fatal(err)
	}
	r, err := NewRaft(conf, fsm, s, trans)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

func memory() *disk.Memory {
	store := raft.NewInmemStore()
	return &disk.Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}
}

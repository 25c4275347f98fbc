package disk

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

func TestStoredEntriesComeBackUnchanged(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := StoreOptions{Dir: tempDir(t), LogStore: kind}
		s := mustOpen(t, o)
		want := rafttest.Entries(1, 3, 1)
		want[0].Type = raft.LogConfiguration
		want[1].Data = nil
		want[2].Extensions = []byte("from middleware")
		keep := *want[2]
		if err := s.Stable.SetUint64([]byte(keyTerm), 1); err != nil {
			t.Fatal(err)
		}
		if err := s.Log.StoreLogs(want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*want[2], keep) {
			t.Fatalf("StoreLogs changed its argument: got %+v, want %+v", *want[2], keep)
		}
		mustClose(t, s)
		s = mustOpen(t, o) // an empty cache: read from disk
		for _, w := range want {
			var got raft.Log
			if err := s.Log.GetLog(w.Index, &got); err != nil {
				t.Fatal(err)
			}
			if !got.AppendedAt.Equal(w.AppendedAt) {
				t.Errorf("entry %d: AppendedAt is %v, want %v", w.Index, got.AppendedAt, w.AppendedAt)
			}
			got.AppendedAt = w.AppendedAt
			if len(got.Data) == 0 {
				got.Data = w.Data
			}
			if !reflect.DeepEqual(got, *w) {
				t.Errorf("entry %d: got %+v, want %+v", w.Index, got, *w)
			}
		}
		if m, ok := s.Log.(raft.MonotonicLogStore); !ok || !m.IsMonotonic() {
			t.Error("the log does not say that it is monotonic")
		}
	})
}

func TestMissingEntryIsErrLogNotFoundItself(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		s := mustOpen(t, StoreOptions{Dir: tempDir(t), LogStore: kind})
		fill(t, s, 5)
		var l raft.Log
		if err := s.Log.GetLog(6, &l); err != raft.ErrLogNotFound { //nolint:errorlint // raft compares with ==
			t.Fatalf("GetLog(6) = %v, want ErrLogNotFound", err)
		}
		if err := s.Gate(); err != nil {
			t.Fatalf("Gate = %v after a missing entry, want nil", err)
		}
	})
}

func TestDirectoryKeepsTheLogStoreItWasMadeWith(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		dir := tempDir(t)
		mustClose(t, mustOpen(t, StoreOptions{Dir: dir, LogStore: kind}))
		other := LogStoreWAL
		if kind == LogStoreWAL {
			other = LogStoreBolt
		}
		_, err := OpenStores(StoreOptions{Dir: dir, LogStore: other})
		if !errors.Is(err, ErrWrongStore) || !strings.Contains(err.Error(), kind) {
			t.Errorf("OpenStores with %s = %v, want ErrWrongStore naming %s", other, err, kind)
		}
		if got := mustOpen(t, StoreOptions{Dir: dir}).Identity().LogStore; got != kind {
			t.Errorf("OpenStores without a log store uses %q, want %q", got, kind)
		}
	})
	if _, err := OpenStores(StoreOptions{Dir: tempDir(t), LogStore: "sqlite"}); err == nil || !strings.Contains(err.Error(), "allowed") {
		t.Errorf("OpenStores(sqlite) = %v, want an error that says what is allowed", err)
	}
}

func TestDirectoryBelongsToOneNodeID(t *testing.T) {
	for what, use := range map[string]func(*Identity){
		"its cluster":  func(id *Identity) { id.ClusterID = "c" },
		"a promise":    func(id *Identity) { id.Promise = map[string]string{"a": "a:1"} },
		"state":        func(id *Identity) { id.HasState = true },
		"a divergence": func(id *Identity) { id.Diverged = "it differs" },
	} {
		dir := tempDir(t)
		s := mustOpen(t, StoreOptions{Dir: dir, NodeID: "a"})
		if err := s.UpdateIdentity(use); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		if _, err := OpenStores(StoreOptions{Dir: dir, NodeID: "b"}); !errors.Is(err, ErrWrongNode) {
			t.Errorf("OpenStores as b of a directory with %s = %v, want ErrWrongNode", what, err)
		}
		if got, err := readIdentity(dir); err != nil || got.NodeID != "a" {
			t.Errorf("node ID is %q, %v, want a", got.NodeID, err)
		}
	}
}

func TestUnusedDirectoryTakesAnotherNodeID(t *testing.T) {
	dir := tempDir(t)
	mustClose(t, mustOpen(t, StoreOptions{Dir: dir, NodeID: "a"}))
	mustClose(t, mustOpen(t, StoreOptions{Dir: dir, NodeID: "b"}))
	if got := mustOpen(t, StoreOptions{Dir: dir}).Identity().NodeID; got != "b" {
		t.Errorf("node ID is %q, want b", got)
	}
}

func TestDirectoryIsNewUntilItIsUsed(t *testing.T) {
	dir, taken := tempDir(t), errors.New("the port is taken")
	if _, err := OpenStores(StoreOptions{Dir: dir, NodeID: "a", BeforeNew: func() error { return taken }}); !errors.Is(err, taken) {
		t.Fatalf("OpenStores = %v, want %v", err, taken)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("the directory has %v, %v; want the lock alone", left, err)
	}
	calls := 0
	count := func() error { calls++; return nil }
	for range 2 {
		mustClose(t, mustOpen(t, StoreOptions{Dir: dir, NodeID: "b", LogStore: LogStoreBolt, BeforeNew: count}))
	}
	if calls != 1 {
		t.Errorf("BeforeNew was called %d times, want once: the directory is new once", calls)
	}
}

func TestNodeIDIsMintedOnce(t *testing.T) {
	dir := tempDir(t)
	s := mustOpen(t, StoreOptions{Dir: dir})
	id := s.Identity().NodeID
	mustClose(t, s)
	if got := mustOpen(t, StoreOptions{Dir: dir}).Identity().NodeID; got != id || id == "" {
		t.Errorf("node ID is %q after reopening, was %q", got, id)
	}
	if other := mustOpen(t, StoreOptions{Dir: tempDir(t)}).Identity().NodeID; other == id {
		t.Errorf("two directories got the same node ID %q", id)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := tempDir(t)
	s := mustOpen(t, StoreOptions{Dir: dir})
	if _, err := OpenStores(StoreOptions{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Fatalf("second OpenStores = %v, want ErrInUse", err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, StoreOptions{Dir: dir}))
}

func TestHasStateBeginsWithTheFirstPromise(t *testing.T) {
	first := map[string]func(s *Stores) error{
		"term": func(s *Stores) error { return s.Stable.SetUint64([]byte(keyTerm), 2) },
		"vote": func(s *Stores) error {
			return errors.Join(s.Stable.SetUint64([]byte(keyVoteTerm), 2), s.Stable.Set([]byte(keyVoteCand), []byte("b")))
		},
		"log": func(s *Stores) error { return s.Log.StoreLog(rafttest.Entries(1, 1, 0)[0]) },
	}
	for name, write := range first {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			s := mustOpen(t, StoreOptions{Dir: dir})
			if s.HasState() {
				t.Fatal("HasState of a new directory")
			}
			if err := write(s); err != nil {
				t.Fatal(err)
			}
			if id, err := readIdentity(dir); err != nil || !id.HasState { // on disk already
				t.Fatalf("identity on disk: %+v, %v; want HasState", id, err)
			}
			mustClose(t, s)
			if !mustOpen(t, StoreOptions{Dir: dir}).HasState() {
				t.Fatal("HasState is gone after reopening")
			}
		})
	}
}

// raft.BootstrapCluster saves term 1, then entry 1.
func TestInterruptedBootstrapCanBeRepeated(t *testing.T) {
	dir := tempDir(t)
	s := mustOpen(t, StoreOptions{Dir: dir})
	if err := s.Stable.SetUint64([]byte(keyTerm), 1); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s = mustOpen(t, StoreOptions{Dir: dir})
	if s.HasState() {
		t.Fatal("HasState after an interrupted bootstrap")
	}
	conf := rafttest.Config("a")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	_, trans := raft.NewInmemTransport("a")
	if err := raft.BootstrapCluster(conf, s.Log, s.Stable, s.Snapshots, trans, servers); err != nil {
		t.Fatalf("BootstrapCluster after an interrupted one: %v", err)
	}
	if !s.HasState() {
		t.Fatal("no HasState after the bootstrap")
	}
}

func TestRaftRunsOnTheStoresAndComesBack(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		dir := tempDir(t)
		for round := 1; round <= 3; round++ {
			s := mustOpen(t, StoreOptions{Dir: dir, LogStore: kind, NodeID: "a"})
			_, trans := raft.NewInmemTransport("a")
			conf := rafttest.Config("a")
			if !s.HasState() {
				servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
				if err := raft.BootstrapCluster(conf, s.Log, s.Stable, s.Snapshots, trans, servers); err != nil {
					t.Fatal(err)
				}
			}
			fsm := &rafttest.Machine{}
			r, err := raft.NewRaft(conf, fsm, s.Log, s.Stable, s.Snapshots, trans)
			if err != nil {
				t.Fatal(err)
			}
			rafttest.WaitFor(t, "leader", 10*time.Second, func() bool { return r.State() == raft.Leader })
			for range 20 {
				if err := r.Apply([]byte("x"), time.Second).Error(); err != nil {
					t.Fatal(err)
				}
			}
			if got := len(fsm.All()); got != 20*round {
				t.Errorf("round %d: applied %d commands, want %d", round, got, 20*round)
			}
			if err := r.Shutdown().Error(); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s)
		}
	})
}

func TestFilesWithoutIdentityAreRefused(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := StoreOptions{Dir: tempDir(t), LogStore: kind}
		s := mustOpen(t, o)
		fill(t, s, 10)
		mustClose(t, s)
		if err := os.Remove(filepath.Join(o.Dir, identityFile)); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, o, identityFile)
	})
}

// A crash in the middle of the very first start leaves files without identity,
// and nothing in them.
func TestInterruptedFirstStartCanBeRepeated(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		o := StoreOptions{Dir: tempDir(t), LogStore: kind}
		s := mustOpen(t, o)
		first := s.Identity().NodeID
		mustClose(t, s)
		remove(t, filepath.Join(o.Dir, identityFile))
		s = mustOpen(t, o)
		if s.HasState() || s.Identity().NodeID == first {
			t.Errorf("identity %+v after an interrupted first start, was %s", s.Identity(), first)
		}
		fill(t, s, 3)
	})
}

// wantDamaged opens a directory that must be refused with advice.
func wantDamaged(t *testing.T, o StoreOptions, mentions ...string) {
	t.Helper()
	s, err := OpenStores(o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("OpenStores accepted a damaged directory")
	}
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("OpenStores = %v, want ErrDamaged", err)
	}
	for _, m := range append(mentions, "locknode reseed --data-dir ") {
		if !strings.Contains(err.Error(), m) {
			t.Errorf("OpenStores = %v, want it to mention %q", err, m)
		}
	}
}

package network

import (
	"testing"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/racedetector"
)

func TestMain(m *testing.M) {
	racedetector.OneThread()
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

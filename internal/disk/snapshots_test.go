package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
	"github.com/locknode/locknode/internal/proof/testall"
)

func memory() *Memory {
	store := raft.NewInmemStore()
	return &Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}
}

// withSnapshots makes a closed directory with entries 1 to 40, snapshots at 20
// and 30, and the log cut before first.
func withSnapshots(t testing.TB, first uint64) (o StoreOptions, older, newer string) {
	t.Helper()
	o = seeded(t, LogStoreWAL)
	s := mustOpen(t, o)
	older, newer = takeSnapshot(t, s, 20, "older"), takeSnapshot(t, s, 30, "newer")
	if first > 1 {
		if err := s.Log.DeleteRange(1, first-1); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
	return o, older, newer
}

func listed(t *testing.T, s *Stores) (ids []string) {
	t.Helper()
	all, err := s.Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestGoodSnapshotsAreKept(t *testing.T) {
	o, older, newer := withSnapshots(t, 25)
	s := mustOpen(t, o)
	if got := listed(t, s); len(got) != 2 || got[0] != newer || got[1] != older {
		t.Errorf("List = %v, want %v", got, []string{newer, older})
	}
	m, r, err := s.Snapshots.Open(newer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 10)
	if n, _ := r.Read(b); string(b[:n]) != "newer" || m.Index != 30 || len(m.Configuration.Servers) != 2 {
		t.Errorf("Open = %q, %+v", b[:n], m)
	}
}

// Every byte of the metadata, one after the other: the snapshot is moved aside
// or unharmed, the older one is used, and raft starts without a panic.
func TestFlippedSnapshotMetaNeverPanics(t *testing.T) {
	o, older, newer := withSnapshots(t, 15)
	meta := filepath.Join(o.Dir, snapshotDir, newer, metaFile)
	files := filesIn(t, o.Dir)
	step := 7
	if !testall.On() {
		step = 50
	}
	moved := 0
	for at := 0; at < len(files[meta]); at += step {
		restore(t, files)
		_ = os.RemoveAll(filepath.Join(o.Dir, damagedDir))
		bad := append([]byte{}, files[meta]...)
		bad[at] ^= 0x01
		if err := os.WriteFile(meta, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, o)
		ids := listed(t, s)
		if ids[0] != newer {
			moved++
			if ids[0] != older {
				t.Fatalf("byte %d: List = %v, want the older one", at, ids)
			}
			if there, err := exists(filepath.Join(o.Dir, damagedDir, newer, metaFile)); !there || err != nil {
				t.Fatalf("byte %d: the damaged snapshot was not moved aside: %v", at, err)
			}
		}
		_, trans := raft.NewInmemTransport("n1")
		r, err := raft.NewRaft(rafttest.Config("n1"), &rafttest.Machine{}, s.Log, s.Stable, s.Snapshots, trans)
		if err != nil {
			t.Fatalf("byte %d: NewRaft: %v", at, err)
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	}
	if moved == 0 {
		t.Error("no flip was noticed")
	}
}

func TestDamagedSnapshotIsRefusedWhenTheLogDoesNotCoverIt(t *testing.T) {
	damage := map[string]func(t *testing.T, dir string){
		"payload":  func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "state.bin"), 2) },
		"meta":     func(t *testing.T, dir string) { flip(t, filepath.Join(dir, metaFile), 30) },
		"no meta":  func(t *testing.T, dir string) { remove(t, filepath.Join(dir, metaFile)) },
		"check":    func(t *testing.T, dir string) { flip(t, filepath.Join(dir, checkFile), 1) },
		"no state": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "state.bin")) },
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			o, older, newer := withSnapshots(t, 15) // the log goes on from the older one
			hurt(t, filepath.Join(o.Dir, snapshotDir, newer))
			s := mustOpen(t, o)
			if got := listed(t, s); len(got) != 1 || got[0] != older {
				t.Errorf("List = %v, want the older one", got)
			}
			mustClose(t, s)

			o, _, newer = withSnapshots(t, 25) // it does not
			hurt(t, filepath.Join(o.Dir, snapshotDir, newer))
			wantDamaged(t, o, newer, "entry 25", "entry 20")
			if there, err := exists(filepath.Join(o.Dir, damagedDir, newer)); !there || err != nil {
				t.Errorf("the damaged snapshot was not moved aside: %v", err)
			}
			wantDamaged(t, o, "entry 25")
		})
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedSnapshotsAreMissed(t *testing.T) {
	o, _, _ := withSnapshots(t, 25)
	if err := os.RemoveAll(filepath.Join(o.Dir, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	wantDamaged(t, o, "entry 25", "entry 0")
}

// Raft has restored the leader's snapshot and emptied the log: all that the node has
// acknowledged is in that snapshot, and the one before does not replace it.
func TestDamagedSnapshotIsRefusedWhenTheLogWasEmptiedForIt(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		for _, index := range []uint64{40, 60} { // the log has 1 to 40
			o, newest := installed(t, kind, index, func(s *Stores) error { return s.Log.DeleteRange(1, 40) })
			flip(t, filepath.Join(o.Dir, snapshotDir, newest, "state.bin"), 2)
			wantDamaged(t, o, newest, fmt.Sprintf("entry %d was acknowledged", index))
		}
	})
}

// The process ends between the mark and the log, which need not agree with the leader's.
func TestEndOfTheProcessBeforeTheLogIsEmptiedIsNoDamage(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		for _, index := range []uint64{30, 40, 60} {
			installed(t, kind, index, func(s *Stores) error { return s.mark.Empty(index, 9, 1000) })
		}
	})
}

// installed is a directory with a log from 1 to 40, a snapshot up to 20, and one of the
// leader's, whose installation goes as far as end does. It is in good order.
func installed(t *testing.T, kind string, index uint64, end func(*Stores) error) (o StoreOptions, newest string) {
	t.Helper()
	o = seeded(t, kind)
	s := mustOpen(t, o)
	takeSnapshot(t, s, 20, "its own")
	newest = takeSnapshot(t, s, index, "of the leader")
	if err := end(s); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, o))
	return o, newest
}

func TestInterruptedSnapshotIsSwept(t *testing.T) {
	o := seeded(t, LogStoreWAL)
	s := mustOpen(t, o)
	_, trans := raft.NewInmemTransport("n1")
	sink, err := s.Snapshots.Create(1, 30, 3, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s) // as if killed
	s = mustOpen(t, o)
	if got := listed(t, s); len(got) != 0 {
		t.Errorf("List = %v, want none", got)
	}
	left, err := os.ReadDir(filepath.Join(o.Dir, snapshotDir))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestCancelledSnapshotLeavesNothing(t *testing.T) {
	s := mustOpen(t, seeded(t, LogStoreWAL))
	_, trans := raft.NewInmemTransport("n1")
	sink, err := s.Snapshots.Create(1, 30, 3, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Cancel(), sink.Close()); err != nil {
		t.Error(err)
	}
	if got := listed(t, s); len(got) != 0 {
		t.Errorf("List = %v, want none", got)
	}
}

// A snapshot that cannot be written must not end the node.
func TestFailedSnapshotDoesNotFailTheStore(t *testing.T) {
	o := seeded(t, LogStoreWAL)
	s := mustOpen(t, o)
	if err := os.RemoveAll(filepath.Join(o.Dir, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, snapshotDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("n1")
	if _, err := s.Snapshots.Create(1, 30, 3, raft.Configuration{}, 1, trans); err == nil {
		t.Fatal("Create succeeded without a directory")
	}
	if err := s.Gate(); err != nil {
		t.Errorf("Gate = %v, want nil", err)
	}
	if err := s.Log.StoreLogs(rafttest.Entries(41, 41, 3)); err != nil {
		t.Errorf("StoreLogs after a failed snapshot: %v", err)
	}
}

// A snapshot that is damaged while the node runs is not offered to followers.
func TestSnapshotDamagedWhileRunningIsNotListed(t *testing.T) {
	o, older, newer := withSnapshots(t, 15)
	var log strings.Builder
	o.Logger = rafttest.Logger(&log)
	s := mustOpen(t, o)
	flip(t, filepath.Join(o.Dir, snapshotDir, newer, metaFile), 30)
	if got := listed(t, s); len(got) != 1 || got[0] != older {
		t.Errorf("List = %v, want the older one only", got)
	}
	if _, _, err := s.Snapshots.Open(newer); err == nil {
		t.Error("Open of a damaged snapshot succeeded")
	}
	if !strings.Contains(log.String(), "damaged") {
		t.Errorf("the log says nothing: %q", log.String())
	}
}

// Raft makes the leader's snapshot visible, restores it, and then empties the log. If
// the process ends in between, the log ends before the snapshot, and the entry after
// the snapshot must find no gap, now and after the next start.
func TestEndOfTheProcessWhileASnapshotIsInstalledLeavesNoGap(t *testing.T) {
	for _, after := range []uint64{40, 60} { // the log has 1 to 40
		forEachKind(t, func(t *testing.T, kind string) {
			o := seeded(t, kind)
			s := mustOpen(t, o)
			takeSnapshot(t, s, after, "of the leader")
			mustClose(t, s)
			s = mustOpen(t, o)
			if err := s.Log.StoreLogs(rafttest.Entries(after+1, after+2, 3)); err != nil {
				t.Fatalf("the entries after a snapshot up to %d: %v", after, err)
			}
			mustClose(t, s)
			s = mustOpen(t, o)
			first, err := s.Log.FirstIndex()
			if want := map[uint64]uint64{40: 1, 60: 61}[after]; err != nil || first != want {
				t.Errorf("after a snapshot up to %d the log begins at %d, %v; want %d", after, first, err, want)
			}
		})
	}
}

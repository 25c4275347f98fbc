package disk

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// A crash in the middle of a write leaves one of these: nothing yet, a part of
// the temporary file, all of it, or the new file.
func TestPowerCutWhileWritingIdentityLeavesOldOrNew(t *testing.T) {
	old := Identity{Version: 1, NodeID: "a", LogStore: LogStoreWAL, Created: time.Unix(1, 0).UTC()}
	next := old
	next.ClusterID, next.Promise = "c", map[string]string{"a": "h:1", "b": "h:2"}
	full, err := encodeIdentity(next)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(full); cut += 7 {
		dir := tempDir(t)
		if err := writeIdentity(dir, old); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, identityFile+".tmp"), full[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, StoreOptions{Dir: dir})
		if got := s.Identity(); !reflect.DeepEqual(got, old) {
			t.Fatalf("cut after %d bytes: %+v, want the old one", cut, got)
		}
		if err := s.UpdateIdentity(func(id *Identity) { id.ClusterID, id.Promise = next.ClusterID, next.Promise }); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		if got, err := readIdentity(dir); err != nil || !reflect.DeepEqual(got, next) {
			t.Fatalf("written again: %+v, %v; want %+v", got, err, next)
		}
	}
}

func TestFailedIdentityWriteKeepsTheOldOne(t *testing.T) {
	saved := Identity{}
	var fail error
	mem := memory()
	mem.SaveIdentity = func(id Identity) error {
		if fail == nil {
			saved = id
		}
		return fail
	}
	reports := make(chan error, 1)
	s := mustOpen(t, StoreOptions{NodeID: "a", Memory: mem, OnFailure: func(err error) { reports <- err }})
	fail = errEIO
	err := s.UpdateIdentity(func(id *Identity) { id.Promise = map[string]string{"a": "h:1"} })
	if !errors.Is(err, errEIO) || !errors.Is(<-reports, errEIO) {
		t.Errorf("UpdateIdentity = %v, want the cause, reported", err)
	}
	if s.Identity().Promise != nil || saved.Promise != nil {
		t.Error("a promise that was not saved is remembered")
	}
	// The first write of a log must not be acknowledged without the identity.
	mem = memory()
	mem.SaveIdentity = func(id Identity) error {
		if id.HasState {
			return errEIO
		}
		return nil
	}
	s = mustOpen(t, StoreOptions{NodeID: "a", Memory: mem})
	if err := s.Log.StoreLogs(rafttest.Entries(1, 1, 1)); err == nil {
		t.Error("an entry was acknowledged that the identity does not know of")
	}
}

// TestIdentityIsReadWhileADiskHangs: who asks for the state of a node, or greets
// another one, must not wait for its disk.
func TestIdentityIsReadWhileADiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memory()
		s := mustOpen(t, StoreOptions{NodeID: "a", Memory: mem})
		hung := make(chan struct{})
		s.save = func(Identity) error { <-hung; return nil }
		saved := make(chan error, 2)
		for _, name := range []string{"first", "second"} {
			go func() { saved <- s.UpdateIdentity(func(id *Identity) { id.ClusterID += name }) }()
		}
		synctest.Wait()
		read := make(chan Identity, 1)
		go func() {
			_ = s.HasState()
			read <- s.Identity()
		}()
		synctest.Wait()
		select {
		case id := <-read:
			if id.ClusterID != "" {
				t.Errorf("read %q, which is not on the disk", id.ClusterID)
			}
		default:
			t.Error("Identity waits for the disk")
		}
		close(hung)
		for range 2 {
			if err := <-saved; err != nil {
				t.Error(err)
			}
		}
		if id := s.Identity().ClusterID; len(id) != len("firstsecond") {
			t.Errorf("after two changes the identity has %q, want both", id)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestIdentityKeepsWhatMayNotChange(t *testing.T) {
	s := mustOpen(t, StoreOptions{NodeID: "a", Memory: memory()})
	want := s.Identity()
	err := s.UpdateIdentity(func(id *Identity) { id.NodeID, id.LogStore, id.Version, id.ClusterID = "b", "x", 9, "c" })
	want.ClusterID = "c"
	if got := s.Identity(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("identity is %+v, %v; want %+v", got, err, want)
	}
	if err := s.UpdateIdentity(func(id *Identity) { id.Promise = map[string]string{"a": "h:1"} }); err != nil {
		t.Fatal(err)
	}
	s.Identity().Promise["a"] = "changed by the caller"
	if got := s.Identity().Promise["a"]; got != "h:1" {
		t.Errorf("the caller has changed the promise to %q", got)
	}
}

func TestIdentityOfALaterVersionIsRefused(t *testing.T) {
	dir := tempDir(t)
	if err := writeIdentity(dir, Identity{Version: identityVersion + 1, NodeID: "a", LogStore: LogStoreWAL}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStores(StoreOptions{Dir: dir}); err == nil {
		t.Error("OpenStores accepted a format it does not know")
	}
}

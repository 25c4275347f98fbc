package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// used is the directory of a node that was a member of cluster "c1".
func used(t *testing.T, kind string) (dir string) {
	t.Helper()
	dir = tempDir(t)
	s := mustOpen(t, StoreOptions{Dir: dir, NodeID: "n1", LogStore: kind})
	fill(t, s, 20)
	if err := s.UpdateIdentity(func(id *Identity) {
		id.ClusterID, id.VotesFrom, id.Promise = "c1", 7, map[string]string{"n1": "a:1"}
	}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	return dir
}

func mustBegin(t *testing.T, dir string) *Reseed {
	t.Helper()
	r, err := BeginReseed(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func mustFinish(t *testing.T, r *Reseed, remove bool) (movedTo string) {
	t.Helper()
	movedTo, err := r.Finish("n1", "c1", remove)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return movedTo
}

func TestReseededDirectoryBelongsToItsClusterAndHoldsNothing(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		for _, remove := range []bool{false, true} {
			dir := used(t, kind)
			r := mustBegin(t, dir)
			if _, err := OpenStores(StoreOptions{Dir: dir}); !errors.Is(err, ErrInUse) {
				t.Errorf("OpenStores meanwhile = %v, want ErrInUse", err)
			}
			movedTo := mustFinish(t, r, remove)
			if _, err := os.Stat(filepath.Join(movedTo, stableFile)); remove != (movedTo == "") || !remove && err != nil {
				t.Errorf("remove=%v: the data are in %q: %v", remove, movedTo, err)
			}
			s := mustOpen(t, StoreOptions{Dir: dir, NodeID: "n1", LogStore: kind}) // as the command line had it
			id := s.Identity()
			if id.NodeID != "n1" || id.ClusterID != "c1" || id.HasState || id.HasLog || id.VotesFrom != 0 || len(id.Promise) > 0 || !id.Reseeded {
				t.Errorf("the identity is %+v", id)
			}
			if last, err := s.Log.LastIndex(); last != 0 || err != nil {
				t.Errorf("the log ends at %d: %v", last, err)
			}
			mustClose(t, s)
		}
	})
}

// At whatever point it ends, the directory is refused, and the whole can be done
// again.
func TestInterruptedReseedIsRefusedAndCanBeRepeated(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		for moved := range len(dataFiles) + 1 {
			dir := used(t, kind)
			folder := filepath.Join(dir, replacedPrefix+"1")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			some := false
			for _, name := range dataFiles[:moved] {
				if os.Rename(filepath.Join(dir, name), filepath.Join(folder, name)) == nil {
					some = true
				}
			}
			o := StoreOptions{Dir: dir}
			if some {
				wantDamaged(t, o)
			}
			mustFinish(t, mustBegin(t, dir), false)
			mustClose(t, mustOpen(t, o))
		}
	})
}

func TestReseedOfADirectoryThatDoesNotSayWhoseItIs(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		dir := used(t, kind)
		if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, StoreOptions{Dir: dir}, "--node-id ID")
		r := mustBegin(t, dir)
		if r.Identity.NodeID != "" || r.Problem == nil {
			t.Errorf("Identity = %+v, Problem = %v", r.Identity, r.Problem)
		}
		mustFinish(t, r, false)
		s := mustOpen(t, StoreOptions{Dir: dir})
		if id := s.Identity(); id.LogStore != kind {
			t.Errorf("the log store is %q, want %q as before", id.LogStore, kind)
		}
	})
}

func TestReseedRefusesWhatIsNoDataDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := BeginReseed(dir); err == nil {
		t.Error("a directory with a letter in it was taken")
	}
	if _, err := BeginReseed(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("BeginReseed of nothing = %v", err)
	}
}

func TestDivergedDirectoryIsRefusedUntilReseeded(t *testing.T) {
	dir := used(t, LogStoreWAL)
	s := mustOpen(t, StoreOptions{Dir: dir})
	if err := s.UpdateIdentity(func(id *Identity) { id.Diverged = "at log index 7 its digest was another one" }); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	wantDamaged(t, StoreOptions{Dir: dir}, "at log index 7 its digest was another one")
	mustFinish(t, mustBegin(t, dir), false)
	mustOpen(t, StoreOptions{Dir: dir})
}

//go:build linux

package faultfs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	sequences = flag.Int("sequences", 100, "random sequences of operations")
	firstSeed = flag.Uint64("seed", 0, "the seed of the first sequence")
)

// A naive model of what is durable: everything twice, as it is and as it was synced.
// The volume has undo logs instead, so that the two can hardly be wrong alike.

type modelFile struct {
	live, durable []byte
	written, lost map[int]bool // sectors since the last sync; given up by a failed one
}

type modelDir struct {
	live, durable map[string]any // *modelFile or *modelDir
	with          map[*modelDir]bool
}

func newModelFile() *modelFile {
	return &modelFile{written: map[int]bool{}, lost: map[int]bool{}}
}

func newModelDir() *modelDir {
	return &modelDir{live: map[string]any{}, durable: map[string]any{}, with: map[*modelDir]bool{}}
}

func resized(b []byte, size int) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

func (f *modelFile) touched(from, to int) {
	for s := from / sectorSize; s*sectorSize < to; s++ {
		f.written[s] = true
		delete(f.lost, s)
	}
}

func (f *modelFile) write(off int, b []byte) {
	f.live = resized(f.live, max(len(f.live), off+len(b)))
	copy(f.live[off:], b)
	f.touched(off, off+len(b))
}

func (f *modelFile) truncate(size int) {
	if size < len(f.live) {
		f.touched(size, max(size+1, len(f.durable)))
	}
	f.live = resized(f.live, size)
}

func (f *modelFile) sync() {
	next := bytes.Clone(f.live)
	was := resized(f.durable, len(next))
	for s := range f.lost {
		if from := s * sectorSize; from < len(next) {
			to := min(from+sectorSize, len(next))
			copy(next[from:to], was[from:to])
		} else {
			delete(f.lost, s)
		}
	}
	f.durable, f.written = next, map[int]bool{}
	for s := range f.lost {
		f.written[s] = true
	}
}

func (f *modelFile) failSync() {
	for s := range f.written {
		f.lost[s] = true
	}
}

func (d *modelDir) sync(done map[*modelDir]bool) {
	if done[d] {
		return
	}
	done[d] = true
	d.durable = map[string]any{}
	for name, x := range d.live {
		d.durable[name] = x
	}
	for other := range d.with {
		other.sync(done)
	}
	d.with = map[*modelDir]bool{}
}

// lose is a loss of power: what is durable is what there is.
func (d *modelDir) lose(done map[any]bool) {
	d.live, d.with = map[string]any{}, map[*modelDir]bool{}
	for name, x := range d.durable {
		d.live[name] = x
		if done[x] {
			continue
		}
		done[x] = true
		switch x := x.(type) {
		case *modelDir:
			x.lose(done)
		case *modelFile:
			x.live, x.written, x.lost = bytes.Clone(x.durable), map[int]bool{}, map[int]bool{}
		}
	}
}

// tree lists names and contents, durable or as they are.
func (d *modelDir) tree(durable bool, path string, into map[string]string) map[string]string {
	names := d.live
	if durable {
		names = d.durable
	}
	for name, x := range names {
		switch x := x.(type) {
		case *modelDir:
			into[path+name+"/"] = ""
			x.tree(durable, path+name+"/", into)
		case *modelFile:
			into[path+name] = string(x.live)
			if durable {
				into[path+name] = string(x.durable)
			}
		}
	}
	return into
}

// contains reports whether a directory is another one or in it.
func (d *modelDir) contains(other *modelDir) bool {
	if d == other {
		return true
	}
	for _, x := range d.live {
		if sub, ok := x.(*modelDir); ok && sub.contains(other) {
			return true
		}
	}
	return false
}

// treeOf is the same of a directory on the disk.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if e.IsDir() {
			tree[name+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(path)
		tree[name] = string(b)
		return err
	}))
	return tree
}

func differences(got, want map[string]string) string {
	var out []string
	for name, b := range want {
		g, there := got[name]
		switch {
		case !there:
			out = append(out, name+" is missing")
		case g != b:
			at := 0
			for at < min(len(g), len(b)) && g[at] == b[at] {
				at++
			}
			out = append(out, fmt.Sprintf("%s has %d bytes, want %d; they differ from byte %d on", name, len(g), len(b), at))
		}
	}
	for name := range got {
		if _, there := want[name]; !there {
			out = append(out, name+" is there")
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// walker does the same to a volume and to the model.
type walker struct {
	t    *testing.T
	rng  *rand.Rand
	v    *Volume
	root *modelDir
	done []string // what has been done, to be printed
}

// pick is a random directory: its number for the kernel, and what it is.
func (w *walker) pick() (id uint64, d *modelDir, path string) {
	id, d = rootID, w.root
	for w.rng.IntN(2) == 0 {
		name := w.name()
		sub, ok := d.live[name].(*modelDir)
		if !ok {
			break
		}
		id, d, path = w.id(id, name), sub, path+name+"/"
	}
	return id, d, path
}

// id looks a name up; the kernel may or may not forget it at once.
func (w *walker) id(dir uint64, name string) uint64 {
	x, _, err := w.v.lookup(dir, name)
	must(w.t, err)
	return x.id
}

func (w *walker) name() string { return string(rune('a' + w.rng.IntN(4))) }

// step does one thing. Whether it succeeds is the model's to say.
func (w *walker) step() {
	id, d, path := w.pick()
	name := w.name()
	file, _ := d.live[name].(*modelFile)
	_, isDir := d.live[name].(*modelDir)
	did := func(err error, want bool, what string, args ...any) {
		what = fmt.Sprintf(what, args...) + " in /" + path
		w.done = append(w.done, what)
		if (err == nil) != want {
			w.t.Fatalf("%s: got %v, want success: %v", what, err, want)
		}
	}
	switch w.rng.IntN(12) {
	case 0, 1:
		_, _, h, err := w.v.create(id, name, self(), unix.O_EXCL, 0o644)
		did(err, d.live[name] == nil, "create %s", name)
		if err == nil {
			d.live[name] = newModelFile()
			w.v.release(h)
		}
	case 2, 3, 4:
		if file != nil {
			what, err := w.change(w.id(id, name), file)
			did(err, true, "%s %s", what, name)
		}
	case 5:
		if file != nil {
			did(w.v.fsync(w.id(id, name)), true, "sync %s", name)
			file.sync()
		}
	case 6:
		did(w.v.fsync(id), true, "sync")
		d.sync(map[*modelDir]bool{})
	case 7:
		_, _, err := w.v.mkdir(id, name, self(), 0o755)
		did(err, d.live[name] == nil, "mkdir %s", name)
		if err == nil {
			d.live[name] = newModelDir()
		}
	case 8:
		flag, can := 0, file != nil
		if isDir {
			flag, can = unix.AT_REMOVEDIR, len(d.live[name].(*modelDir).live) == 0
		}
		did(w.v.remove(id, name, flag), can, "remove %s", name)
		if can {
			delete(d.live, name)
		}
	case 9:
		w.rename(id, d, name, did)
	case 10:
		w.link(id, d, file, did)
	case 11:
		w.forget()
	}
}

func self() owner { return owner{uint32(os.Geteuid()), uint32(os.Getegid())} }

// change writes, truncates, preallocates or fails to sync.
func (w *walker) change(id uint64, f *modelFile) (what string, err error) {
	h, err := w.v.open(id, 0)
	if err != nil {
		return "open", err
	}
	defer w.v.release(h)
	off, size := w.rng.IntN(3*sectorSize), 1+w.rng.IntN(2*sectorSize)
	switch w.rng.IntN(6) {
	case 0:
		f.truncate(off)
		return fmt.Sprintf("truncate to %d", off), w.v.setAttributes(resize(id, off))
	case 1:
		f.live = resized(f.live, max(len(f.live), off+size))
		return fmt.Sprintf("allocate %d to %d", off, off+size), w.v.allocate(h, uint64(off), uint64(size), 0)
	case 2:
		f.failSync()
		w.v.failSync(id)
		return "fail to sync", nil
	}
	b := bytes.Repeat([]byte{byte('A' + w.rng.IntN(26))}, size)
	f.write(off, b)
	_, _, err = w.v.write(h, b, int64(off))
	return fmt.Sprintf("write %d to %d of", off, off+size), err
}

func (w *walker) rename(id uint64, d *modelDir, name string, did func(error, bool, string, ...any)) {
	toID, to, toPath := w.pick()
	newName := w.name()
	x, y := d.live[name], to.live[newName]
	sub, xDir := x.(*modelDir)
	over, yDir := y.(*modelDir)
	can := x != nil && (y == nil || xDir == yDir) && !(xDir && sub.contains(to))
	if can && yDir && over != sub {
		can = len(over.live) == 0
	}
	if x != nil && x == y { // also a directory onto itself
		can = true
	}
	did(w.v.rename(id, name, toID, newName, 0), can, "rename %s to /%s%s", name, toPath, newName)
	if can && x != y {
		delete(d.live, name)
		to.live[newName] = x
		if d != to {
			d.with[to], to.with[d] = true, true
		}
	}
}

func (w *walker) link(id uint64, d *modelDir, file *modelFile, did func(error, bool, string, ...any)) {
	if file == nil {
		return
	}
	var from uint64
	for name, x := range d.live {
		if x == file {
			from = w.id(id, name)
		}
	}
	toID, to, toPath := w.pick()
	newName := w.name()
	_, _, err := w.v.link(from, toID, newName)
	did(err, to.live[newName] == nil, "link to /%s%s", toPath, newName)
	if err == nil {
		to.live[newName] = file
	}
}

// forget lets the kernel forget everything, which must not matter.
func (w *walker) forget() {
	w.v.mu.Lock()
	lookups := map[uint64]uint64{}
	for id, x := range w.v.nodes {
		lookups[id] = x.lookups
	}
	w.v.mu.Unlock()
	for id, n := range lookups {
		w.v.forget(id, n)
	}
}

func newWalker(t *testing.T, seed uint64) *walker {
	t.Helper()
	dir := t.TempDir()
	v, err := Open(dir, 0)
	must(t, err)
	t.Cleanup(v.Close)
	return &walker{t: t, rng: rand.New(rand.NewPCG(seed, 1)), v: v, root: newModelDir()}
}

func TestPowerLossLeavesExactlyWhatWasSynced(t *testing.T) {
	t.Parallel()
	for seed := *firstSeed; seed < *firstSeed+uint64(*sequences); seed++ {
		w := newWalker(t, seed)
		for life := range 3 {
			for range 40 + w.rng.IntN(80) {
				w.step()
			}
			if diff := differences(treeOf(t, w.v.dir), w.root.tree(false, "", map[string]string{})); diff != "" {
				t.Fatalf("seed %d, life %d: before the loss of power: %s\nafter:\n%s", seed, life, diff, strings.Join(w.done, "\n"))
			}
			_, err := w.v.PowerLoss(nil)
			must(t, err)
			w.done = append(w.done, "powerloss")
			w.root.lose(map[any]bool{})
			if diff := differences(treeOf(t, w.v.dir), w.root.tree(false, "", map[string]string{})); diff != "" {
				t.Fatalf("seed %d, life %d: after the loss of power: %s\nafter:\n%s", seed, life, diff, strings.Join(w.done, "\n"))
			}
		}
		if n := w.v.leftovers(); n != 0 {
			t.Fatalf("seed %d: %d bytes of undo logs, inodes and handles are left, want none", seed, n)
		}
	}
}

// The comparison must notice a disk that keeps what was not synced.
func TestComparisonNoticesWhatIsNotUndone(t *testing.T) {
	t.Parallel()
	noticed := 0
	const tries = 10
	for seed := range uint64(tries) {
		w := newWalker(t, seed)
		for range 80 {
			w.step()
		}
		w.syncAll()
		_, err := w.v.PowerLoss(nil)
		must(t, err)
		w.root.lose(map[any]bool{})
		if differences(treeOf(t, w.v.dir), w.root.tree(false, "", map[string]string{})) != "" {
			noticed++
		}
	}
	if noticed < tries-1 { // one sequence may end with a sync by chance
		t.Errorf("noticed in %d of %d sequences", noticed, tries)
	}
}

// syncAll makes everything in the volume durable, and does not tell the model.
func (w *walker) syncAll() {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	for len(w.v.dirty) > 0 {
		for x := range w.v.dirty {
			if x.content != nil {
				clear(x.content.lost)
			}
			must(w.t, w.v.settle(x))
			break
		}
	}
}

// leftovers is not 0 if something is kept that nobody needs.
func (v *Volume) leftovers() int {
	return int(v.cost) + len(v.dirty) + len(v.handles) + len(v.nodes) - 1 + len(v.known) - 1
}

// Syncing everything leaves nothing to remember, whatever happened before.
func TestNothingIsRememberedOfWhatIsSynced(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*sequences / 4) {
		w := newWalker(t, seed)
		for range 100 {
			w.step()
		}
		w.forget()
		w.syncAll()
		if n := w.v.leftovers(); n != 0 {
			t.Fatalf("seed %d: %d bytes of undo logs, inodes and handles are left, want none", seed, n)
		}
	}
}

// What a torn loss of power leaves of each sector is one of the two states, and
// the names are all of one of them.
func TestTornPowerLossLeavesOldOrNewOfEachSector(t *testing.T) {
	t.Parallel()
	mixed := 0
	for seed := range uint64(*sequences) {
		w := newWalker(t, seed)
		for range 120 {
			w.step()
		}
		_, err := w.v.PowerLoss(rand.New(rand.NewPCG(seed, 2)))
		must(t, err)
		got := treeOf(t, w.v.dir)
		torn, old := w.root.explains(got, true)
		if old != nil {
			var now error
			if torn, now = w.root.explains(got, false); now != nil {
				t.Fatalf("seed %d: with the old names: %v; with the new ones: %v", seed, old, now)
			}
		}
		mixed += torn
	}
	if mixed == 0 {
		t.Error("no file was torn in any sequence")
	}
}

// explains finds out whether what is left can be what a torn loss of power leaves,
// of the old or of the new names. It counts the files that are partly new.
func (d *modelDir) explains(got map[string]string, durable bool) (torn int, err error) {
	want := d.tree(durable, "", map[string]string{})
	if !sameNames(got, want) {
		return 0, fmt.Errorf("other names: %s", differences(got, want))
	}
	for name, f := range d.files(durable, "") {
		news, err := f.explains([]byte(got[name]))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if 0 < news && news < len(f.written) {
			torn++
		}
	}
	return torn, nil
}

func (d *modelDir) files(durable bool, path string) map[string]*modelFile {
	files := map[string]*modelFile{}
	names := d.live
	if durable {
		names = d.durable
	}
	for name, x := range names {
		switch x := x.(type) {
		case *modelDir:
			for sub, f := range x.files(durable, path+name+"/") {
				files[sub] = f
			}
		case *modelFile:
			files[path+name] = x
		}
	}
	return files
}

func sameNames(a, b map[string]string) bool {
	for name := range a {
		if _, there := b[name]; !there {
			return false
		}
	}
	return len(a) == len(b)
}

// explains counts the sectors that are as they were written and not as they were
// synced.
func (f *modelFile) explains(got []byte) (news int, err error) {
	if len(got) != len(f.live) && len(got) != len(f.durable) {
		return 0, fmt.Errorf("it has %d bytes, want %d or %d", len(got), len(f.durable), len(f.live))
	}
	was, is := resized(f.durable, len(got)), resized(f.live, len(got))
	for from := 0; from < len(got); from += sectorSize {
		to := min(from+sectorSize, len(got))
		old, now := bytes.Equal(got[from:to], was[from:to]), bytes.Equal(got[from:to], is[from:to])
		switch {
		case !old && !now:
			return news, fmt.Errorf("sector %d is neither old nor new", from/sectorSize)
		case now && !old && f.lost[from/sectorSize]:
			return news, errors.New("a sector survived that a failed sync had given up")
		case now && !old:
			news++
		}
	}
	return news, nil
}

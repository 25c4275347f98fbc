package fsm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// pairs is the naive ordered map.
type pairs []pair

type pair struct {
	key   string
	value int
}

func (p pairs) find(key string) (int, bool) {
	return slices.BinarySearchFunc(p, key, func(a pair, k string) int { return strings.Compare(a.key, k) })
}

func (p pairs) put(key string, value int) pairs {
	i, ok := p.find(key)
	if ok {
		p[i].value = value
		return p
	}
	return slices.Insert(p, i, pair{key, value})
}

func newStringTree() tree[string, int] { return tree[string, int]{cmp: strings.Compare, gen: 1} }

// shape checks what must be true of a B-tree's nodes and returns its depth and
// how many items it has.
func shape[K, V any](t *testing.T, tr *tree[K, V], n *treeNode[K, V], top bool) (depth, items int) {
	t.Helper()
	if n == nil {
		return 0, 0
	}
	if n.n < 1 || n.n > treeMax || n.gen > tr.gen {
		t.Fatalf("node of %d items, generation %d of %d", n.n, n.gen, tr.gen)
	}
	for i := 1; i < n.n; i++ {
		if tr.cmp(n.keys[i-1], n.keys[i]) >= 0 {
			t.Fatalf("key %v stands before %v", n.keys[i-1], n.keys[i])
		}
	}
	items = n.n
	if n.kids == nil {
		return 1, items
	}
	for i, kid := range n.kids {
		if (kid != nil) != (i <= n.n) {
			t.Fatalf("kid %d of a node of %d items: %v", i, n.n, kid != nil)
		}
		if kid == nil {
			continue
		}
		d, k := shape(t, tr, kid, false)
		if i > 0 && d != depth {
			t.Fatalf("kids of depth %d and %d", depth, d)
		}
		depth, items = d, items+k
		if i > 0 && tr.cmp(kid.keys[0], n.keys[i-1]) <= 0 || i < n.n && tr.cmp(kid.keys[kid.n-1], n.keys[i]) >= 0 {
			t.Fatalf("kid %d reaches beyond its neighbours' keys", i)
		}
	}
	if top && depth > 6 {
		t.Fatalf("depth %d", depth)
	}
	return depth + 1, items
}

func sameItems(t *testing.T, what string, tr *tree[string, int], want pairs) {
	t.Helper()
	if _, items := shape(t, tr, tr.root, true); items != len(want) || tr.len != len(want) {
		t.Fatalf("%s: %d items, len %d, want %d", what, items, tr.len, len(want))
	}
	i := 0
	for k, v := range tr.all() {
		if want[i] != (pair{k, v}) {
			t.Fatalf("%s: item %d is %s=%d, want %+v", what, i, k, v, want[i])
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("%s: walked %d items, want %d", what, i, len(want))
	}
}

func TestTreeIsTheSortedSlice(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		tr, want := newStringTree(), pairs(nil)
		keys := 50 << (2 * seed % 7) // from a single leaf to three levels
		for step := range 12_000 {
			key := fmt.Sprint(rnd.IntN(keys))
			_, had := want.find(key)
			if grow := step/2000%2 == 0; rnd.IntN(10) < 3 == grow {
				if got := tr.delete(key); got != had {
					t.Fatalf("seed %d: delete %s: %v, want %v", seed, key, got, had)
				}
				if i, ok := want.find(key); ok {
					want = slices.Delete(want, i, i+1)
				}
			} else {
				tr.put(key, step)
				want = want.put(key, step)
			}
			probe := fmt.Sprint(rnd.IntN(keys))
			got, ok := tr.get(probe)
			if i, found := want.find(probe); ok != found || ok && got != want[i].value {
				t.Fatalf("seed %d: get %s: %d, %v", seed, probe, got, ok)
			}
			if step%500 == 0 {
				sameItems(t, fmt.Sprintf("seed %d step %d", seed, step), &tr, want)
				sameEnds(t, &tr, want, rnd)
			}
		}
	}
}

// sameEnds compares the walks that begin in the middle, and the ends.
func sameEnds(t *testing.T, tr *tree[string, int], want pairs, rnd *rand.Rand) {
	t.Helper()
	k, _, ok := tr.first()
	if ok != (len(want) > 0) || ok && k != want[0].key {
		t.Fatalf("first %s, %v, want %+v", k, ok, want)
	}
	if ok && (tr.isNext(want[len(want)-1].key) || !tr.isNext(want[len(want)-1].key+"x")) {
		t.Fatal("isNext is wrong about the last key")
	}
	from := fmt.Sprint(rnd.IntN(1000))
	i, _ := want.find(from)
	for k, v := range tr.from(from) {
		if i == len(want) || want[i] != (pair{k, v}) {
			t.Fatalf("walk from %s: %s=%d at %d", from, k, v, i)
		}
		if i++; i%40 == 0 {
			return // leaving early must be possible
		}
	}
	if i != len(want) {
		t.Fatalf("walk from %s ended at %d of %d", from, i, len(want))
	}
}

// A copy of the tree stays what it was, whatever happens to the original.
func TestTreeCopiesAreIsolated(t *testing.T) {
	type image struct {
		tree tree[string, int]
		want pairs
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	tr, want := newStringTree(), pairs(nil)
	var images []image
	for step := range 30_000 {
		key := fmt.Sprint(rnd.IntN(4000))
		if rnd.IntN(2) == 0 {
			tr.put(key, step)
			want = want.put(key, step)
		} else if tr.delete(key) {
			i, _ := want.find(key)
			want = slices.Delete(want, i, i+1)
		}
		if step%1000 == 0 {
			images = append(images, image{tr, slices.Clone(want)})
			tr.gen++
		}
	}
	sameItems(t, "the original", &tr, want)
	for i, image := range images {
		sameItems(t, fmt.Sprintf("image %d", i), &image.tree, image.want)
	}
}

// Within one generation nothing is copied: a second write allocates nothing.
func TestTreeChangesInPlaceWithinAGeneration(t *testing.T) {
	tr := newStringTree()
	for i := range 5000 {
		tr.put(fmt.Sprint(i), i)
	}
	tr.gen++
	tr.put("77", 1)
	if n := testing.AllocsPerRun(100, func() { tr.put("77", 2) }); n != 0 {
		t.Fatalf("%v allocations for a second write to the same place", n)
	}
}

// Keys that only grow must not leave half-empty nodes behind.
func TestGrowingKeysFillTheirNodes(t *testing.T) {
	tr := tree[uint64, int]{cmp: compareInts[uint64]}
	const items = 100_000
	for i := range uint64(items) {
		tr.put(i, 0)
	}
	nodes := 0
	var count func(n *treeNode[uint64, int])
	count = func(n *treeNode[uint64, int]) {
		nodes++
		if n.kids != nil {
			for _, kid := range n.kids[:n.n+1] {
				count(kid)
			}
		}
	}
	count(tr.root)
	if least := items / treeMax; nodes > least+least/20+5 {
		t.Fatalf("%d nodes for %d items, want about %d", nodes, items, least)
	}
}

// A tree that is emptied gives everything back, from either end and from the
// middle.
func TestTreeCanBeEmptied(t *testing.T) {
	for name, next := range map[string]func(left int) int{
		"from the front": func(int) int { return 0 },
		"from the back":  func(left int) int { return left - 1 },
		"from within":    func(left int) int { return left / 2 },
	} {
		tr, want := newStringTree(), pairs(nil)
		for i := range 5000 {
			key := fmt.Sprintf("%05d", i)
			tr.put(key, i)
			want = append(want, pair{key, i})
		}
		for len(want) > 0 {
			i := next(len(want))
			if !tr.delete(want[i].key) {
				t.Fatalf("%s: %s is not there", name, want[i].key)
			}
			want = slices.Delete(want, i, i+1)
			if len(want)%250 == 0 {
				sameItems(t, name, &tr, want)
			}
		}
		if tr.root != nil || tr.delete("00001") {
			t.Fatalf("%s: something is left", name)
		}
	}
}

func BenchmarkTreePutDelete(b *testing.B) {
	for _, items := range []int{100, 1_000_000} {
		b.Run(fmt.Sprint(items), func(b *testing.B) {
			tr := newStringTree()
			for i := range items {
				tr.put(fmt.Sprintf("held/%d", i), i)
			}
			keys := make([]string, 1024)
			for i := range keys {
				keys[i] = fmt.Sprintf("held/%d/x", i*977%items)
			}
			for n := 0; b.Loop(); n++ {
				key := keys[n%len(keys)]
				tr.put(key, n)
				tr.delete(key)
			}
		})
	}
}

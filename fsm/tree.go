package fsm

import "iter"

// Nodes hold up to treeMax items: with 24 bytes an item that fills a size class
// of the allocator. A node that a deletion leaves with fewer than treeMin is
// merged with a neighbour or filled up from it; the gap between the two keeps
// acquire and release from splitting and merging the same node in turn.
const (
	treeMax = 62
	treeMin = 15
)

// tree is an ordered map as a B-tree that is copied on write: a node is changed
// in place only if its generation is the tree's. After the tree struct is
// copied and gen is raised in the original, the copy is an unchanging image that
// may be read from another goroutine while the original goes on.
//
// The shape depends on the history and is not part of the state; only the order
// of the keys is.
type tree[K, V any] struct {
	root *treeNode[K, V]
	len  int
	gen  uint64
	cmp  func(a, b K) int
}

type treeNode[K, V any] struct {
	gen  uint64
	n    int
	keys [treeMax]K
	vals [treeMax]V
	kids *[treeMax + 1]*treeNode[K, V] // nil in a leaf; otherwise n+1 of them
}

// find returns the place of k in the node, or of the first larger key.
func (t *tree[K, V]) find(n *treeNode[K, V], k K) (int, bool) {
	lo, hi := 0, n.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := t.cmp(n.keys[mid], k); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		default:
			return mid, true
		}
	}
	return lo, false
}

func (t *tree[K, V]) get(k K) (v V, ok bool) {
	for n := t.root; n != nil; {
		i, found := t.find(n, k)
		if found {
			return n.vals[i], true
		}
		if n.kids == nil {
			break
		}
		n = n.kids[i]
	}
	return v, false
}

// own returns n, or a copy of it that may be changed.
func (t *tree[K, V]) own(n *treeNode[K, V]) *treeNode[K, V] {
	if n.gen == t.gen {
		return n
	}
	c := *n
	c.gen = t.gen
	if n.kids != nil {
		kids := *n.kids
		c.kids = &kids
	}
	return &c
}

// put adds the key or replaces its value.
func (t *tree[K, V]) put(k K, v V) {
	if t.root == nil {
		t.root = &treeNode[K, V]{gen: t.gen}
	}
	t.root = t.own(t.root)
	mk, mv, right := t.insert(t.root, k, v)
	if right == nil {
		return
	}
	top := &treeNode[K, V]{gen: t.gen, n: 1, kids: new([treeMax + 1]*treeNode[K, V])}
	top.keys[0], top.vals[0] = mk, mv
	top.kids[0], top.kids[1] = t.root, right
	t.root = top
}

// insert puts k into the subtree of n, which is owned. If n had to be split, it
// returns the item that goes up and the node to the right of it.
func (t *tree[K, V]) insert(n *treeNode[K, V], k K, v V) (mk K, mv V, right *treeNode[K, V]) {
	i, found := t.find(n, k)
	if found {
		n.vals[i] = v
		return
	}
	if n.kids == nil {
		t.len++
		return t.insertAt(n, i, k, v, nil)
	}
	kid := t.own(n.kids[i])
	n.kids[i] = kid
	k, v, split := t.insert(kid, k, v)
	if split == nil {
		return
	}
	return t.insertAt(n, i, k, v, split)
}

// insertAt puts an item at place i of n, with kid to the right of it, and
// splits n if it is full. An item at the very end leaves the left half full:
// keys that only grow (numbers, tokens) then fill their nodes.
func (t *tree[K, V]) insertAt(n *treeNode[K, V], i int, k K, v V, kid *treeNode[K, V]) (mk K, mv V, right *treeNode[K, V]) {
	if n.n < treeMax {
		n.insertItem(i, k, v, kid)
		return
	}
	mid := treeMax / 2
	if i == treeMax {
		mid = treeMax - 1
	}
	right = &treeNode[K, V]{gen: t.gen, n: treeMax - mid - 1}
	copy(right.keys[:], n.keys[mid+1:])
	copy(right.vals[:], n.vals[mid+1:])
	if n.kids != nil {
		right.kids = new([treeMax + 1]*treeNode[K, V])
		copy(right.kids[:], n.kids[mid+1:])
		clear(n.kids[mid+1:])
	}
	mk, mv = n.keys[mid], n.vals[mid]
	clear(n.keys[mid:])
	clear(n.vals[mid:])
	n.n = mid
	if i <= mid {
		n.insertItem(i, k, v, kid)
	} else {
		right.insertItem(i-mid-1, k, v, kid)
	}
	return mk, mv, right
}

func (n *treeNode[K, V]) insertItem(i int, k K, v V, kid *treeNode[K, V]) {
	copy(n.keys[i+1:n.n+1], n.keys[i:n.n])
	copy(n.vals[i+1:n.n+1], n.vals[i:n.n])
	n.keys[i], n.vals[i] = k, v
	if n.kids != nil {
		copy(n.kids[i+2:n.n+2], n.kids[i+1:n.n+1])
		n.kids[i+1] = kid
	}
	n.n++
}

// removeItem takes out the item at i and the kid at j, in this or the next place.
func (n *treeNode[K, V]) removeItem(i, j int) {
	var (
		k K
		v V
	)
	copy(n.keys[i:], n.keys[i+1:n.n])
	copy(n.vals[i:], n.vals[i+1:n.n])
	n.keys[n.n-1], n.vals[n.n-1] = k, v
	if n.kids != nil {
		copy(n.kids[j:], n.kids[j+1:n.n+1])
		n.kids[n.n] = nil
	}
	n.n--
}

// delete removes the key, if it is there.
func (t *tree[K, V]) delete(k K) bool {
	if t.root == nil {
		return false
	}
	t.root = t.own(t.root)
	if !t.remove(t.root, k) {
		return false
	}
	t.len--
	if t.root.n == 0 {
		if t.root.kids == nil {
			t.root = nil
		} else {
			t.root = t.root.kids[0]
		}
	}
	return true
}

func (t *tree[K, V]) remove(n *treeNode[K, V], k K) bool {
	i, found := t.find(n, k)
	if n.kids == nil {
		if found {
			n.removeItem(i, 0)
		}
		return found
	}
	kid := t.own(n.kids[i])
	n.kids[i] = kid
	if found {
		n.keys[i], n.vals[i] = t.removeMax(kid)
	} else if !t.remove(kid, k) {
		return false
	}
	t.refill(n, i)
	return true
}

func (t *tree[K, V]) removeMax(n *treeNode[K, V]) (k K, v V) {
	if n.kids == nil {
		k, v = n.keys[n.n-1], n.vals[n.n-1]
		n.removeItem(n.n-1, 0)
		return k, v
	}
	i := n.n
	kid := t.own(n.kids[i])
	n.kids[i] = kid
	k, v = t.removeMax(kid)
	t.refill(n, i)
	return k, v
}

// refill repairs the kid at i of n if a deletion left too little in it.
func (t *tree[K, V]) refill(n *treeNode[K, V], i int) {
	if n.kids[i].n >= treeMin {
		return
	}
	if i == n.n {
		i-- // the last kid is repaired with its left neighbour
	}
	left, right := t.own(n.kids[i]), t.own(n.kids[i+1])
	n.kids[i], n.kids[i+1] = left, right
	switch {
	case left.n+right.n < treeMax:
		left.keys[left.n], left.vals[left.n] = n.keys[i], n.vals[i]
		copy(left.keys[left.n+1:], right.keys[:right.n])
		copy(left.vals[left.n+1:], right.vals[:right.n])
		if left.kids != nil {
			copy(left.kids[left.n+1:], right.kids[:right.n+1])
		}
		left.n += 1 + right.n
		n.removeItem(i, i+1)
	case left.n < right.n:
		var kid *treeNode[K, V]
		if left.kids != nil {
			kid = right.kids[0]
		}
		left.insertItem(left.n, n.keys[i], n.vals[i], kid)
		n.keys[i], n.vals[i] = right.keys[0], right.vals[0]
		right.removeItem(0, 0)
	default:
		var kid *treeNode[K, V]
		if left.kids != nil {
			kid = left.kids[left.n]
		}
		right.insertItem(0, n.keys[i], n.vals[i], nil)
		if right.kids != nil {
			right.kids[0], right.kids[1] = kid, right.kids[0]
		}
		n.keys[i], n.vals[i] = left.keys[left.n-1], left.vals[left.n-1]
		left.removeItem(left.n-1, left.n)
	}
}

// first returns the smallest key.
func (t *tree[K, V]) first() (k K, v V, ok bool) {
	n := t.root
	if n == nil {
		return k, v, false
	}
	for n.kids != nil {
		n = n.kids[0]
	}
	return n.keys[0], n.vals[0], true
}

// after returns the smallest key that is greater than k.
func (t *tree[K, V]) after(k K) (next K, ok bool) {
	for n := t.root; n != nil; {
		i, found := t.find(n, k)
		if found {
			i++
		}
		if i < n.n {
			next, ok = n.keys[i], true
		}
		if n.kids == nil {
			break
		}
		n = n.kids[i]
	}
	return next, ok
}

// isNext says that k is greater than all keys.
func (t *tree[K, V]) isNext(k K) bool {
	n := t.root
	if n == nil {
		return true
	}
	for n.kids != nil {
		n = n.kids[n.n]
	}
	return t.cmp(n.keys[n.n-1], k) < 0
}

// all walks the tree in the order of the keys. The tree must not change meanwhile.
func (t *tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.walk(t.root, nil, yield) }
}

// from walks the keys that are not smaller than k, as all does.
func (t *tree[K, V]) from(k K) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.walk(t.root, &k, yield) }
}

func (t *tree[K, V]) walk(n *treeNode[K, V], from *K, yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	i := 0
	if from != nil {
		var found bool
		if i, found = t.find(n, *from); found {
			from = nil
			if !yield(n.keys[i], n.vals[i]) {
				return false
			}
			i++
		}
	}
	for ; i <= n.n; i++ {
		if n.kids != nil && !t.walk(n.kids[i], from, yield) {
			return false
		}
		from = nil
		if i < n.n && !yield(n.keys[i], n.vals[i]) {
			return false
		}
	}
	return true
}

package fair

// Room is the bound that owners share. The zero value is no room at all.
type Room struct{ Items, Bytes int }

// Times is n times as much room.
func (r Room) Times(n int) Room { return Room{n * r.Items, n * r.Bytes} }

// levels of owners: addresses, connections.
const levels = 2

// tree counts what owners have, on each level. Its zero value is empty.
//
//	used of a node   = sum of used of its children
//	idle             = number of leaves with used == 0
type tree[T any] struct {
	root node[T]
	at   [levels]map[Owner]*node[T] // prefix of an owner → node
	idle int

	recent *node[T] // leaf that was asked for last; nil: none
	asked  Owner    // whose it is
}

// node is an owner, or a group of them.
type node[T any] struct {
	parent *node[T]
	used   Room

	// Of a Queue. last.next is the child whose turn it is; only those are in the ring
	// that have something queued.
	last, next *node[T]
	debt       int // bytes beyond its share that it was served
	items      fifo[T]
}

func prefix(o Owner, level int) Owner {
	if level == 0 {
		return Owner{Address: o.Address}
	}
	return o
}

// fits reports whether an owner may have one more item of a size.
func (t *tree[T]) fits(o Owner, size int, room Room) bool {
	free := Room{room.Items - t.root.used.Items, room.Bytes - t.root.used.Bytes}
	if free.Items < 1 || free.Bytes < size {
		return false
	}
	if leaf := t.find(o); leaf != nil { // mostly
		return free.leave(leaf.parent.used) && free.leave(leaf.used)
	}
	for level := range levels {
		n := t.at[level][prefix(o, level)]
		if n == nil {
			return true
		}
		if !free.leave(n.used) {
			return false
		}
	}
	return true
}

// leave takes what an owner has off what is free for it, which r is, and reports whether it has
// less than that.
func (r *Room) leave(used Room) bool {
	ok := used.Items < r.Items && (used.Bytes < r.Bytes || used.Bytes == 0)
	r.Items -= used.Items
	r.Bytes -= used.Bytes
	return ok
}

// find is the node of an owner, nil if there is none. Mostly it is that of the one before.
func (t *tree[T]) find(o Owner) *node[T] {
	if t.recent == nil || t.asked != o {
		t.recent, t.asked = t.at[levels-1][o], o
	}
	return t.recent
}

// leaf is the node of an owner; it is made if need be.
func (t *tree[T]) leaf(o Owner) *node[T] {
	if n := t.find(o); n != nil {
		return n
	}
	if t.idle > fewIdle && t.idle > len(t.at[levels-1])/2 {
		t.sweep()
	}
	n := &t.root
	for level := range levels {
		key := prefix(o, level)
		child := t.at[level][key]
		if child == nil {
			child = &node[T]{parent: n}
			if t.at[level] == nil {
				t.at[level] = make(map[Owner]*node[T])
			}
			t.at[level][key] = child
		}
		n = child
	}
	t.idle++
	t.recent, t.asked = n, o
	return n
}

// fewIdle owners without anything are remembered in any case.
const fewIdle = 64

// sweep forgets owners that have nothing. With a group all of its owners go.
func (t *tree[T]) sweep() {
	for _, nodes := range t.at {
		for key, n := range nodes {
			if n.used.Items == 0 {
				delete(nodes, key)
			}
		}
	}
	t.idle, t.recent = 0, nil
}

// count counts an item of an owner in, or with n = -1 out.
func (t *tree[T]) count(leaf *node[T], n, size int) {
	if leaf.used.Items == 0 {
		t.idle--
	}
	for at := leaf; at != nil; at = at.parent {
		at.used.Items += n
		at.used.Bytes += n * size
	}
	if leaf.used.Items == 0 {
		t.idle++
	}
}

package fair

// Queue holds the items of many owners and gives them out in turn. Those of one owner
// stay in order. Its zero value is empty. It must not be copied.
//
//	a node is in its parent's ring  ⇔  it, or one of its children, has items
type Queue[T any] struct{ tree tree[T] }

// quantum is how many bytes one turn allows. An owner whose item was larger skips as many
// turns as it has exceeded.
const quantum = 4096

// Push queues an item of an owner, and returns false if its share of room does not allow it.
func (q *Queue[T]) Push(o Owner, item T, size int, room Room) (ok bool) {
	if !q.tree.fits(o, size, room) {
		return false
	}
	q.Put(o, item, size)
	return true
}

// Put queues an item without a bound.
func (q *Queue[T]) Put(o Owner, item T, size int) {
	leaf := q.tree.leaf(o)
	q.tree.count(leaf, 1, size)
	leaf.items.push(queued[T]{item, size})
	for n := leaf; n.parent != nil && n.next == nil; n = n.parent {
		n.parent.enqueue(n)
	}
}

// Pop removes the next item; ok is false if there is none.
func (q *Queue[T]) Pop() (item T, size int, ok bool) {
	n := &q.tree.root
	if n.last == nil {
		return item, 0, false
	}
	for n.last != nil {
		n = n.turn()
	}
	first := n.items.pop()
	q.tree.count(n, -1, first.size)
	for child := n; child.parent != nil; child = child.parent {
		child.debt = max(0, child.debt+first.size-quantum)
		if child.used.Items == 0 {
			child.parent.dequeue()
		} else {
			child.parent.last = child // the next one's turn
		}
	}
	return first.item, first.size, true
}

// Len is how many items are queued.
func (q *Queue[T]) Len() int { return q.tree.root.used.Items }

// Clear drops all items.
func (q *Queue[T]) Clear() { *q = Queue[T]{} }

// turn is the child whose turn it is.
func (n *node[T]) turn() *node[T] {
	for {
		child := n.last.next
		if child == n.last { // the only one: no other owner has to wait
			child.debt = 0
		}
		if child.debt < quantum {
			return child
		}
		child.debt -= quantum
		n.last = child
	}
}

// enqueue puts a child at the end of the ring.
func (n *node[T]) enqueue(child *node[T]) {
	child.debt = 0
	if n.last == nil {
		child.next = child
	} else {
		child.next, n.last.next = n.last.next, child
	}
	n.last = child
}

// dequeue takes the child out whose turn it was.
func (n *node[T]) dequeue() {
	child := n.last.next
	if child == n.last {
		n.last = nil
	} else {
		n.last.next = child.next
	}
	child.next = nil
}

type queued[T any] struct {
	item T
	size int
}

// fifo is a queue that keeps its memory while it is used, unless that is much.
type fifo[T any] struct {
	items []queued[T]
	head  int
}

// maxSpare is how many places an empty queue keeps.
const maxSpare = 256

func (f *fifo[T]) push(item queued[T]) {
	if len(f.items) == cap(f.items) && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, item)
}

func (f *fifo[T]) pop() queued[T] {
	item := f.items[f.head]
	f.items[f.head] = queued[T]{}
	if f.head++; f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
		if cap(f.items) > maxSpare {
			f.items = nil
		}
	}
	return item
}

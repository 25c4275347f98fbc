package fsm

// deadlines orders everything that ends by time: by (deadline, number), where
// number is unique over all that is in it. It is a 4-ary heap that knows where
// each entry stands. A renewal mostly moves nothing: it makes an entry later, and
// three of four stand at the bottom.
//
// It is no part of the state: its layout depends on the history, but the order
// in which deadlines leave it does not.
//
// Rejected: a heap that leaves dead entries inside. Detached grants that are
// released long before their TTL would fill it, and sweeping a million entries
// takes longer than an entry of the log may. And one in which a renewed entry
// stays where it is until it comes to the top: one entry of the log can then
// find that all the millions are to be moved.
type deadlines struct {
	heap  []due
	where []int32   // slot → place in heap
	what  []*target // slot → what it is; nil: a request
	free  []int32   // unused slots
}

// due is one entry.
type due struct {
	at     Instant
	number uint64
	slot   int32
}

// target names what a deadline belongs to if it is not a request.
type target struct {
	session  SessionID
	accessor string // of an access token
	lock     string // whose delay it is, if both others are zero
}

// before orders two entries. Only delays can agree in both: those of the locks
// of one request.
func (d *deadlines) before(a, b *due) bool {
	switch {
	case a.at != b.at:
		return a.at < b.at
	case a.number != b.number:
		return a.number < b.number
	}
	x, y := d.what[a.slot], d.what[b.slot]
	return x != nil && y != nil && x.lock < y.lock
}

// add enters a deadline and returns its slot, which is never 0.
func (d *deadlines) add(at Instant, number uint64, what *target) int32 {
	var slot int32
	if n := len(d.free); n > 0 {
		slot = d.free[n-1]
		d.free = d.free[:n-1]
	} else {
		if len(d.where) == 0 {
			d.where, d.what = append(d.where, -1), append(d.what, nil)
		}
		slot = int32(len(d.where))
		d.where, d.what = append(d.where, 0), append(d.what, nil)
	}
	d.what[slot] = what
	d.heap = append(d.heap, due{at: at, number: number, slot: slot})
	d.up(len(d.heap) - 1)
	return slot
}

// remove takes the entry of a slot out. Slot 0 is none.
func (d *deadlines) remove(slot int32) {
	if slot == 0 {
		return
	}
	i, last := int(d.where[slot]), len(d.heap)-1
	moved := d.heap[last]
	d.heap = d.heap[:last]
	if c := cap(d.heap); c > 4096 && last < c/4 {
		d.heap = clip(d.heap) // what was there once must not take memory for ever
	}
	if i != last {
		d.heap[i] = moved
		if !d.up(i) {
			d.down(i)
		}
	}
	d.where[slot], d.what[slot] = -1, nil
	d.free = append(d.free, slot)
}

// move gives the entry of a slot another time.
func (d *deadlines) move(slot int32, at Instant) {
	i := int(d.where[slot])
	d.heap[i].at = at
	if !d.up(i) {
		d.down(i)
	}
}

func (d *deadlines) up(i int) bool {
	e, start := d.heap[i], i
	for i > 0 {
		parent := (i - 1) / 4
		if !d.before(&e, &d.heap[parent]) {
			break
		}
		d.heap[i] = d.heap[parent]
		d.where[d.heap[i].slot] = int32(i)
		i = parent
	}
	d.heap[i] = e
	d.where[e.slot] = int32(i)
	return i != start
}

func (d *deadlines) down(i int) {
	e := d.heap[i]
	for {
		first := 4*i + 1
		if first >= len(d.heap) {
			break
		}
		least := first
		for k := first + 1; k < min(first+4, len(d.heap)); k++ {
			if d.before(&d.heap[k], &d.heap[least]) {
				least = k
			}
		}
		if !d.before(&d.heap[least], &e) {
			break
		}
		d.heap[i] = d.heap[least]
		d.where[d.heap[i].slot] = int32(i)
		i = least
	}
	d.heap[i] = e
	d.where[e.slot] = int32(i)
}

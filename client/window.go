package client

// window gives operations of a session their sequences and knows up to which
// all have been answered. Its ring holds the operations from the first
// unanswered one on:
//
//	acknowledged = base - 1
//	slot(seq) == nil  ⇔  seq is answered, for base <= seq < base + n
type window struct {
	base uint64 // sequence of ring[head]
	ring []*op  // its length is a power of two
	head int
	n    int
}

// issue returns the next sequence, for o.
func (w *window) issue(o *op) uint64 {
	if w.base == 0 {
		w.base = 1
	}
	if w.n == len(w.ring) {
		w.grow()
	}
	w.ring[(w.head+w.n)&(len(w.ring)-1)] = o
	w.n++
	return w.base + uint64(w.n) - 1
}

// answered says that the answer of seq is not needed any more.
func (w *window) answered(seq uint64) {
	if seq < w.base || seq-w.base >= uint64(w.n) {
		return
	}
	mask := len(w.ring) - 1
	w.ring[(w.head+int(seq-w.base))&mask] = nil
	for w.n > 0 && w.ring[w.head] == nil {
		w.head = (w.head + 1) & mask
		w.base++
		w.n--
	}
}

// acknowledged returns the sequence up to which everything has been answered.
func (w *window) acknowledged() uint64 { return max(w.base, 1) - 1 }

// span returns how many sequences there are from the first unanswered one on.
func (w *window) span() int { return w.n }

// each calls f for every unanswered operation.
func (w *window) each(f func(*op)) {
	for i := range w.n {
		if o := w.ring[(w.head+i)&(len(w.ring)-1)]; o != nil {
			f(o)
		}
	}
}

func (w *window) grow() {
	ring := make([]*op, max(16, 2*len(w.ring)))
	for i := range w.n {
		ring[i] = w.ring[(w.head+i)&(len(w.ring)-1)]
	}
	w.ring, w.head = ring, 0
}

package node

import "sync"

// Bounds of what a node remembers about its past states.
const (
	recentCheckpoints = 256  // one for each of the last entries
	coarseCheckpoints = 1024 // one for every coarseEvery indexes before
	coarseEvery       = 64
	maxDigestIndexes  = 64 // in one request of a peer
)

// checkpoint is the digest of everything applied up to an index. Both come from
// the table together, so a checkpoint never becomes wrong.
type checkpoint struct{ index, digest uint64 }

// checkpoints keeps the digests of a node's latest states. It is safe for concurrent use;
// note is called by one goroutine at a time.
type checkpoints struct {
	mu     sync.Mutex // guards what follows
	recent ringOf
	coarse ringOf
}

// ringOf holds the latest checkpoints up to a limit.
type ringOf struct {
	all  []checkpoint
	next int // index in all of the next one, once all is full
}

func (r *ringOf) add(c checkpoint, limit int) {
	if len(r.all) < limit {
		r.all = append(r.all, c)
		return
	}
	r.all[r.next] = c
	r.next = (r.next + 1) % limit
}

// back returns the checkpoint that is n before the last one.
func (r *ringOf) back(n int) (checkpoint, bool) {
	if n >= len(r.all) {
		return checkpoint{}, false
	}
	return r.all[(r.next+2*len(r.all)-1-n)%len(r.all)], true
}

func (r *ringOf) find(index uint64) (checkpoint, bool) {
	for _, c := range r.all {
		if c.index == index {
			return c, true
		}
	}
	return checkpoint{}, false
}

// note records a state.
func (c *checkpoints) note(index, digest uint64) {
	if index == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.coarse.back(0); !ok || last.index/coarseEvery != index/coarseEvery {
		c.coarse.add(checkpoint{index, digest}, coarseCheckpoints)
	}
	c.recent.add(checkpoint{index, digest}, recentCheckpoints)
}

// some picks checkpoints to compare: the last, and others at growing distances
// before it, for peers that are behind or far ahead.
func (c *checkpoints) some() map[uint64]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	picked := make(map[uint64]uint64) // index → digest
	pick := func(r *ringOf, n int) bool {
		p, ok := r.back(n)
		if ok {
			picked[p.index] = p.digest
		}
		return ok
	}
	for _, r := range []*ringOf{&c.recent, &c.coarse} {
		pick(r, 0)
		for n := 1; pick(r, n); n *= 2 {
		}
	}
	return picked
}

// at returns the checkpoints of these indexes that are kept.
func (c *checkpoints) at(indexes []uint64) (known []checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, index := range indexes {
		p, ok := c.recent.find(index)
		if !ok {
			p, ok = c.coarse.find(index)
		}
		if ok {
			known = append(known, p)
		}
	}
	return known
}

package mux

import (
	"sync"
	"time"
)

const (
	// leastPatience is for a node of which nothing is known yet, and for a fast one: a
	// node that died without a word is left after about this long.
	leastPatience = time.Second
	// mostPatience is how much slower than that a node may make itself.
	mostPatience = 10
)

// Patience is how long one node may be silent. It outlives a Conn: whoever opens
// conns to the same address, one after the other, gives all of them the same
// Patience, and then a node that is only slow is reached in the end, while a fast one
// that dies is left as soon as ever.
//
// It grows with the round trip, which pings measure, and questions like [Patience.Took].
// It doubles with each conn that
// broke for silence, and every ping that is answered takes one such doubling back. All
// methods are safe for concurrent use.
type Patience struct {
	least, most time.Duration

	mu     sync.Mutex    // guards what follows
	trip   time.Duration // round trip, smoothed; 0: not measured
	stalls int           // doublings
}

// NewPatience starts at least, 0 for the default of a second.
func NewPatience(least time.Duration) *Patience {
	if least == 0 {
		least = leastPatience
	}
	return &Patience{least: least, most: mostPatience * least}
}

// Limit is how long a node may be silent now: least or four round trips, doubled, but
// no more than ten times least.
func (p *Patience) Limit() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := max(p.least, 4*p.trip)
	for range p.stalls {
		if limit >= p.most {
			break
		}
		limit *= 2
	}
	return min(limit, p.most)
}

// Took notes how long the node took to answer a question that it answers at once and
// from memory.
func (p *Patience) Took(trip time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tookLocked(trip)
}

func (p *Patience) tookLocked(trip time.Duration) {
	if p.trip == 0 {
		p.trip = trip
		return
	}
	p.trip += (trip - p.trip) / 4
}

// answered notes the round trip of a ping.
func (p *Patience) answered(trip time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalls = max(p.stalls-1, 0)
	p.tookLocked(trip)
}

// atMost notes that a round trip takes no longer than an operation took. Without it
// one that was measured while the node was busy would be believed until it is busy
// again: pings are sent only when something takes long.
func (p *Patience) atMost(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took < p.trip {
		p.trip += (took - p.trip) / 4
	}
}

// stalled notes that a conn broke because the node was silent.
func (p *Patience) stalled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.least<<p.stalls < p.most {
		p.stalls++
	}
}

// ping is how long a ping may be unanswered, with nothing else heard.
func (p *Patience) ping() time.Duration { return p.Limit() - p.least/4 }

// quiet is how long nothing may be heard before there is a ping. After a conn broke
// there is one at once: a node that is fast again would otherwise not be measured, and
// its next death be noticed late.
func (p *Patience) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalls > 0 {
		return 0
	}
	return p.least / 4
}

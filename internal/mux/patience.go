package mux

import (
	"sync"
	"time"
)

const (
	// leastPatience is for a node of which nothing is known yet, and for a fast one: a
	// node that fails without closing its connections is left after about this long.
	leastPatience = time.Second
	// mostPatience is how many times as long a slow node may be silent at most.
	mostPatience = 10
)

// Patience is how long one node may be silent. It outlives a Conn: all conns that are opened
// to one address, one after the other, get the same Patience. So a node that is only slow
// is reached in the end, and a fast one that fails is given up quickly.
//
// It grows with the round trip, which is measured by pings and by [Patience.Took]. It doubles
// with each conn that broke because of silence, and halves again with every answered ping.
// All methods are safe for concurrent use.
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

// Took records how long the node took to answer a request that it answers from memory at
// once.
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

// atMost records that a round trip takes no longer than an operation took. Without it a
// round trip that was measured while the node was busy would be kept until it is busy again,
// because pings are sent only when an operation takes long.
func (p *Patience) atMost(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took < p.trip {
		p.trip += (took - p.trip) / 4
	}
}

// stalled records that a conn broke because the node was silent.
func (p *Patience) stalled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.least<<p.stalls < p.most {
		p.stalls++
	}
}

// ping is how long a ping may be unanswered while nothing else arrives.
func (p *Patience) ping() time.Duration { return p.Limit() - p.least/4 }

// quiet is how long nothing may arrive before a ping is sent. After a conn broke a ping is
// sent at once: otherwise a node that is fast again would not be measured, and its next
// failure would be noticed late.
func (p *Patience) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalls > 0 {
		return 0
	}
	return p.least / 4
}

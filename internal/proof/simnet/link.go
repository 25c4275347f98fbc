package simnet

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	retransmit = 200 * time.Millisecond // the least that TCP waits before it repeats
	synRetry   = time.Second            // between attempts to connect
	synGiveUp  = 127 * time.Second      // as Linux does after six attempts
	probeEvery = 15 * time.Second       // of keep-alive
)

// link is the way from one host to another.
type link struct {
	o     Options
	local bool // from a host to itself: no latency, no loss

	mu    sync.Mutex // guards what follows
	rand  *rand.Rand
	asked bool // Cut was called, and no Mend
	cut   bool // asked, or one of the two is isolated
	cutAt time.Time
	extra time.Duration
}

func (n *Network) linkLocked(from, to *machine) *link {
	key := [2]string{from.name, to.name}
	l := n.links[key]
	if l == nil {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(from.name + " " + to.name))
		l = &link{o: n.o, local: from == to, rand: rand.New(rand.NewPCG(n.seed, sum.Sum64()))}
		if from != to && (from.isolated || to.isolated) {
			l.cut, l.cutAt = true, time.Now()
		}
		n.links[key] = l
	}
	return l
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// delay draws how long what is sent now is under way; ok is false if it is lost
// because the link is cut.
func (l *link) delay() (d time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delayLocked(), !l.cut
}

func (l *link) delayLocked() time.Duration {
	d := l.extra
	if !l.local {
		d += l.o.Latency
		d += l.upToLocked(l.o.Jitter)
	}
	return d
}

// lose draws whether a packet is lost.
func (l *link) lose() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.local && l.o.Loss > 0 && l.rand.Float64() < l.o.Loss
}

// backoff draws when TCP repeats what it sent into a cut that ends now: it waits
// longer, the longer it got no answer.
func (l *link) backoff() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upToLocked(min(time.Since(l.cutAt), synRetry))
}

// probe draws when the next probe of a connection's keep-alive is due.
func (l *link) probe() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upToLocked(probeEvery)
}

func (l *link) upToLocked(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(l.rand.Int64N(int64(most)))
}

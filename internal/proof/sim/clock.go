package sim

import (
	"context"
	"sync"
	"time"
)

// clock is a monotonic clock that may run at another rate than real time.
type clock struct {
	now func() time.Duration // real time

	mu   sync.Mutex    // guards what follows
	rate float64       // 0 is 1
	base time.Duration // what it showed at real time at
	at   time.Duration
}

func (k *clock) read() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readLocked(k.now())
}

func (k *clock) readLocked(now time.Duration) time.Duration {
	if k.rate == 0 {
		return now
	}
	return k.base + time.Duration(float64(now-k.at)*k.rate)
}

// skew lets it run at rate from now on.
func (k *clock) skew(rate float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	k.base, k.at, k.rate = k.readLocked(now), now, rate
}

// pause is a gate that is closed while a process is paused.
type pause struct {
	mu   sync.Mutex
	gate chan struct{} // not nil: closed when the pause ends
}

// begin reports whether it was not on before.
func (p *pause) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		return false
	}
	p.gate = make(chan struct{})
	return true
}

// end reports whether it was on.
func (p *pause) end() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		return false
	}
	close(p.gate)
	p.gate = nil
	return true
}

func (p *pause) isOn() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate != nil
}

// wait returns when the pause is over or ctx ends.
func (p *pause) wait(ctx context.Context) {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate == nil {
		return
	}
	select {
	case <-gate:
	case <-ctx.Done():
	}
}

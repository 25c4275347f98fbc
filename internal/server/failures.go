package server

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Guessing costs: an address that has been refused often gets its refusals late. It may be
// refused a few times at once, so that a program with a wrong secret finds out soon.

const (
	// refusalsEvery is how often an address is refused without delay, after refusalsAtOnce.
	refusalsEvery  = 200 * time.Millisecond
	refusalsAtOnce = 10
	// maxRefused bounds the addresses that are remembered. Beyond them the ones that were
	// refused longest ago are forgotten.
	maxRefused = 4096
	// patienceWithRefused is how long a refused caller waits for his answer at most.
	patienceWithRefused = 2 * time.Second
)

// failures remembers who was refused. Its methods are safe for concurrent use.
type failures struct {
	mu   sync.Mutex // guards what follows
	of   map[string]*rate.Limiter
	last []string // the addresses, in the order in which they were refused first
}

// slow waits until a refusal of an address may be answered, at most patienceWithRefused, or until
// ctx ends or stop is closed.
func (f *failures) slow(ctx context.Context, stop <-chan struct{}, address string) {
	rest(ctx, stop, f.delay(address, time.Now()))
}

// rest waits for d, or until ctx ends or stop is closed.
func rest(ctx context.Context, stop <-chan struct{}, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-stop:
	}
}

// delay counts a refusal of an address, and returns how long its answer has to wait.
func (f *failures) delay(address string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[address]
	if l == nil {
		if f.of == nil {
			f.of = make(map[string]*rate.Limiter)
		}
		if len(f.last) >= maxRefused {
			delete(f.of, f.last[0])
			f.last = f.last[1:]
		}
		l = rate.NewLimiter(rate.Every(refusalsEvery), refusalsAtOnce)
		f.of[address] = l
		f.last = append(f.last, address)
	}
	r := l.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > patienceWithRefused {
		r.CancelAt(now) // otherwise an address that was refused a lot would wait for hours
		return patienceWithRefused
	}
	return d
}

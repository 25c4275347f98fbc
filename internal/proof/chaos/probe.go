//go:build unix

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/locknode/locknode/client"
)

const (
	// probeCount is how many clients are asked whether the cluster works.
	probeCount = 3
	// probePause is how long each of them rests between two cycles.
	probePause = 10 * time.Millisecond
	// probeMemory is how many cycles a probe remembers: more than are made between
	// the end of a fault and the question how long the recovery took.
	probeMemory = 4096
)

// probe is a client that acquires and releases a lock of its own all the time, to measure when
// the cluster works.
type probe struct {
	name  string
	clock clock

	mu       sync.Mutex    // guards what follows
	cycles   []cycle       // the last ones, oldest first
	finished chan struct{} // closed and replaced when a cycle is finished
	failure  error         // of a cycle: the probe has given up
	token    uint64
}

// cycle is an acquire and a release.
type cycle struct{ began, ended time.Duration }

// startProbe starts one; it ends with ctx.
func startProbe(ctx context.Context, wg *sync.WaitGroup, endpoints []string, number int, c clock, log *slog.Logger) (*probe, error) {
	p := &probe{name: fmt.Sprintf("probe/%d", number), clock: c, finished: make(chan struct{})}
	cl, err := client.Dial(ctx, endpoints, client.Holder(p.name), client.Logger(log.With("client", p.name)))
	if err != nil {
		return nil, err
	}
	wg.Go(func() {
		defer func() { _ = cl.Close() }() // its lock ends by its TTL if nobody is there
		for ctx.Err() == nil && p.cycle(ctx, cl) {
			select {
			case <-ctx.Done():
			case <-time.After(probePause):
			}
		}
	})
	return p, nil
}

// cycle makes one cycle, and reports whether there is to be another.
func (p *probe) cycle(ctx context.Context, cl *client.Client) bool {
	began := p.clock.now()
	g, err := cl.Lock(ctx, p.name)
	if err == nil {
		err = g.Unlock()
	}
	ended := p.clock.now()
	if ctx.Err() != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && ordinary(err):
		return true // its session ended while no node could be reached
	case err == nil && g.Token() <= p.token:
		err = fmt.Errorf("got token %d after it had had %d", g.Token(), p.token)
	}
	if err != nil {
		p.failure = fmt.Errorf("%s: %w", p.name, err)
	} else {
		if len(p.cycles) == probeMemory {
			p.cycles = append(p.cycles[:0], p.cycles[probeMemory/2:]...)
		}
		p.cycles, p.token = append(p.cycles, cycle{began, ended}), g.Token()
	}
	close(p.finished)
	p.finished = make(chan struct{})
	return p.failure == nil
}

// gaveUp returns why the probe makes no more cycles, nil if it does or was ended.
func (p *probe) gaveUp() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// after waits until a cycle has been finished that began at or after a time, and
// returns when the first one was.
func (p *probe) after(ctx context.Context, since time.Duration) (time.Duration, error) {
	for {
		p.mu.Lock()
		i, _ := slices.BinarySearchFunc(p.cycles, since, func(c cycle, t time.Duration) int { return cmp.Compare(c.began, t) })
		if i < len(p.cycles) {
			defer p.mu.Unlock()
			return p.cycles[i].ended, nil
		}
		failure, finished := p.failure, p.finished
		p.mu.Unlock()
		if failure != nil {
			return 0, failure
		}
		select {
		case <-finished:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: no cycle was finished: %w", p.name, context.Cause(ctx))
		}
	}
}

package stalls

import (
	"context"
	"sync"
	"time"
)

const (
	// look is the interval of the checks whether this process runs.
	look = 5 * time.Millisecond
	// least is what counts as a stall: a quiet machine has none.
	least = 50 * time.Millisecond
	// memory is how many of them are remembered.
	memory = 1024
)

// Log has the stalls of this process. Its methods are safe for concurrent use.
type Log struct {
	now func() time.Duration

	mu  sync.Mutex
	all []stall // the last ones, oldest first
}

type stall struct{ from, until time.Duration }

// New returns an empty log, whose times are those of a clock.
func New(now func() time.Duration) *Log { return &Log{now: now} }

// Watch looks for stalls until ctx ends.
func (l *Log) Watch(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for last := l.now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := l.now()
		if now-last > least {
			l.add(stall{last, now})
		}
		last = now
	}
}

func (l *Log) add(s stall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == memory {
		l.all = append(l.all[:0], l.all[memory/2:]...)
	}
	l.all = append(l.all, s)
}

// Longest is the longest stall that lies in a part of the time, at least in part.
func (l *Log) Longest(from, until time.Duration) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if s.until > from && s.from < until {
			longest = max(longest, s.until-s.from)
		}
	}
	return longest
}

//go:build unix

package chaos

import (
	"context"
	"sync"
	"time"
)

const (
	// stallLook is how often it is looked whether this process runs.
	stallLook = 5 * time.Millisecond
	// stallLeast is what counts as a stall: a quiet machine has none.
	stallLeast = 50 * time.Millisecond
	// stallMemory is how many of them are remembered.
	stallMemory = 1024
)

// stalls are the times in which this process was kept from running. It needs next
// to nothing, so the machine was busy with other things.
type stalls struct {
	mu  sync.Mutex
	all []stall // the last ones, oldest first
}

type stall struct{ from, until time.Duration }

// watch looks for stalls until ctx ends.
func (s *stalls) watch(ctx context.Context, c clock) {
	last := c.now()
	for sleep(ctx, stallLook) == nil {
		now := c.now()
		if now-last > stallLeast {
			s.add(stall{last, now})
		}
		last = now
	}
}

func (s *stalls) add(st stall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == stallMemory {
		s.all = append(s.all[:0], s.all[stallMemory/2:]...)
	}
	s.all = append(s.all, st)
}

// longest is the longest stall that lies in a part of the time, at least in part.
func (s *stalls) longest(from, until time.Duration) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.all {
		if st.until > from && st.from < until {
			longest = max(longest, st.until-st.from)
		}
	}
	return longest
}

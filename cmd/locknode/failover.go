//go:build unix

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
)

// settle is the pause between the recovery of a cluster and the next kill.
const settle = time.Second

// lastFinished measures the gaps between finished steps, over all workers.
type lastFinished struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration // since reset
}

func (f *lastFinished) at(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gap := t.Sub(f.last); !f.last.IsZero() && gap > f.longest {
		f.longest = gap
	}
	if t.After(f.last) {
		f.last = t
	}
}

// reset forgets the gaps so far, but keeps the time of the last finished step.
func (f *lastFinished) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest = 0
}

// since returns the longest gap since reset; ok says that a step was finished after t.
func (f *lastFinished) since(t time.Time) (longest time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.longest, f.last.After(t)
}

// killLeaders kills leaders, one after the other and at least one, until the duration is
// over. It returns the longest gap after each kill.
func (b *bench) killLeaders(ctx context.Context, cluster *proc.Cluster, finished *lastFinished) ([]time.Duration, error) {
	var gaps []time.Duration
	for end := time.Now().Add(b.duration); len(gaps) == 0 || time.Now().Before(end); {
		gap, err := killLeader(ctx, cluster, finished)
		if err != nil {
			return nil, fmt.Errorf("failover %d: %w", len(gaps)+1, err)
		}
		gaps = append(gaps, gap)
	}
	return gaps, nil
}

func killLeader(ctx context.Context, cluster *proc.Cluster, finished *lastFinished) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	leader, err := cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, settle); err != nil {
		return 0, err
	}
	finished.reset()
	if err := leader.Kill(); err != nil {
		return 0, err
	}
	killed := time.Now()
	next, err := cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	if next == leader {
		return 0, fmt.Errorf("node %s leads after it was killed", leader.ID)
	}
	// The gap ends with the next finished step. The loop waits a little longer, in case a
	// longer gap follows.
	for {
		if _, ok := finished.since(killed.Add(settle)); ok {
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, fmt.Errorf("no step was finished after node %s was killed: %w", leader.ID, err)
		}
	}
	gap, _ := finished.since(killed)
	return gap, leader.Restart(ctx)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// sample is the result of one measurement.
type sample struct {
	Rate   float64       // steps a second
	CPU    time.Duration // of all servers, for 1,000 steps; negative: not known
	Failed int64         // steps that ended with an error that is not a wrong answer
	First  error         // the first of them
}

// window is the time in which steps are counted.
type window struct {
	open   atomic.Bool
	steps  atomic.Int64 // of workers that have ended, as are failed
	failed atomic.Int64

	mu    sync.Mutex // guards first and wrong
	first error
	wrong error
}

// note remembers what went wrong with a step.
func (w *window) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, errWrong) {
		if w.wrong == nil {
			w.wrong = err
		}
	} else if w.first == nil {
		w.first = err
	}
}

// patience is how long anything may take that is not measured.
const patience = time.Minute

// measure runs the workload on a cluster that has just been started. Steps count that end
// after the warm-up and before the end. An error is a wrong answer, or that
// nothing could be measured.
func measure(ctx context.Context, c cluster, w workload, warmup, duration time.Duration) (sample, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sessions, err := prepared(ctx, c, w)
	if err != nil {
		return sample{}, fmt.Errorf("prepare: %w", err)
	}
	win, all := &window{}, &guarded{name: "bench/handoff"}
	var workers sync.WaitGroup
	for i := range w.workers {
		own := &guarded{name: fmt.Sprintf("bench/own/%d", i)}
		workers.Go(func() { work(ctx, win, w, sessions[i], own, all) })
	}
	took, used, err := count(ctx, win, c.pids(), max(warmup, w.settle), duration)
	stop()
	if late := joined(&workers); late != nil {
		return sample{}, errors.Join(err, late)
	}
	if err := errors.Join(err, win.wrong); err != nil {
		return sample{}, err
	}
	steps := win.steps.Load()
	switch {
	case steps == 0 && win.first != nil:
		return sample{}, fmt.Errorf("nothing was finished within %v; the first error: %w", duration, win.first)
	case steps == 0:
		return sample{}, fmt.Errorf("nothing was finished within %v", duration)
	}
	s := sample{Rate: float64(steps) / took.Seconds(), CPU: -1, Failed: win.failed.Load(), First: win.first}
	if used >= 0 {
		s.CPU = time.Duration(float64(used) / float64(steps) * 1000)
	}
	return s, nil
}

// prepared opens the sessions of the workers, and has one more hold a lock if the workload needs that.
func prepared(ctx context.Context, c cluster, w workload) ([]session, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sessions, err := c.sessions(ctx, w.workers)
	if err != nil || !w.held {
		return sessions, err
	}
	holder, err := c.sessions(ctx, 1)
	if err != nil {
		return nil, err
	}
	return sessions, holder[0].hold(ctx, heldLock)
}

// count opens the window after the warm-up and closes it at the end, and returns how long it
// was open and how much CPU the processes used meanwhile.
func count(ctx context.Context, win *window, pids []int, warmup, duration time.Duration) (took, used time.Duration, err error) {
	if err := sleep(ctx, warmup); err != nil {
		return 0, 0, err
	}
	before := cpuOf(pids)
	began := time.Now()
	win.open.Store(true)
	err = sleep(ctx, duration)
	win.open.Store(false)
	took = time.Since(began)
	after := cpuOf(pids)
	if before < 0 || after < 0 {
		return took, -1, err
	}
	return took, after - before, err
}

// work repeats the step until ctx ends.
func work(ctx context.Context, win *window, w workload, s session, own, all *guarded) {
	var steps, failed int64
	for ctx.Err() == nil {
		settled := w.settle == 0 || win.open.Load()
		err := w.step(ctx, s, own, all)
		switch {
		case errors.Is(err, errWrong) && settled: // also during the warm-up
			win.note(err)
		case !win.open.Load() || ctx.Err() != nil || errors.Is(err, errWrong) || errors.Is(err, errSame):
		case err != nil:
			failed++
			win.note(err)
		default:
			steps++
		}
	}
	win.steps.Add(steps)
	win.failed.Add(failed)
}

// joined waits for the workers. A client that does not return when its context ends is an error.
func joined(workers *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("workers did not end within %v", patience)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

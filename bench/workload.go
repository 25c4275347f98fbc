package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// session is what one worker uses of a system. What several sessions share, such as a connection,
// is what the system's client library shares by default.
type session interface {
	// lock waits for the lock and returns what releases it.
	lock(ctx context.Context, name string) (release func(context.Context) error, err error)
	// try is lock without waiting: errHeld if another has it.
	try(ctx context.Context, name string) (release func(context.Context) error, err error)
	// hold takes a free lock for longer than a measurement lasts.
	hold(ctx context.Context, name string) error
	// locked says whether the lock is held: now, or at some time in the last staleBound.
	locked(ctx context.Context, name string, stale bool) (bool, error)
}

// errHeld is the right answer to a try of a held lock.
var errHeld = errors.New("held by another")

// errWrong is an answer that a lock service must never give. Other errors are counted and shown.
var errWrong = errors.New("wrong answer")

// errSame says that the lock did not pass from one worker to another: neither a step nor a failed one.
var errSame = errors.New("the same worker had it again")

// staleBound is how old the answers of the workload stale may be.
const staleBound = 5 * time.Second

// workload is one kind of load with one number of workers. A step is what is counted.
type workload struct {
	name    string // as in -workloads, which also takes kind
	kind    string
	workers int
	unit    string
	held    bool // another session holds heldLock meanwhile
	// settle is for how long after the start answers may be wrong: the warm-up takes at least as long.
	settle time.Duration
	step   func(ctx context.Context, s session, own *guarded, all *guarded) error
}

func workloads() []workload {
	var all []workload
	add := func(w workload) {
		w.name = fmt.Sprintf("%s-%d", w.kind, w.workers)
		all = append(all, w)
	}
	for _, n := range []int{1, 16, 64, 256} {
		add(workload{kind: "uncontended", workers: n, unit: "cycles/s",
			step: func(ctx context.Context, s session, own, _ *guarded) error {
				_, err := own.cycle(ctx, s, own)
				return err
			}})
	}
	add(workload{kind: "handoff", workers: 16, unit: "handoffs/s", step: handedOver})
	add(workload{kind: "try", workers: 64, unit: "tries/s", held: true, step: refused})
	add(workload{kind: "read", workers: 64, unit: "reads/s", held: true, step: reads(false)})
	// An answer may be as old as the bound: it is wrong only if the lock was held that long.
	add(workload{kind: "stale", workers: 64, unit: "reads/s", held: true, settle: staleBound, step: reads(true)})
	return all
}

const heldLock = "bench/held"

// guarded is a lock, and how many have it according to what they were told.
type guarded struct {
	name    string
	holders atomic.Int32
	last    atomic.Pointer[guarded] // the own lock of the worker who had this one last
}

// cycle takes the lock for the worker with that lock of its own, releases it, and says whether
// another worker had it before.
func (g *guarded) cycle(ctx context.Context, s session, by *guarded) (passed bool, err error) {
	release, err := s.lock(ctx, g.name)
	if err != nil {
		return false, err
	}
	n := g.holders.Add(1)
	passed = g.last.Swap(by) != by
	runtime.Gosched() // so that another who believes that it has the lock is seen
	g.holders.Add(-1) // before the release, which lets the next one in
	if n != 1 {
		return false, fmt.Errorf("%w: %s is held by %d at once", errWrong, g.name, n)
	}
	// What was granted is released also when the measurement is over, so that the next waiter gets it.
	return passed, release(context.WithoutCancel(ctx))
}

// handedOver is a step only if the lock came from another worker. Where waiters poll, mostly
// the one that has just released it gets it again.
func handedOver(ctx context.Context, s session, own, all *guarded) error {
	passed, err := all.cycle(ctx, s, own)
	if err == nil && !passed {
		return errSame
	}
	return err
}

func refused(ctx context.Context, s session, _, _ *guarded) error {
	_, err := s.try(ctx, heldLock)
	switch {
	case errors.Is(err, errHeld):
		return nil
	case err == nil:
		return fmt.Errorf("%w: %s was granted while another held it", errWrong, heldLock)
	}
	return err
}

func reads(stale bool) func(context.Context, session, *guarded, *guarded) error {
	return func(ctx context.Context, s session, _, _ *guarded) error {
		locked, err := s.locked(ctx, heldLock, stale)
		if err == nil && !locked {
			return fmt.Errorf("%w: %s was reported free while it was held", errWrong, heldLock)
		}
		return err
	}
}

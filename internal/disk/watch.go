package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// watch looks after the writes of one data directory: how long they take, and
// whether one has failed. The zero value is not usable; see newWatch.
type watch struct {
	stallAfter time.Duration
	onFailure  func(error)
	logger     *slog.Logger

	mu      sync.Mutex  // guards what follows
	started []time.Time // slots of outstanding writes; zero = free
	idle    *sync.Cond  // signalled when a write ends
	failed  error       // the first failure, wrapped in ErrFailed
	told    bool        // that the disk is stalled
	armed   bool        // the stores are open: failures are reported
	closed  bool
}

func newWatch(o StoreOptions) *watch {
	w := &watch{stallAfter: o.StallAfter, onFailure: o.OnFailure, logger: o.Logger}
	w.idle = sync.NewCond(&w.mu)
	return w
}

// write runs one write. Writes are refused once one has failed or the stores
// are closed; an error or a panic of f is the failure of the whole store.
func (w *watch) write(what string, f func() error) (err error) {
	slot, err := w.begin()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer w.end(slot)
	defer func() {
		if p := recover(); p != nil {
			err = w.fail(fmt.Errorf("%s: panic: %v", what, p))
		}
	}()
	if err := f(); err != nil {
		return w.fail(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// read runs one read. Damage and I/O errors fail the store: an entry that
// cannot be read can neither be applied nor replicated. A missing entry is an
// ordinary answer and is passed on unwrapped, as raft compares with ==.
func (w *watch) read(what string, f func() error) (err error) {
	// A damaged page or a bad sector under a memory map raises a fault, which
	// would end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = w.fail(fmt.Errorf("%s: panic: %v", what, p))
		}
	}()
	err = f()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLogNotFound):
		return raft.ErrLogNotFound
	}
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	return w.fail(fmt.Errorf("%s: %w", what, err))
}

func (w *watch) begin() (slot int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return 0, w.failed
	}
	if w.closed {
		return 0, ErrClosed
	}
	now := time.Now()
	for i, t := range w.started {
		if t.IsZero() {
			w.started[i] = now
			return i, nil
		}
	}
	w.started = append(w.started, now)
	return len(w.started) - 1, nil
}

func (w *watch) end(slot int) {
	w.mu.Lock()
	took := time.Since(w.started[slot])
	w.started[slot] = time.Time{}
	told := w.told
	if !w.stalledLocked() {
		w.told = false
	}
	w.idle.Broadcast()
	w.mu.Unlock()
	if told {
		w.logger.Warn("disk answers again", "after", took)
	}
}

// arm has failures reported from now on. It returns what has failed before, which only
// OpenStores reports.
func (w *watch) arm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = true
	return w.failed
}

// fail records the first failure, reports it, and returns it wrapped.
func (w *watch) fail(cause error) error {
	w.mu.Lock()
	if w.failed != nil {
		err := w.failed
		w.mu.Unlock()
		return err
	}
	w.failed = fmt.Errorf("%w: %w", ErrFailed, asSystemError(cause))
	err, report := w.failed, w.armed && !w.closed
	w.mu.Unlock()
	if report && w.onFailure != nil {
		go w.onFailure(err)
	}
	return err
}

// state returns nil, or why nothing may leave the node: ErrFailed with its
// cause, ErrClosed, or ErrStalled.
func (w *watch) state() error {
	w.mu.Lock()
	var err error
	switch {
	case w.failed != nil:
		err = w.failed
	case w.closed:
		err = ErrClosed
	case w.stalledLocked():
		err = ErrStalled
	}
	tell := errors.Is(err, ErrStalled) && !w.told
	w.told = w.told || tell
	w.mu.Unlock()
	if tell {
		w.logger.Warn("disk is stalled: a write has not returned; this node keeps silent until it does", "since", w.stallAfter)
	}
	return err
}

func (w *watch) stalledLocked() bool {
	for _, t := range w.started {
		if !t.IsZero() && time.Since(t) > w.stallAfter {
			return true
		}
	}
	return false
}

// close refuses further writes and waits for the outstanding ones, at most for
// the given time. It reports whether all of them have ended.
func (w *watch) close(limit time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	expired := false
	timer := time.AfterFunc(limit, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		expired = true
		w.idle.Broadcast()
	})
	defer timer.Stop()
	for !expired && w.busyLocked() {
		w.idle.Wait()
	}
	return !w.busyLocked()
}

// drain waits without limit for the outstanding writes.
func (w *watch) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.busyLocked() {
		w.idle.Wait()
	}
}

func (w *watch) busyLocked() bool {
	for _, t := range w.started {
		if !t.IsZero() {
			return true
		}
	}
	return false
}

package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// ErrShutdownTimeout says that raft did not end in time; its goroutines go on
// until the process ends or whatever they wait for returns.
var ErrShutdownTimeout = errors.New("raft did not stop in time")

// NewRaft is raft.NewRaft, except that a panic in it, which is what raft does
// when it cannot read an entry or save its term at start, is an error.
func NewRaft(conf *raft.Config, fsm raft.FSM, s *Stores, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("start raft: panic: %v", p)
		}
	}()
	return raft.NewRaft(conf, fsm, s.Log, s.Stable, s.Snapshots, t)
}

// Shutdown tells r to stop and waits for it, at most for limit. Raft's own
// future would wait without a limit, for ever if a replication goroutine hangs
// (hashicorp/raft #612) or a write does not return. It returns ErrShutdownTimeout
// if r has not stopped. It may be called again, also after a timeout; only the
// first call waits.
func Shutdown(r *raft.Raft, limit time.Duration) error {
	stopped := make(chan error, 1)
	future := r.Shutdown()
	go func() { stopped <- future.Error() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-stopped:
		return err
	case <-timer.C:
		return fmt.Errorf("stop raft: %w (%v)", ErrShutdownTimeout, limit)
	}
}

// HandOver gives leadership to the voter that is most up to date, so that
// clients see a gap of milliseconds and not of an election timeout. It returns
// nil once r does not lead, at once if it does not lead now, and the reason
// otherwise; then r may still lead. It ends when ctx does.
func HandOver(ctx context.Context, r *raft.Raft) error {
	if r.State() != raft.Leader {
		return nil
	}
	done := make(chan error, 1)
	future := r.LeadershipTransfer()
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		if err != nil && r.State() == raft.Leader {
			return fmt.Errorf("hand leadership over: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hand leadership over: %w", context.Cause(ctx))
	}
}

// Stop ends a member in the order that hurts least: leadership is handed over,
// for at most handOver; the transport is closed, which frees every goroutine that
// waits for a peer; raft is shut down, for at most limit. Whatever fails, all
// three are done.
func Stop(r *raft.Raft, t raft.WithClose, handOver, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), handOver)
	defer cancel()
	return errors.Join(HandOver(ctx, r), t.Close(), Shutdown(r, limit))
}

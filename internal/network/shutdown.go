package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
)

// ErrShutdownTimeout says that raft did not end in time; its goroutines go on
// until the process ends or whatever they wait for returns.
var ErrShutdownTimeout = errors.New("raft did not stop in time")

// NewRaft is raft.NewRaft, except that a panic in it, which is what raft does
// when it cannot read an entry or save its term at start, is an error. A
// Transport gets the Raft that it serves from it: without that, heartbeats wait for a
// slow disk, replication to a peer that comes back may be late, and a leader writes each
// entry before it sends it.
func NewRaft(conf *raft.Config, fsm raft.FSM, s *disk.Stores, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("start raft: panic: %v", p)
		}
	}()
	guarded, ok := t.(*Transport)
	if ok { // before raft gets the first request, which may be one for its vote
		guarded.votesFrom.Store(s.Identity().VotesFrom)
		guarded.patience.Store(int64(conf.HeartbeatTimeout))
		running := make(chan struct{})
		guarded.running.Store(&running)
		guarded.stores.Store(s)
		defer close(running)
	}
	bounded := *conf
	bounded.MaxAppendEntries = min(conf.MaxAppendEntries, MaxEntries)
	r, err = raft.NewRaft(&bounded, &durableFSM{FSM: fsm, stores: s}, s.Log, s.Stable, s.Snapshots, t)
	if ok && err == nil {
		guarded.member.Store(r)
		s.WriteBeside(func() bool { return r.State() == raft.Leader })
	}
	return r, err
}

// Shutdown stops r and waits for it, at most for limit. Raft's own future waits without a
// limit: for ever if a replication goroutine hangs (hashicorp/raft #612) or a write does not
// return. It returns ErrShutdownTimeout
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

// Stop ends a member with the shortest gap for clients: it hands leadership over, for at most
// handOver; it closes the transport, which frees every goroutine that waits for a peer; it
// shuts raft down, for at most limit. All three steps are done even if one fails. After a
// failed write, pass no time for the handover: raft's main goroutine may have ended.
func Stop(r *raft.Raft, t raft.Transport, handOver, limit time.Duration) error {
	var errs []error
	if handOver > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), handOver)
		defer cancel()
		if guarded, ok := t.(*Transport); ok {
			errs = append(errs, HandOver(ctx, r, guarded, "", nil))
		} else {
			errs = append(errs, fmt.Errorf("hand leadership over: not through a %T", t))
		}
	}
	if c, ok := t.(raft.WithClose); ok {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, Shutdown(r, limit))...)
}

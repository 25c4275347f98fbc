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
// when it cannot read an entry or save its term at start, is an error. A
// Transport learns from it whom it works for: without it, heartbeats wait for a
// slow disk, and replication to a peer that comes back may be late.
func NewRaft(conf *raft.Config, fsm raft.FSM, s *Stores, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("start raft: panic: %v", p)
		}
	}()
	r, err = raft.NewRaft(conf, fsm, s.Log, s.Stable, s.Snapshots, t)
	if guarded, ok := t.(*Transport); ok && err == nil {
		guarded.member.Store(r)
	}
	return r, err
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

// HandOver gives leadership to another voter, so that clients see a gap of
// milliseconds and not of an election timeout: to the one that is most up to
// date, or, when t knows that some do not answer, to each of the others in turn
// (raft itself may choose a dead one). It returns nil once r does not lead, at
// once if it does not lead now; otherwise it returns the reason, and r may still
// lead. It ends when ctx does.
func HandOver(ctx context.Context, r *raft.Raft, t raft.Transport) error {
	if r.State() != raft.Leader {
		return nil
	}
	answering, all := voters(r, t)
	if len(answering) == 0 {
		return errors.New("hand leadership over: no other voter answers")
	}
	if all {
		return transfer(ctx, r, r.LeadershipTransfer())
	}
	var errs []error
	for _, s := range answering {
		if ctx.Err() != nil {
			break
		}
		err := transfer(ctx, r, r.LeadershipTransferToServer(s.ID, s.Address))
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// voters returns the other voters that answer, and whether those are all.
func voters(r *raft.Raft, t raft.Transport) (answering []raft.Server, all bool) {
	guarded, _ := t.(*Transport)
	all = true
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter || s.Address == t.LocalAddr() {
			continue
		}
		if guarded != nil && !guarded.reach.answers(s.ID) {
			all = false
			continue
		}
		answering = append(answering, s)
	}
	return answering, all
}

func transfer(ctx context.Context, r *raft.Raft, future raft.Future) error {
	done := make(chan error, 1)
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
// three are done. After a failed write, pass no time for the handover: raft's
// main goroutine may have ended.
func Stop(r *raft.Raft, t raft.Transport, handOver, limit time.Duration) error {
	var errs []error
	if handOver > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), handOver)
		defer cancel()
		errs = append(errs, HandOver(ctx, r, t))
	}
	if c, ok := t.(raft.WithClose); ok {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, Shutdown(r, limit))...)
}

package membership

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// How is the configuration changed? One change at a time, decided on what is committed.

// alter makes one change of the configuration: step reads the current one and
// hands in a change, or returns an error, or nil for nothing to do. alter waits
// until the change is committed, or this node stops leading; ctx bounds the wait
// for its turn only.
//
// The barrier before it makes sure that this node leads now, and that what step reads
// is committed. Otherwise the answers "it is a member already" and "it is no member" could
// rest on a change that an earlier leader has left in the log and that is lost in the end,
// or come from a leader that does not know yet that another one leads. A node that gets
// such an answer deletes its data, or counts from there when it may vote.
func (m *Manager) alter(ctx context.Context, step func(r Raft, servers []raft.Server) (raft.IndexFuture, error)) error {
	select {
	case m.changing <- struct{}{}:
		defer func() { <-m.changing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r := m.cfg.Raft()
	if r == nil || r.State() != raft.Leader {
		return raft.ErrNotLeader
	}
	if err := r.Barrier(m.times.change).Error(); err != nil {
		return err
	}
	servers, err := Configuration(r)
	if err != nil {
		return err
	}
	made := &handIn{Raft: r, m: m}
	future, err := step(made, servers)
	if err == nil && future != nil {
		err = future.Error()
		made.report(future, err)
	}
	switch {
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", errChangeUnknown, err)
	case err == nil || r.State() == raft.Leader:
		m.unsettled.Store(false)
	}
	return err
}

// maxAsked bounds the goroutines that peers can make this node start.
const maxAsked = 32

// alterFor is alter for a caller with a deadline. When ctx ends first, or the node
// stops leading before the change is committed, the change may still be made; the error
// then has [apiv1.CodeUnknownOutcome].
func (m *Manager) alterFor(ctx context.Context, what string, step func(r Raft, servers []raft.Server) (raft.IndexFuture, error)) error {
	if m.asked.Add(1) > maxAsked {
		m.asked.Add(-1)
		return apiv1.NewError(apiv1.CodeOverloaded, "%s: too many changes of the configuration are under way", what)
	}
	errs := make(chan error, 1)
	if !m.start(func() {
		defer m.asked.Add(-1)
		errs <- m.alter(ctx, step)
	}) {
		m.asked.Add(-1)
		return apiv1.NewError(apiv1.CodeUnavailable, "%s: this node is stopping", what)
	}
	var err error
	select {
	case err = <-errs:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", errChangeUnknown, context.Cause(ctx))
	}
	var coded *apiv1.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return coded
	case errors.Is(err, errChangeUnknown):
		return apiv1.NewError(apiv1.CodeUnknownOutcome, "%s: it may have been done, or may still be done: %v; \"locknode members\" shows it", what, err)
	case errors.Is(err, raft.ErrNotLeader):
		return apiv1.NewError(apiv1.CodeNotLeader, "%s: this node does not lead", what)
	}
	return apiv1.NewError(apiv1.CodeUnavailable, "%s: %v", what, err)
}

// errChangeUnknown wraps why the end of a change is not known: it may still be made.
var errChangeUnknown = errors.New("it was handed in and not committed in time")

// handIn is a Raft that notes when a change is put into its log, and which.
type handIn struct {
	Raft
	m        *Manager
	what, id string // the change
}

func (h *handIn) note(what string, id raft.ServerID) {
	h.m.unsettled.Store(true)
	h.what, h.id = what, string(id)
}

// report passes a change on that was made, or may have been.
func (h *handIn) report(future raft.IndexFuture, err error) {
	if h.m.cfg.Changed == nil || h.what == "" {
		return
	}
	switch {
	case err == nil:
		h.m.cfg.Changed(h.what, h.id, future.Index(), nil)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		h.m.cfg.Changed(h.what, h.id, 0, err)
	}
}

// AddVoter adds a voter.
func (h *handIn) AddVoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture {
	h.note("votes", id)
	return h.Raft.AddVoter(id, addr, prev, timeout)
}

// AddNonvoter adds a nonvoter, or changes a member's address.
func (h *handIn) AddNonvoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture {
	h.note("added or moved", id)
	return h.Raft.AddNonvoter(id, addr, prev, timeout)
}

// DemoteVoter takes a vote.
func (h *handIn) DemoteVoter(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture {
	h.note("votes no more", id)
	return h.Raft.DemoteVoter(id, prev, timeout)
}

// RemoveServer removes a member.
func (h *handIn) RemoveServer(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture {
	h.note("removed", id)
	return h.Raft.RemoveServer(id, prev, timeout)
}

// Remove removes a member from the configuration for good. It is refused if no majority of
// the voters that remain answers.
func (m *Manager) Remove(ctx context.Context, id string) error {
	return m.alterFor(ctx, "remove member "+id, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		if _, ok := Find(servers, id); !ok {
			return nil, apiv1.NewError(apiv1.CodeNoMember, "remove member %q: no such member", id)
		}
		if answering, voters := m.without(ctx, servers, id); !Majority(answering, voters) {
			return nil, tooFew("remove member "+strconv.Quote(id), answering, voters)
		}
		m.cfg.Logger.Info("member removed", "peer", id)
		return r.RemoveServer(raft.ServerID(id), 0, m.times.change), nil
	})
}

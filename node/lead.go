package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
	"github.com/locknode/locknode/internal/network"
)

// epoch is what this node keeps for one term that it leads: its clock and its collector.
// While n.epoch points to it, the node serves as leader.
type epoch struct {
	term     uint64
	proposer *proposer
}

const (
	// applyTimeout bounds the wait until Raft accepts an entry, not until it commits it.
	applyTimeout = time.Second
	// leaderPoll is how often Raft's state is polled besides its channel, which may leave
	// out transitions.
	leaderPoll = 50 * time.Millisecond
)

// leads returns the current term of r, and whether r leads it.
func leads(r *raft.Raft) (term uint64, ok bool) {
	term = r.CurrentTerm()
	return term, r.State() == raft.Leader && r.CurrentTerm() == term
}

// lead serves as leader whenever Raft has made this node one. It is a goroutine
// of its own and ends with ctx.
func (n *Node) lead(ctx context.Context, r *raft.Raft) {
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for ctx.Err() == nil {
		if term, ok := leads(r); ok {
			if e, err := n.begin(r, term); err == nil {
				n.serve(ctx, r, e)
				n.end(e)
				continue
			} else {
				n.log.Debug("leadership not taken up", "term", term, "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-r.LeaderCh():
		case <-poll.C:
		}
	}
}

// watchLeader restarts rounds and wakes the router when Raft sees another leader, or none,
// because what they have sent to the old one is in vain. It is a goroutine of its own and
// ends with ctx.
func (n *Node) watchLeader(ctx context.Context, r *raft.Raft) {
	changes := make(chan raft.Observation, 1) // one is enough: it says only that something changed
	observer := raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			n.rounds.restart()
			n.router.wake()
		}
	}
}

// begin begins to lead a term. The barrier comes first: the clock goes on from the table's
// time, which must include all entries of earlier terms. Then one entry of this term has to
// commit, and only then anything is served.
func (n *Node) begin(r *raft.Raft, term uint64) (*epoch, error) {
	if err := n.inTurn(func() error { return r.Barrier(applyTimeout).Error() }); err != nil {
		return nil, fmt.Errorf("barrier of term %d: %w", term, err)
	}
	if got, ok := leads(r); !ok || got != term {
		return nil, fmt.Errorf("barrier of term %d: the term is over", term)
	}
	var tableNow fsm.Instant
	var founded bool
	var limits fsm.Limits
	intact := n.machine.View(func(t *fsm.Table) {
		tableNow, limits = t.Now(), t.Limits()
		founded = t.Cluster() != [16]byte{}
	})
	if !intact {
		return nil, fmt.Errorf("first entry of term %d: the lock table is broken", term)
	}
	clock := newLeaderClock(tableNow, n.cfg.seams.Mono)
	e := &epoch{term: term}
	e.proposer = newProposer(term, clock, n.cfg.seams.Wall, func(entry []byte) (a fsm.Applied, err error) {
		if n.cfg.seams.Stamped != nil {
			n.cfg.seams.Stamped(term)
		}
		err = n.inTurn(func() error { a, err = commit(r, entry); return err })
		return a, err
	})
	e.proposer.missing, e.proposer.aside = missingIn(n.machine), n.missing.add
	e.proposer.foreign = foreignIn(n.machine)
	e.proposer.level = n.tableLevel
	if names := n.differingLimits(limits); founded && len(names) > 0 {
		n.log.Warn("the configured limits differ from the cluster's, which are in force: locknode limits set changes those", "limits", names)
	}
	first := batch{}
	if !founded {
		first.add(fsm.Found{Cluster: randomID(), Key: randomID()})
		first.add(fsm.Configure{Limits: n.foundingLimits()})
	}
	if !e.proposer.propose(first) {
		return nil, fmt.Errorf("first entry of term %d: not committed", term)
	}
	if !founded {
		n.note(audit.EventFormed, n.clusterID(), 0)
	}
	return e, nil
}

// serve leads until the term is over or ctx ends.
func (n *Node) serve(ctx context.Context, r *raft.Raft, e *epoch) {
	go e.proposer.run()
	n.membership.Lead(ctx)
	n.epoch.Store(e)
	n.metrics.leaderChanges.Inc()
	n.grants.lead(n.state.Load().Now)
	n.log.Info("leading the cluster", "term", e.term)
	n.rounds.restart()
	n.router.wake()
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.proposer.lost:
			return
		case <-r.LeaderCh():
		case <-poll.C:
		}
		if term, ok := leads(r); !ok || term != e.term {
			return
		}
	}
}

// end stops serving first; then everything that waited here goes to the next leader.
func (n *Node) end(e *epoch) {
	n.epoch.Store(nil)
	n.rounds.restart()
	e.proposer.close()
	n.membership.Follow()
	n.log.Info("not leading any more", "term", e.term)
	n.waitElsewhere()
	<-e.proposer.done
	n.waitElsewhere()
}

// waitElsewhere sends the acquires that wait here to the leader, as soon as there is one.
// They may be queued in the table, or granted: a refusal would not mean that nothing was
// done.
func (n *Node) waitElsewhere() {
	for _, call := range n.waits.takeAll() {
		call.Doubt()
		n.sendElsewhere(call)
	}
}

// inTurn runs f, which puts an entry through the log, while leadership is not
// being handed over.
func (n *Node) inTurn(f func() error) error {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	return f()
}

// holdEntries keeps entries from being put through the log until release is called. It
// waits for the entry that is on its way, at most until ctx ends.
func (n *Node) holdEntries(ctx context.Context) (release func(), err error) {
	select {
	case n.turn <- struct{}{}:
		return func() { <-n.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("an entry is on its way: %w", context.Cause(ctx))
	}
}

// handOver hands leadership over to a voter, or, if to is empty, to the one whose log is
// most up to date.
func (n *Node) handOver(ctx context.Context, r *raft.Raft, to string) error {
	return network.HandOver(ctx, r, n.transport, raft.ServerID(to), n.holdEntries)
}

// commit puts an entry through the log and returns what the table did. Its error is
// errNotProposed, or errOutcomeUnknown if the entry may still take effect.
func commit(r *raft.Raft, entry []byte) (fsm.Applied, error) {
	f := r.Apply(entry, applyTimeout)
	switch err := f.Error(); {
	case err == nil:
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		return fsm.Applied{}, fmt.Errorf("%w: %w", errNotProposed, err)
	default:
		return fsm.Applied{}, fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	applied, ok := f.Response().(fsm.Applied)
	if !ok {
		return fsm.Applied{}, fmt.Errorf("%w: raft answered %T", errOutcomeUnknown, f.Response())
	}
	return applied, nil
}

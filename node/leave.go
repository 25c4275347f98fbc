package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/membership"
)

// Stopping a node can end a cluster. Suppose that three nodes are replaced one after the
// other and each leaves when it is stopped: the last one is the only voter while the new
// ones are not voters yet. So a node that is to stop checks first whether the others can do
// without it, and waits for some time until they can, serving as before. It cannot refuse
// to stop, because it would be killed in the end. It can refuse to leave: then it stays a
// member, and says that its data are still needed.
//
// Two nodes that are stopped at the same time do not see each other's stop. That is
// intended: a cluster that is switched off as a whole does not wait.

// awaitEvery is how often a node that is to stop checks whether it may.
const awaitEvery = 20 * time.Millisecond

// awaitOthers waits until may returns nil. It returns the last error of may when ctx ends,
// and nil when the node ends by itself meanwhile.
func (n *Node) awaitOthers(ctx context.Context, what string, may func() error) error {
	poll := time.NewTicker(awaitEvery)
	defer poll.Stop()
	logged := ""
	for {
		reason := may()
		if reason == nil || n.Err() != nil {
			return nil
		}
		if text := reason.Error(); text != logged && !errors.Is(reason, errVotersUnknown) {
			logged = text
			n.log.Info("waiting, before the node "+what+", until the others can do without it", "reason", text)
		}
		select {
		case <-ctx.Done():
			return reason
		case <-poll.C:
			n.rounds.wake()
		}
	}
}

// errVotersUnknown says that no leader has reported the voters yet.
var errVotersUnknown = errors.New("no leader has reported who votes")

// whoVotesSince is whoVotes, but empty if that is older than since.
func (n *Node) whoVotesSince(since time.Duration) membership.Electorate {
	if t := n.reported.Load(); n.epoch.Load() == nil && (t == nil || t.at < since) {
		return membership.Electorate{}
	}
	return n.whoVotes()
}

// mayStop returns nil if this node may stop for a while: it is no voter, or the others that
// answer are a majority, or waiting is of no use.
func (n *Node) mayStop(since time.Duration) error {
	e := n.whoVotesSince(since)
	others := e.Without(n.id)
	switch {
	case len(e.Voters) == 0:
		return errVotersUnknown
	case !e.Has(n.id), membership.Majority(others.Answer(), len(e.Voters)):
		return nil
	}
	if id, ok := n.membership.Candidate(e); ok {
		return fmt.Errorf("%q is to be a voter and is none yet, and without this node %d of %d voters are there", id, others.Answer(), len(e.Voters))
	}
	if len(others.Silent) == 0 {
		return nil // one of one or of two voters: there is no other to wait for
	}
	return fmt.Errorf("of %d voters %s, and without this node %d are there", len(e.Voters), others.Silence(), others.Answer())
}

// mayLeave returns nil if this node may leave for good: a majority of the other voters
// answers, and no node is about to become a voter.
func (n *Node) mayLeave(since time.Duration) error {
	e := n.whoVotesSince(since)
	others := e.Without(n.id)
	id, joining := n.membership.Candidate(e)
	switch {
	case len(e.Voters) == 0:
		return errVotersUnknown
	case !e.Has(n.id):
		return nil
	case joining:
		return fmt.Errorf("%q is to be a voter and is none yet", id)
	case len(others.Voters) == 0:
		return errOnlyVoter
	case !membership.Majority(others.Answer(), len(others.Voters)):
		return fmt.Errorf("of the %d other voters %s", len(others.Voters), others.Silence())
	}
	return nil
}

// errOnlyVoter says that there is no other voter, so that without this node the cluster
// would end.
var errOnlyVoter = errors.New("this node is the only voter")

// beforeStop waits, for as long as StopWait, until the others can do without this node.
func (n *Node) beforeStop() {
	if n.cfg.StopWait <= 0 || n.raft.Load() == nil || n.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.StopWait)
	defer cancel()
	begun, since := time.Now(), n.cfg.seams.Mono()
	reason := n.awaitOthers(ctx, "stops", func() error {
		err := n.mayStop(since)
		if errors.Is(err, errVotersUnknown) && time.Since(begun) > max(freshEvery, 5*n.cfg.Timing) {
			return nil // there is no leader to report the voters, so stopping takes nothing away
		}
		return err
	})
	if reason != nil {
		n.log.Warn("the node stops, and too few voters are left for a majority until it or another one is back", "reason", reason)
	}
}

// leaveOthers waits, for as long as LeaveWait, until the others can do without this node,
// and then leaves them. Where it cannot, it stays a member.
func (n *Node) leaveOthers(ctx context.Context) error {
	if n.raft.Load() == nil || n.Err() != nil {
		return nil
	}
	err := n.awaitLeave(ctx)
	if n.Err() != nil {
		return nil // it was removed, or failed
	}
	if !errors.Is(err, errOnlyVoter) {
		err = n.leave(ctx)
	}
	if err == nil {
		n.leaveGossip(ctx)
		return nil
	}
	n.log.Warn("the node has not left the cluster: it stays a member, and its data directory is still needed", "err", err)
	return fmt.Errorf("leave the cluster: the node stays a member, keep its data directory: %w", err)
}

// leaveGossip announces in gossip that the node leaves. Peers that do not get that see the
// node as failed, which does no harm to a node that is no member.
func (n *Node) leaveGossip(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := n.cluster.Leave(ctx); err != nil {
		n.log.Info("the node has left the cluster, and some peers may not know it yet", "err", err)
	}
}

// awaitLeave waits until mayLeave returns nil, at most for LeaveWait. If ctx is short it
// leaves time for the leaving itself.
func (n *Node) awaitLeave(ctx context.Context) error {
	wait := max(n.cfg.LeaveWait, 0)
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		wait = min(wait, left-min(leaveTimeout, left/2))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	since, begun := n.cfg.seams.Mono(), time.Now()
	return n.awaitOthers(ctx, "leaves", func() error {
		err := n.mayLeave(since)
		if errors.Is(err, errOnlyVoter) && time.Since(begun) > aloneWait && !n.membership.HasCompany() {
			cancel() // all others were switched off: none will become a voter
		}
		return err
	})
}

// aloneWait is how long the only voter waits for another node.
const aloneWait = time.Second

// leave has this node removed; RemoveMember hands leadership over first if it leads. It
// retries for leaveTimeout, unless the leader refuses because the others cannot do without
// this node.
func (n *Node) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	var err error
	for begun := time.Now(); ctx.Err() == nil; {
		_, err = wire{n}.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: n.id})
		switch apiv1.CodeOf(err) {
		case apiv1.CodeOK, apiv1.CodeNoMember:
			return nil
		case apiv1.CodeDenied:
			return apiv1.AsError(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause(time.Since(begun))):
		}
	}
	return errors.Join(err, context.Cause(ctx))
}

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/membership"
)

// When may the next node be stopped? A node serves long before it votes: one that joins
// is a nonvoter for some ten seconds, and a cluster whose voters are replaced one after
// the other at the pace of their readiness runs out of voters. So a node says besides
// whether it votes, and whether the cluster could do without one more voter then: without
// any one of them a majority is there, or all of them are. The second is for clusters of
// one or two, which can never do without any. It also covers what the node itself does
// not see: that the one that it replaces is still counted, dead as it is.
//
// Only the leader knows who votes and who of them is there. It says so in each answer to
// a read index, for which every follower asks once a second.

// told is what a leader has said of who votes.
type told struct {
	membership.Electorate
	at time.Duration // when it was asked, by mono
}

// whoVotes is what is known of who votes now; it is empty where nothing is.
func (n *Node) whoVotes() membership.Electorate {
	if n.epoch.Load() != nil {
		return n.membership.Electorate()
	}
	if t := n.told.Load(); t != nil && n.cfg.seams.Mono()-t.at <= 3*freshEvery {
		return t.Electorate
	}
	return membership.Electorate{}
}

// voterReadiness is nil while the next node may be stopped as far as this one knows; see
// above. note is what is to be said besides.
func (n *Node) voterReadiness() (note string, err error) {
	if err := n.readiness(); err != nil {
		return "", err
	}
	if n.waitsToStop.Load() {
		return "", errors.New("stopping")
	}
	e := n.whoVotes()
	switch {
	case len(e.Voters) == 0:
		return "", errors.New("who votes is not known: the members are being changed, or the leader has not said it yet")
	case n.cfg.Nonvoter:
		note = "this node is set up not to vote"
	case !e.Has(n.id):
		return "", errors.New("this node is not a voter yet")
	case n.stores.Identity().VotesFrom != 0:
		return "", errors.New("this node does not vote yet: its log is not known to be committed up to its joining")
	}
	if !e.Spare() {
		return "", fmt.Errorf("of %d voters %s: the cluster cannot do without one more; "+
			"bring back what has failed, or remove it with \"%s\"", len(e.Voters), e.Silence(), membership.RemoveHint)
	}
	return note, nil
}

// describeVoters fills in what a status says of who votes.
func (n *Node) describeVoters(res *apiv1.StatusResponse) {
	res.Nonvoter = n.cfg.Nonvoter
	note, err := n.voterReadiness()
	res.VoterReady, res.VoterReason = err == nil, note
	if err != nil {
		res.VoterReason = err.Error()
	}
	if !res.GetReady() {
		return
	}
	e := n.whoVotes()
	res.Voters, res.VotersHealthy = uint32(len(e.Voters)), uint32(e.Answer()) //nolint:gosec // a few
	res.Voter = e.Has(n.id) && res.GetVotesFrom() == 0
}

// WaitVoter waits until this node can serve and votes, and the cluster could do without
// one more of its voters: until the next node may be stopped. A node with Nonvoter need
// not vote. It ends when ctx does, or the node; its error says what is missing still, why
// the node has ended by itself, or that it was closed.
//
// A program that replaces its nodes one after the other waits for this after each one,
// and not for [Node.WaitReady]; see docs/deploy.md.
func (n *Node) WaitVoter(ctx context.Context) error {
	return n.wait(ctx, "to vote", func() error {
		_, err := n.voterReadiness()
		return err
	})
}

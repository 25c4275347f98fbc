package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/membership"
)

// When may the next node be stopped? A node serves long before it votes: one that joins is
// a nonvoter for some ten seconds. If the voters of a cluster were replaced one after the
// other, each as soon as the one before is ready, the cluster would run out of voters. So a
// node also reports whether it votes, and whether the cluster could do without one more
// voter: without any one of them a majority answers, or all of them answer. The second is
// for clusters of one or two voters, which can never do without one. The condition also
// covers what the node itself does not see: that the failed node that it replaces still
// counts as a voter.
//
// Only the leader knows who votes and which voters answer. It reports that in each answer
// to a read index, which every follower requests once a second.

// reportedElectorate is what a leader has reported about the voters.
type reportedElectorate struct {
	membership.Electorate
	at time.Duration // mono when the leader was asked
}

// whoVotes returns what is known about the voters now, empty if nothing is.
func (n *Node) whoVotes() membership.Electorate {
	if n.epoch.Load() != nil {
		return n.membership.Electorate()
	}
	if t := n.reported.Load(); t != nil && n.cfg.seams.Mono()-t.at <= 3*freshEvery {
		return t.Electorate
	}
	return membership.Electorate{}
}

// voterReadiness returns no error while the next node may be stopped, as far as this one
// knows; see above. note is a remark.
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
		return "", errors.New("who votes is not known: the members are being changed, or the leader has not reported it yet")
	case n.cfg.Nonvoter:
		note = "this node is configured not to vote"
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

// describeVoters fills in what a status has about the voters.
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

// WaitVoter waits until the next node may be stopped: until this node can serve and votes,
// and the cluster could do without one more of its voters. A node with [Config.Nonvoter]
// need not vote. It also ends when ctx does, or the node; its errors, and the state that
// they leave, are those of [Node.WaitReady].
//
// A program that replaces its nodes one after the other calls WaitVoter after each one, and
// not WaitReady; see docs/deploy.md.
func (n *Node) WaitVoter(ctx context.Context) error {
	return n.wait(ctx, "to vote", func() error {
		_, err := n.voterReadiness()
		return err
	})
}

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/network"
)

// transferTimeout bounds the search for a successor.
const transferTimeout = 2 * time.Second

// Status describes this node as it sees itself, its table as of the last entry applied. It
// asks no other node and never waits, not even for the entry that is being applied.
func (n wire) Status(context.Context) (*apiv1.StatusResponse, error) {
	s := n.state.Load()
	res := &apiv1.StatusResponse{
		NodeId: n.id, Version: n.cfg.Version, LogStore: n.cfg.LogStore, HttpAddress: n.httpAddr,
		State: "starting", LeaderAddress: n.leaderAPI(),
		AppliedIndex: s.DigestIndex,
		Locks:        uint64(s.Locks), Sessions: uint64(s.Sessions), Waiters: uint64(s.Waiters),
		Grants: uint64(s.Grants), Owners: uint64(s.Owners), TableBytes: s.Bytes, TableBytesLimit: s.limit, TopOwners: n.topOwners(),
		LastToken: s.LastToken, ClusterTime: int64(s.Now), Digest: s.Digest, DigestIndex: s.DigestIndex,
		ClusterId: n.clusterID(), VotesFrom: n.stores.Identity().VotesFrom,
		Directory:         n.directory(),
		FeatureLevel:      n.tableLevel().level,
		FeatureLevelKnown: fsm.Level,
	}
	if r := n.raft.Load(); r != nil {
		res.Term, res.CommitIndex = r.CurrentTerm(), network.Committed(r, n.stores)
		_, leader := r.LeaderWithID()
		res.LeaderId = string(leader)
		res.State = map[raft.RaftState]string{
			raft.Leader: "leader", raft.Follower: "follower", raft.Candidate: "candidate", raft.Shutdown: "stopped",
		}[r.State()]
	}
	if err := n.readiness(); err != nil {
		res.NotReadyReason = err.Error()
	} else {
		res.Ready = true
	}
	n.describeVoters(res)
	res.AuthMode = n.cfg.Auth.mode()
	res.AuthEnforced, res.AuthNote = n.rights.describe()
	return res, nil
}

// readiness is nil while this node can serve: there is a leader, and this node has applied
// all that was committed at the last read round.
func (n *Node) readiness() error {
	switch {
	case n.closing.Load():
		return errors.New("stopping")
	case n.Err() != nil:
		return n.Err()
	case n.raft.Load() == nil:
		return errors.New(n.formation())
	}
	if err := n.stores.Gate(); err != nil {
		return err // its disk hangs: Raft here may not have noticed that another node leads
	}
	if n.isElected() && n.epoch.Load() == nil {
		return errors.New("elected, but not serving as leader yet")
	}
	if err := n.rounds.lastErr(); err != nil {
		return err
	}
	switch age, ok := n.rounds.age(); {
	case !ok:
		return errors.New("its table has not caught up yet")
	case age > 3*freshEvery: // rounds succeed, or there would be an error: the table is slow
		return fmt.Errorf("its table is behind: it was last known to be up to date %v ago", age.Round(time.Millisecond))
	}
	return nil
}

// WaitReady waits until this node can serve: there is a leader, and the table is up to
// date. It also ends when ctx does, or the node.
//
// When ctx ends the error says what is still missing and wraps the cause of ctx. When the
// node has ended by itself the error wraps [Node.Err], and otherwise it says that the node
// was closed. The node goes on as before.
//
// After WaitReady the next node must not be stopped yet: see [Node.WaitVoter].
func (n *Node) WaitReady(ctx context.Context) error { return n.wait(ctx, "to be ready", n.readiness) }

// wait waits until missing returns nil.
func (n *Node) wait(ctx context.Context, what string, missing func() error) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		reason := missing()
		if reason == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for node %q %s: %w: %w", n.id, what, reason, context.Cause(ctx))
		case <-n.done:
			if err := n.Err(); err != nil {
				return fmt.Errorf("wait for node %q %s: it ended: %w", n.id, what, err)
			}
			return fmt.Errorf("wait for node %q %s: it was closed", n.id, what)
		case <-poll.C:
			n.rounds.wake()
		}
	}
}

// Members lists Raft's configuration, joined with what gossip sees.
func (n wire) Members(context.Context) (*apiv1.MembersResponse, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, n.unavailable()
	}
	return n.membership.Members(), nil
}

// TransferLeadership hands leadership over to the named node, or to the one whose log is
// most up to date. Any node can do it. Leadership may move again at any time; the response
// names the leader at the end of the transfer.
func (n wire) TransferLeadership(ctx context.Context, req *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	r := n.raft.Load()
	if r == nil {
		return nil, n.unavailable()
	}
	var res *apiv1.TransferLeadershipResponse
	err := n.throughElections(ctx, func() (err error) {
		if n.epoch.Load() == nil {
			peer, err := n.leaderLocks()
			if err != nil {
				return err
			}
			res, err = peer.TransferLeadership(ctx, req)
			return err
		}
		if err := n.transfer(ctx, r, req.GetTo()); err != nil {
			return err
		}
		res, err = n.awaitOtherLeader(ctx, r)
		return err
	})
	return res, err
}

// throughElections retries while no leader can be reached, for as long as an operation
// would wait for one.
func (n *Node) throughElections(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, noLeaderPatience)
	defer cancel()
	begun := time.Now()
	for {
		err := try()
		switch apiv1.CodeOf(err).Retry() {
		case apiv1.RetryElsewhere, apiv1.RetrySameID:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return apiv1.AsError(err)
		case <-time.After(pause(time.Since(begun))):
		}
	}
}

func (n *Node) transfer(ctx context.Context, r *raft.Raft, to string) error {
	if to == n.id {
		return apiv1.NewError(apiv1.CodeInvalid, "to: is %q, must be another node than the leader", to)
	}
	if to != "" {
		if _, ok := n.voter(r, to); !ok {
			return apiv1.NewError(apiv1.CodeNoMember, "to: is %q, must be a voter; \"locknode members\" lists them", to)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	if err := n.handOver(ctx, r, to); err != nil {
		return apiv1.NewError(apiv1.CodeUnavailable, "transfer leadership: %v", err)
	}
	return nil
}

func (n *Node) awaitOtherLeader(ctx context.Context, r *raft.Raft) (*apiv1.TransferLeadershipResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		if _, id := r.LeaderWithID(); id != "" && string(id) != n.id {
			return &apiv1.TransferLeadershipResponse{LeaderId: string(id)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, apiv1.NewError(apiv1.CodeUnavailable, "transfer leadership: handed over, but no new leader was seen: %v", context.Cause(ctx))
		case <-poll.C:
		}
	}
}

// RemoveMember removes a member from Raft's configuration. Any node can do it. It is
// refused if no majority of the voters that would remain answers the leader's Raft. After
// an error with [apiv1.CodeUnknownOutcome] the member may have been removed, or be removed
// later; Members shows it, and calling RemoveMember again does no harm.
func (n wire) RemoveMember(ctx context.Context, req *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	if n.raft.Load() == nil {
		return nil, n.unavailable()
	}
	ctx, cancel := beforeDeadline(ctx)
	defer cancel()
	mayBeDone := false
	err := n.throughElections(ctx, func() error {
		asked, err := n.removeMember(ctx, req)
		switch code := apiv1.CodeOf(err); {
		case code == apiv1.CodeNoMember && mayBeDone:
			return nil // an earlier try has removed it, and only its answer was lost
		case code == apiv1.CodeUnknownOutcome, asked && code == apiv1.CodeUnavailable:
			mayBeDone = true
		}
		return err
	})
	if err == nil {
		return &apiv1.RemoveMemberResponse{}, nil
	}
	if mayBeDone && apiv1.CodeOf(err).Retry() != apiv1.RetryChanged { // otherwise the leader has said that it is not removed
		return nil, apiv1.NewError(apiv1.CodeUnknownOutcome,
			"remove member %q: it may have been done, or may still be done: %v; \"locknode members\" shows it", req.GetId(), err)
	}
	return nil, err
}

// beforeDeadline returns a context that ends some time before ctx does, so that the answer
// can say more than that the time is over.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(500*time.Millisecond, time.Until(end)/10)))
}

// removeMember has the leader remove a member. A leader does not remove itself: it hands
// leadership over, and its successor does it. Suppose that it lost leadership with its own
// removal in its log and in no other. Then it could not lead again, because it is no voter
// of its latest configuration, and it would vote for no node with a shorter log. Where its
// vote is needed there would never be a leader again. asked says that another node was
// asked: then the removal may have been done although there is no answer.
func (n *Node) removeMember(ctx context.Context, req *apiv1.RemoveMemberRequest) (asked bool, err error) {
	if n.epoch.Load() != nil {
		if r := n.raft.Load(); req.GetId() == n.id && n.membership.CanDoWithout(ctx, n.id) {
			if err := n.transfer(ctx, r, ""); err != nil {
				return false, err
			}
			return false, n.notLeader()
		}
		return false, n.membership.Remove(ctx, req.GetId())
	}
	peer, err := n.leaderLocks()
	if err != nil {
		return false, err
	}
	_, err = peer.RemoveMember(ctx, req)
	return true, err
}

func (n *Node) voter(r *raft.Raft, id string) (raft.Server, bool) {
	servers, err := membership.Configuration(r)
	if err != nil {
		return raft.Server{}, false
	}
	s, ok := membership.Find(servers, id)
	return s, ok && s.Suffrage == raft.Voter
}

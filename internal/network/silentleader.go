package network

import (
	"time"

	"github.com/hashicorp/raft"
)

// When does a leader count as gone? A raft follower asks for votes after it has heard nothing
// from the leader for a random time between one and two election timeouts. The other
// followers refuse a pre-vote and a vote until their own random time is over. So an election
// waits for the later of two random times. Worse, if the first to ask has the longer log, it
// is refused, and the later one, whose log is shorter, asks in vain: the first one then waits
// for another election timeout or two.
//
// The refusal has one purpose: a node that no longer hears the leader must not disturb those
// that do. For that one election timeout is enough (Ongaro's thesis, 4.2.3): a node that has
// heard nothing for so long no longer refuses on behalf of the leader. All else is decided by
// raft: who may ask, whose log is long enough, and who was voted for.

// heard records that a leader sends to this node.
func (t *Transport) heard(command any) {
	var term uint64
	var from string
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		term, from = req.Term, string(req.ID)
	case *raft.InstallSnapshotRequest:
		term, from = req.Term, string(req.ID)
	default:
		return
	}
	if m := t.member.Load(); m != nil && term < m.CurrentTerm() {
		return // it does not lead any more
	}
	if led := t.ledBy.Load(); led == nil || *led != from {
		t.ledBy.Store(&from)
	}
	t.lastHeard.Store(int64(time.Since(t.began)))
}

// silent reports whether no leader has sent anything for an election timeout.
func (t *Transport) silent() bool {
	patience := time.Duration(t.patience.Load())
	return patience > 0 && time.Since(t.began)-time.Duration(t.lastHeard.Load()) >= patience
}

// undefended changes a request for a vote so that raft does not refuse it on behalf of a
// leader that has been silent for an election timeout.
func (t *Transport) undefended(rpc raft.RPC) raft.RPC {
	m := t.member.Load()
	if m == nil || m.State() != raft.Follower || !t.silent() {
		return rpc
	}
	switch req := rpc.Command.(type) {
	case *raft.RequestPreVoteRequest:
		// Raft does not refuse a pre-vote of the leader itself, which it recognizes by its
		// address. The candidate is identified by its ID.
		if leader, _ := m.LeaderWithID(); leader != "" {
			asked := *req
			asked.Addr = []byte(leader)
			rpc.Command = &asked
		}
	case *raft.RequestVoteRequest:
		asked := *req
		asked.LeadershipTransfer = true // nor the vote of a successor named by the leader
		rpc.Command = &asked
	}
	return rpc
}

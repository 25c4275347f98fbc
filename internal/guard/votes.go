package guard

import "github.com/hashicorp/raft"

// A node that lost its data may come back under its old ID and address once that
// ID was removed from the configuration. Is its old vote, which it has forgotten,
// harmless then? Let the removal of x be committed in term R by Q, a majority of
// the voters without x, and let a candidate c that has x among its voters ask for
// votes in term T.
//
//   - T > R. A majority of c's voters without x has a node y in common with Q. What
//     y acknowledges in term R it acknowledges before it votes in T, so y has the
//     removal, and votes for c only if c's log has it, too; then c has x among its
//     voters only if x was taken in anew, and no vote of before counts for it.
//   - T <= R. y may have voted for c before it had the removal: the old x's vote and
//     the new x's vote could then make two leaders of one term. It takes a candidate
//     that was paused for all the time from the death of x to its return, in a
//     cluster of five or more, but it is possible.
//
// The second case needs a new x that votes in a term of R or before for a
// candidate whose log lacks the removal. Raft would: a node with an empty log
// votes for everybody. So a node that joined answers no to every request for its
// vote until its log has reached the point at which it was taken in: that comes
// after the removal, and from then on x refuses every log without it. Nobody counts
// on its vote before, because the leader makes it a voter only when it has got
// there. The new vote is as good as that of a node with a new ID; and what
// is said here of an old ID holds for an old address, at which old candidates ask.

// answersVote answers a request for a vote that raft must not see yet.
func (t *Transport) answersVote(rpc raft.RPC) bool {
	m, from := t.member.Load(), t.votesFrom.Load()
	if from == 0 || m != nil && m.LastIndex() >= from {
		return false
	}
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	term := uint64(0)
	if m != nil {
		term = m.CurrentTerm()
	}
	switch rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		rpc.Respond(&raft.RequestVoteResponse{RPCHeader: header, Term: term}, nil)
	case *raft.RequestPreVoteRequest:
		rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: header, Term: term}, nil)
	default:
		return false
	}
	return true
}

package network

import "github.com/hashicorp/raft"

// A node that lost its data may come back under its old ID and address once that
// ID was removed from the configuration. Is its old vote, which it has forgotten,
// harmless then? Let the removal of a node x be committed in term R by Q, a majority of
// the voters without x, and let a candidate c that has x among its voters ask for
// votes in term T.
//
//   - T > R. A majority of c's voters without x has a node y in common with Q. What
//     y acknowledges in term R it acknowledges before it votes in T, so y has the
//     removal, and votes for c only if c's log has it, too; then c has x among its
//     voters only if x was admitted again, and no earlier vote counts for it.
//   - T <= R. y may have voted for c before it had the removal: the old x's vote and
//     the new x's vote could then make two leaders of one term. It takes a candidate
//     that was paused for all the time from the death of x to its return, in a
//     cluster of five or more, but it is possible.
//
// The second case needs a new x that votes in a term of R or before for a
// candidate whose log lacks the removal. Raft would: a node with an empty log
// votes for everybody. So a node that joined answers no to every request for its vote until
// it has the entry of its joining, which comes after the removal. From then on x refuses
// every log without the removal. No majority needs its vote before, because the leader makes
// it a voter only after that. The new vote is as good as that of a node with a new ID; and
// what is said here of an old ID holds for an old address, at which old candidates ask.
//
// When does x have its joining? The leader that admitted it has told it up to which entry the
// log was committed then, and the joining is one of these. A log of that length is not
// enough. A deposed leader that does not know it yet, and has x among its voters, can send x
// a long tail that was never committed and does not contain the joining. With this tail x
// would vote for a candidate that lacks the removal. What counts is that x knows the entries
// up to that point to be committed. Only one entry is ever committed at an index, so the
// entries of x are then the ones that the leader meant. A deposed leader can report as
// committed only what is committed.
//
// After a restart x does not know what is committed until a leader sends it, and there may be
// no leader without its vote: a cluster of one that grew to two, both of which are restarted.
// So the node writes to disk that it has its joining (Identity.VotesFrom is zero from then
// on), and the leader makes it a voter only after that. It cannot lose the joining itself: it
// is a committed entry of a log that is on disk.
//
// Rejected: to require an entry of the joining's term or a later one at that index. It proves
// the same and needs no second write, but the proof is about who can have written an entry,
// and this one only about what is committed.

// answersVote answers a request for a vote that raft must not get yet.
func (t *Transport) answersVote(rpc raft.RPC) bool {
	m, from := t.member.Load(), t.votesFrom.Load()
	if from == 0 || m != nil && Committed(m, t.stores.Load()) >= from {
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

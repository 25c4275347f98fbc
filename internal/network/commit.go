package network

import (
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
)

// Committed is the index up to which r, on stores s, knows its log to be committed. Raft
// forgets its commit index when it is restarted; but what a snapshot covers was applied,
// and only what is committed is. A leader's Raft counts entries that this node still writes
// (see durable.go).
func Committed(r *raft.Raft, s *disk.Stores) uint64 {
	return min(max(r.CommitIndex(), r.AppliedIndex()), s.Durable())
}

// A follower's Raft sets its commit index to the leader's, up to the end of its own log, even
// if the request does not reach that end. A leader builds its first requests from a log end
// that it has read a moment before. If it commits entries with the others meanwhile, it
// sends an empty request that matches the follower's log at the old end, with the new commit
// index. A follower whose log goes on with entries of a deposed leader, which were never
// committed, then applies these. By the rule in the Raft paper the commit index is at most
// the index of the last entry that the request has or matches.

// vouched lowers the commit index of a request to the last entry that it has or matches.
func vouched(command any) {
	if req, ok := command.(*raft.AppendEntriesRequest); ok {
		req.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))
	}
}

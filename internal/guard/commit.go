package guard

import "github.com/hashicorp/raft"

// Committed is the index up to which r knows its log to be committed. Raft forgets
// its commit index when it is restarted; but what a snapshot covers was applied, and
// only what is committed is.
func Committed(r *raft.Raft) uint64 { return max(r.CommitIndex(), r.AppliedIndex()) }

// Raft takes the leader's commit index for its own up to the end of its log, also
// where the request says nothing of that end. A leader builds its first requests
// from a log end that it has read a moment before. If it goes on to commit entries
// with the others meanwhile, it sends an empty request that matches the follower's
// log at the old end, with the new commit index; and a follower whose log goes on
// with entries that were never committed, of a leader that was deposed, applies
// these. By the rule in the Raft paper the commit index is at most that of the last
// entry that the request has or matches.

// vouched cuts the commit index of a request down to what the request is about.
func vouched(command any) {
	if req, ok := command.(*raft.AppendEntriesRequest); ok {
		req.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))
	}
}

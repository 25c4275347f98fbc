package guard

import (
	"time"

	"github.com/hashicorp/raft"
)

// When is a leader gone? A follower asks for votes when it has heard nothing for a
// random time between one and two election timeouts, and raft's followers refuse,
// before and at the vote, until their own such time is over: an election waits for
// the later of two random times. Worse, if the one that asks first has the longer
// log, the later one, which asks in vain, does not wake it: it waits for another
// election timeout or two.
//
// What a refusal is to prevent is that one who hears the leader no longer disturbs
// those who do. For that one election timeout is enough (Ongaro's thesis, 4.2.3):
// whoever has heard nothing for as long does not defend the leader any more. All
// else is up to raft: who may ask, whose log is long enough, and who was voted for.

// heard notes that a leader sends to this node.
func (t *Transport) heard(command any) {
	switch command.(type) {
	case *raft.AppendEntriesRequest, *raft.InstallSnapshotRequest:
		t.lastHeard.Store(int64(time.Since(t.began)))
	}
}

// silent reports whether no leader has sent anything for an election timeout.
func (t *Transport) silent() bool {
	patience := time.Duration(t.patience.Load())
	return patience > 0 && time.Since(t.began)-time.Duration(t.lastHeard.Load()) >= patience
}

// undefended makes of a request for a vote one that raft does not refuse on behalf
// of a leader who has fallen silent.
func (t *Transport) undefended(rpc raft.RPC) raft.RPC {
	m := t.member.Load()
	if m == nil || m.State() != raft.Follower || !t.silent() {
		return rpc
	}
	switch req := rpc.Command.(type) {
	case *raft.RequestPreVoteRequest:
		// Raft does not refuse the leader itself, which it knows by its address. Who
		// the candidate is it takes from the ID.
		if leader, _ := m.LeaderWithID(); leader != "" {
			asked := *req
			asked.Addr = []byte(leader)
			rpc.Command = &asked
		}
	case *raft.RequestVoteRequest:
		asked := *req
		asked.LeadershipTransfer = true // nor one whom the leader has asked to take over
		rpc.Command = &asked
	}
	return rpc
}

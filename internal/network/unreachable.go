package network

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	reachPoll = 100 * time.Millisecond
	reachWait = 5 * time.Second
)

// reach records which peers answer, so that replication to a peer resumes as soon as the
// peer is back.
//
// Raft backs off for up to 10 s before it replicates again to a follower that was away for
// half a minute. Its heartbeats, which are tried at least every half heartbeat timeout,
// reach the follower long before. In between the follower does not count towards a majority
// of the log: if another node fails then, nothing commits.
//
// So a replication RPC to a peer that does not answer waits here, instead of failing and
// lengthening the back-off: until a heartbeat is answered, this node no longer leads the
// term, or the peer is no longer a member. Raft's replication goroutine is blocked in the RPC
// and cannot notice the last two by itself. Without NewRaft they are not known, and the wait
// is bounded by reachWait.
type reach struct {
	t *Transport

	mu    sync.Mutex                      // guards what follows
	peers map[raft.ServerID]chan struct{} // peers that do not answer → closed when they do
}

func newReach(t *Transport) *reach {
	return &reach{t: t, peers: map[raft.ServerID]chan struct{}{}}
}

// wait returns when the peer answers or the RPC has become pointless.
func (r *reach) wait(id raft.ServerID, term uint64) {
	ticker := time.NewTicker(reachPoll)
	defer ticker.Stop()
	for begin := time.Now(); ; {
		r.mu.Lock()
		back := r.peers[id]
		r.mu.Unlock()
		if back == nil || !r.worthWaiting(id, term, time.Since(begin)) {
			return
		}
		select {
		case <-back:
			return
		case <-r.t.done:
			return
		case <-ticker.C:
		}
	}
}

func (r *reach) worthWaiting(id raft.ServerID, term uint64, waited time.Duration) bool {
	m := r.t.member.Load()
	if m == nil {
		return waited < reachWait
	}
	if m.State() != raft.Leader || m.CurrentTerm() != term {
		return false
	}
	for _, s := range m.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}

// answers reports whether the last RPC to a peer was answered.
func (r *reach) answers(id raft.ServerID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[id] == nil
}

// note records the outcome of an RPC to a peer, and returns it.
func (r *reach) note(id raft.ServerID, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	back := r.peers[id]
	switch {
	case err != nil && back == nil:
		r.peers[id] = make(chan struct{})
	case err == nil && back != nil:
		close(back)
		delete(r.peers, id)
	}
	return err
}

// AppendEntries replicates to a peer, or is a heartbeat.
func (t *Transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	heartbeat := req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
	if !heartbeat {
		t.reach.wait(id, req.Term)
	}
	sent := time.Now()
	err := t.appendEntries(id, addr, req, resp)
	err = t.reach.note(id, t.answered(id, err, resp.Term, resp.LastLog))
	if err == nil && resp.Term == req.Term {
		t.contacts.note(id, sent)
	}
	if err == nil && resp.Success && !heartbeat {
		t.progress.note(id, req.Term, req.PrevLogEntry+uint64(len(req.Entries)))
	}
	return err
}

// InstallSnapshot sends a snapshot to a peer.
func (t *Transport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.reach.wait(id, req.Term)
	err := t.installSnapshot(id, addr, req, resp, data)
	return t.reach.note(id, t.answered(id, err, resp.Term, 0))
}

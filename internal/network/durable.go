package network

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
)

// A leader's log takes commands before they are durable on this node (disk.Stores.WriteBeside,
// which says why that is safe). Here is what it relies on: that nothing is applied, no commit
// told of, and no entry acknowledged to another leader before that.

// durableFSM applies entries once they are durable on this node. After a write that has failed
// it applies nothing more and takes no snapshot: Raft counts what it has handed over as
// applied. Raft calls it on one goroutine.
type durableFSM struct {
	raft.FSM
	stores *disk.Stores
	failed error
}

// Apply returns an error for an entry that will never be durable.
func (f *durableFSM) Apply(l *raft.Log) any {
	if f.failed == nil {
		f.failed = f.stores.AwaitDurable(l.Index)
	}
	if f.failed != nil {
		return fmt.Errorf("apply entry %d: it was not written: %w", l.Index, f.failed)
	}
	return f.FSM.Apply(l)
}

// Snapshot fails when an entry was not applied.
func (f *durableFSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	return f.FSM.Snapshot()
}

// lowerCommit tells a follower only of commits for which this node need not be counted on to
// write something.
func (t *Transport) lowerCommit(req *raft.AppendEntriesRequest) {
	if s := t.stores.Load(); s != nil {
		req.LeaderCommitIndex = min(req.LeaderCommitIndex, s.Durable())
	}
}

// settle waits, before a request from another leader reaches Raft, until the entries are
// durable that this node has: Raft acknowledges those that it was sent and has. What it
// stores as a leader from now on cannot be in the request.
func (t *Transport) settle(command any) error {
	req, ok := command.(*raft.AppendEntriesRequest)
	if s := t.stores.Load(); ok && s != nil && len(req.Entries) > 0 {
		return s.AwaitAll()
	}
	return nil
}

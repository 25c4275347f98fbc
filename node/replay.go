package node

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// longReplay is how many entries a start may have to apply again. It is much
	// less than what makes Raft take a snapshot in the course of things.
	longReplay = 1024
	// replayLook is how often it is looked whether they have been applied, and how
	// long it is waited when Raft can take no snapshot yet: after a change of the
	// configuration it can when the next command has been applied.
	replayLook = 100 * time.Millisecond
)

// shortenReplay takes a snapshot when the node has applied a long log again at its
// start, so that the next start is shorter.
//
// Raft does so only after half a minute or more. Without this, a node that never
// lives as long takes none: its log grows from one life to the next, and a cluster
// of such nodes needs ever longer to come back, for a leader serves only when it has
// applied everything.
func (n *Node) shortenReplay(ctx context.Context, r *raft.Raft) {
	last, err := n.stores.Log.LastIndex()
	if err != nil {
		return // it is found out elsewhere
	}
	snaps, err := n.stores.Snapshots.List()
	if err != nil {
		return
	}
	first := uint64(0)
	if len(snaps) > 0 {
		first = snaps[0].Index
	}
	if last < first+longReplay {
		return
	}
	look := time.NewTicker(replayLook)
	defer look.Stop()
	for r.AppliedIndex() < last || !n.tookSnapshot(r) {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// tookSnapshot reports whether there is no need to try again.
func (n *Node) tookSnapshot(r *raft.Raft) bool {
	err := r.Snapshot().Error()
	if err != nil {
		n.log.Debug("snapshot after a long replay", "err", err)
	}
	return err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown)
}

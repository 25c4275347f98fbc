package node

import (
	"crypto/rand"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
)

// observe is called for every applied entry, on every node, in log order, on the goroutine
// that applies: it wakes what waits for the entry, and must not block.
func (n *Node) observe(a fsm.Applied) {
	n.checkpoints.note(a.Index, a.Digest)
	n.publish()
	n.waits.observe(&a)
	n.host.Observe(&a)
	n.notices.observe(&a)
	n.metrics.observe(&a)
	n.grants.observe(&a)
	if n.cfg.seams.Applied != nil {
		n.cfg.seams.Applied(a)
	}
}

// restored is called when a snapshot has replaced the table.
func (n *Node) restored() {
	n.publish()
	s := n.state.Load()
	n.checkpoints.note(s.DigestIndex, s.Digest)
	n.host.Restored(s.DigestIndex)
	if n.raft.Load() != nil { // otherwise the node starts with a snapshot of its own
		n.note(audit.EventRestored, "", s.DigestIndex)
	}
}

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return id
}

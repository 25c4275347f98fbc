package node

import (
	"encoding/hex"

	"github.com/locknode/locknode/fsm"
)

// tableState is what a node says of its table without asking it, as of the last
// entry applied. The table's mutex is held while an entry is applied, and an entry
// may take long: who only wants to know how things are must not wait for it.
type tableState struct {
	fsm.Stats          // DigestIndex is the index of the last entry applied
	cluster   [16]byte // ID of the cluster; zero until it was founded
}

// publish is called on the goroutine that applies, after each change of the table.
func (n *Node) publish() {
	s := &tableState{}
	intact := n.machine.View(func(t *fsm.Table) {
		s.Stats, s.cluster = t.Stats(), t.Cluster()
	})
	if !intact {
		return // it ends
	}
	n.state.Store(s)
	n.reads.nudge()
}

// appliedIndex is the index of the last command applied: configurations, barriers
// and the first entry of a term, which are Raft's own, do not count.
func (n *Node) appliedIndex() uint64 { return n.state.Load().DigestIndex }

// clusterID is the ID in the table, in hex; empty before there is one.
func (n *Node) clusterID() string {
	c := n.state.Load().cluster
	if c == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(c[:])
}

package node

import (
	"crypto/subtle"
	"encoding/hex"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// tableState is what a node reports about its table without its mutex, as of the last entry
// applied. The mutex is held while an entry is applied, and an entry may take long: a
// status must not wait for it.
type tableState struct {
	fsm.Stats          // DigestIndex is the index of the last entry applied
	cluster   [16]byte // ID of the cluster; zero until it was founded
	limit     int64    // of the table's memory
	rights    uint64   // index of the last change of access tokens or policies
	key       [16]byte // by which the nodes of the cluster know each other; zero until it was founded
}

// publish is called on the goroutine that applies, after each change of the table.
func (n *Node) publish() {
	s := &tableState{}
	intact := n.machine.View(func(t *fsm.Table) {
		s.Stats, s.cluster, s.key, s.limit, s.rights = t.Stats(), t.Cluster(), t.Key(), t.Limits().TableBytes, t.RightsIndex()
	})
	if !intact {
		return // the node ends
	}
	n.state.Store(s)
	n.rights.noticed(s.rights)
	n.reads.wake()
}

// appliedIndex returns the index of the last command applied. Configurations, barriers and
// the first entry of a term, which are Raft's own, do not count.
func (n *Node) appliedIndex() uint64 { return n.state.Load().DigestIndex }

// clusterID returns the ID in the table, in hex; empty before there is one.
func (n *Node) clusterID() string {
	c := n.state.Load().cluster
	if c == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(c[:])
}

// peerKey returns the key that this node shows to other nodes of its cluster; empty before
// it knows it.
func (n *Node) peerKey() string {
	key := n.state.Load().key
	if key == [16]byte{} {
		return ""
	}
	return string(key[:])
}

// isPeerKey reports whether only a node of this cluster can have shown key.
func (n *Node) isPeerKey(key string) bool {
	own := n.peerKey()
	return own != "" && subtle.ConstantTimeCompare([]byte(own), []byte(key)) == 1
}

const (
	// shownOwners is how many owners a status has.
	shownOwners = 5
	// If there are more than manyOwners, the top owners are searched at most once in
	// ownersEvery: requests for the status must not keep the table from being changed.
	manyOwners  = 1000
	ownersEvery = 250 * time.Millisecond
)

// ownersShown is the result of the last search.
type ownersShown struct {
	uses []*apiv1.OwnerUse
	at   time.Duration // monotonic time
}

// topOwners returns the owners that take most of the table, as of the last call at which
// the table was not being changed.
func (n *Node) topOwners() []*apiv1.OwnerUse {
	now, last := n.cfg.seams.Mono(), n.owners.Load()
	if last != nil && n.state.Load().Owners > manyOwners && now-last.at < ownersEvery {
		return last.uses
	}
	n.machine.TryView(func(t *fsm.Table) {
		_, top := t.Owners(shownOwners)
		uses := make([]*apiv1.OwnerUse, len(top))
		for i := range top {
			u := &top[i]
			uses[i] = &apiv1.OwnerUse{
				Owner: u.Owner, Sessions: uint64(u.Sessions), Grants: uint64(u.Grants), Waiters: uint64(u.Waiters),
				OnceRemembered: uint64(u.Once), EndedRemembered: uint64(u.Ended), TableBytes: u.Bytes,
			}
		}
		n.owners.Store(&ownersShown{uses, now})
	})
	if last = n.owners.Load(); last != nil {
		return last.uses
	}
	return nil
}

package cluster

import (
	"bytes"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// State says how gossip sees a peer.
type State uint8

const (
	// Alive peers answer probes.
	Alive State = iota + 1
	// Failed peers do not, or were stopped: they are expected to come back.
	Failed
	// Left peers said that they leave for good.
	Left
)

// String returns the lower-case name.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	}
	return "unknown"
}

// Peer is another node as gossip knows it.
type Peer struct {
	Meta
	Gossip string // host:port
	State  State
	Since  time.Time // local time at which this node saw the state begin
}

// maxGone bounds the failed and left peers that the table remembers, so that
// nodes which come and go under new names for years cannot fill the memory.
const maxGone = 1024

// maxAlive bounds the peers that this node takes in at one time: far more than a
// Raft cluster has, and few enough that a flood of made-up ones does no harm.
const maxAlive = 256

// table is what this node knows of its peers. memberlist forgets dead nodes
// after some seconds; the table does not, because membership needs to know for
// how long a member has been failed.
type table struct {
	self string

	mu      sync.Mutex
	peers   map[string]*entry // node ID → entry, without self
	changed chan struct{}     // closed and replaced at each change
	cluster string            // own cluster ID; peers of another one are hidden
}

type entry struct {
	peer Peer
	raw  []byte // as received, to see whether anything changed
}

func newTable(self string) *table {
	return &table{self: self, peers: make(map[string]*entry), changed: make(chan struct{})}
}

// alive records that n answers, with the meta it sends.
func (t *table) alive(n *memberlist.Node) {
	if n.Name == t.self {
		return
	}
	meta, err := decodeMeta(n.Meta)
	if err != nil {
		return // refused before by NotifyAlive; a peer without a valid meta is no peer
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	gossip := n.Address()
	e := t.peers[n.Name]
	if e == nil {
		e = &entry{}
		t.peers[n.Name] = e
	}
	if e.peer.State == Alive && e.peer.Gossip == gossip && bytes.Equal(e.raw, n.Meta) {
		return
	}
	since := e.peer.Since
	if e.peer.State != Alive {
		since = time.Now()
	}
	e.raw = bytes.Clone(n.Meta)
	e.peer = Peer{Meta: meta, Gossip: gossip, State: Alive, Since: since}
	t.changeLocked()
}

// full is true if one more alive peer would be too many.
func (t *table) full(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.peers[id]; e != nil && e.peer.State == Alive {
		return false
	}
	n := 0
	for _, e := range t.peers {
		if e.peer.State == Alive {
			n++
		}
	}
	return n >= maxAlive
}

// gone records that n failed or left. Which of the two is decided by the last
// meta: memberlist reports both alike, and also says "left" for a node that
// was merely stopped in good order and will be back.
func (t *table) gone(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[n.Name]
	if e == nil || e.peer.State != Alive {
		return
	}
	e.peer.State = Failed
	if e.peer.Leaving {
		e.peer.State = Left
	}
	e.peer.Since = time.Now()
	t.trimLocked()
	t.changeLocked()
}

// trimLocked forgets the peers that have been gone longest, beyond maxGone.
func (t *table) trimLocked() {
	var gone []*entry
	for _, e := range t.peers {
		if e.peer.State != Alive {
			gone = append(gone, e)
		}
	}
	if len(gone) <= maxGone {
		return
	}
	sort.Slice(gone, func(i, j int) bool { return gone[i].peer.Since.Before(gone[j].peer.Since) })
	for _, e := range gone[:len(gone)-maxGone] {
		delete(t.peers, e.peer.NodeID)
	}
}

func (t *table) setCluster(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cluster != id {
		t.cluster = id
		t.changeLocked()
	}
}

func (t *table) clusterID() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cluster
}

func (t *table) changeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *table) changes() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// list returns copies, sorted by node ID, of the peers that may belong to the
// same cluster as this node.
func (t *table) list() []Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := make([]Peer, 0, len(t.peers))
	for _, e := range t.peers {
		if !sameCluster(t.cluster, e.peer.ClusterID) {
			continue
		}
		peers = append(peers, e.peer)
	}
	sort.Slice(peers, func(i, j int) bool { return peers[i].NodeID < peers[j].NodeID })
	return peers
}

// peer returns one of the peers that list would return.
func (t *table) peer(id string) (Peer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[id]
	if e == nil || !sameCluster(t.cluster, e.peer.ClusterID) {
		return Peer{}, false
	}
	return e.peer, true
}

// sameCluster is true unless both IDs are known and differ.
func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

// touch wakes those who wait for changes.
func (t *table) touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changeLocked()
}

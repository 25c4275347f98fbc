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

	// Claims are the descriptions of processes that use this ID at other addresses while
	// the first address still counts as alive, the latest first. Mostly that is the same
	// node, restarted there a moment ago. If it was restarted more than once, peers that
	// missed a restart still gossip an address in between.
	Claims []Meta
}

// maxClaims bounds the claims that are kept of a peer.
const maxClaims = 8

// maxGone bounds the failed and left peers that the table remembers, so that
// nodes which come and go under new names for years cannot fill the memory.
const maxGone = 1024

// maxAlive bounds the alive peers while this node does not know the members, and maxOthers
// the alive peers that are no members once it does: more than join at one time, and few
// enough that a flood of made-up ones does no harm. Members are always accepted.
const (
	maxAlive  = 256
	maxOthers = 64
)

// table has the peers of this node. memberlist forgets dead nodes
// after some seconds; the table does not, because membership needs to know for
// how long a member has been failed.
type table struct {
	self string

	mu      sync.Mutex
	peers   map[string]*entry // node ID → entry, without self
	changed chan struct{}     // closed and replaced at each change
	own     Meta              // peers of another cluster are hidden
	members map[string]bool   // nil: not known
}

type entry struct {
	peer Peer
	raw  []byte // as received, to see whether anything changed

	elsewhere bool // a node of another cluster answers at its address
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
	var claims []Meta
	if e.peer.Gossip == gossip { // with a new address they are obsolete
		claims = e.peer.Claims
	}
	e.raw, e.elsewhere = bytes.Clone(n.Meta), false
	e.peer = Peer{Meta: meta, Gossip: gossip, State: Alive, Since: since, Claims: claims}
	t.changeLocked()
}

// claimed records the meta of another process that uses a peer's ID.
func (t *table) claimed(id string, raw []byte) {
	meta, err := decodeMeta(raw)
	if err != nil || meta.NodeID != id {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[id]
	if e == nil || len(e.peer.Claims) > 0 && e.peer.Claims[0] == meta || !sameCluster(t.own.ClusterID, meta.ClusterID) {
		return
	}
	claims := []Meta{meta} // a new one: the old one was handed out
	for _, c := range e.peer.Claims {
		if (c.API != meta.API || c.Raft != meta.Raft) && len(claims) < maxClaims {
			claims = append(claims, c)
		}
	}
	e.peer.Claims = claims
	t.changeLocked()
}

// full reports whether there is no room for one more alive peer. There always is for a
// member, and for the first peer at the address of a seed: others must not take the places
// of those that this node has to form or join a cluster with.
func (t *table) full(id, gossip string, seed bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.peers[id]; t.members[id] || e != nil && e.peer.State == Alive {
		return false
	}
	n, first := 0, true
	for _, e := range t.peers {
		if e.peer.State == Alive && !t.members[e.peer.NodeID] {
			n++
			first = first && e.peer.Gossip != gossip
		}
	}
	return n >= t.roomLocked() && (!seed || !first)
}

// roomLocked returns how many alive peers that are no members are accepted.
func (t *table) roomLocked() int {
	if t.members == nil {
		return maxAlive
	}
	return maxOthers
}

// room is roomLocked.
func (t *table) room() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.roomLocked()
}

// gone records that n failed or left. Which of the two is decided by the last
// meta: memberlist reports both alike, and reports "left" also for a node that was stopped
// in good order and will be back.
func (t *table) gone(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[n.Name]
	if e != nil {
		e.elsewhere = false // nobody answers any more
	}
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

// elsewhere records that a node of another cluster has a peer's address now. memberlist
// still reports the peer as alive, because something answers. It does not report its return
// if nothing else has changed; back does that.
func (t *table) elsewhere(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[n.Name]
	if e == nil || e.peer.State != Alive || e.peer.Gossip != n.Address() {
		return
	}
	e.peer.State, e.peer.Since, e.elsewhere = Failed, time.Now(), true
	t.changeLocked()
}

// back records that a peer is at its address again, after a node of another cluster was.
func (t *table) back(n *memberlist.Node) {
	t.mu.Lock()
	e := t.peers[n.Name]
	is := e != nil && e.elsewhere && e.peer.Gossip == n.Address()
	t.mu.Unlock()
	if is {
		t.alive(n)
	}
}

// trimLocked forgets the peers beyond maxGone that have been gone longest, members excepted.
func (t *table) trimLocked() {
	var gone []*entry
	for _, e := range t.peers {
		if e.peer.State != Alive && !t.members[e.peer.NodeID] {
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

func (t *table) setOwn(m Meta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	joined := t.own.ClusterID != m.ClusterID
	t.own = m
	if joined {
		t.changeLocked()
	}
}

func (t *table) ownMeta() Meta {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own
}

func (t *table) clusterID() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own.ClusterID
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
		if !sameCluster(t.own.ClusterID, e.peer.ClusterID) {
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
	if e == nil || !sameCluster(t.own.ClusterID, e.peer.ClusterID) {
		return Peer{}, false
	}
	return e.peer, true
}

// sameCluster is true unless both IDs are known and differ.
func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

func (t *table) setMembers(ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = make(map[string]bool, len(ids))
	for _, id := range ids {
		t.members[id] = true
	}
}

// isMember is true for all IDs while the members are not known.
func (t *table) isMember(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members == nil || t.members[id]
}

// forget drops the peers that are gone since before and are no members. One that is
// elsewhere is kept as long as something answers at its address, because memberlist would
// not report that it is back.
func (t *table) forget(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.members == nil {
		return
	}
	for id, e := range t.peers {
		if e.peer.State != Alive && !e.elsewhere && !t.members[id] && e.peer.Since.Before(before) {
			delete(t.peers, id)
			t.changeLocked()
		}
	}
}

// touch wakes those who wait for changes.
func (t *table) touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changeLocked()
}

package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Founders are the voters of a cluster that is about to be formed: node ID → address of its
// Raft, host:port at the time of the promise. A plain map has the same type for who keeps
// the promise on disk and knows nothing of this package.
type Founders map[string]string

// IDs returns the founders' node IDs in their order, which is the same on all nodes.
func (f Founders) IDs() []string { return slices.Sorted(maps.Keys(f)) }

const (
	hashSize  = 16   // bytes of a hash in the meta
	maxExpect = 1024 // far above what Raft can use
)

// Hash identifies founders: equal ones, and only they, have equal hashes. That of none is
// empty.
func (f Founders) Hash() string {
	if len(f) == 0 {
		return ""
	}
	h := sha256.New()
	for _, id := range f.IDs() {
		for _, s := range []string{id, f[id]} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(s)))
			h.Write(size[:])
			h.Write([]byte(s))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:hashSize])
}

// Action is what a node without Raft state should do next.
type Action uint8

const (
	// Wait for gossip to change; Reason says for what.
	Wait Action = iota + 1
	// Promise Founders: write the list to disk, then advertise its hash.
	Promise
	// Bootstrap Raft with exactly Founders, all of them voters.
	Bootstrap
	// Join the cluster of one of Through, by asking it.
	Join
)

// String returns the lower-case name.
func (a Action) String() string {
	switch a {
	case Wait:
		return "wait"
	case Promise:
		return "promise"
	case Bootstrap:
		return "bootstrap"
	case Join:
		return "join"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Candidate is the node that decides.
type Candidate struct {
	Meta
	// Promised is what is on disk, nil if nothing was ever promised.
	Promised Founders
	// Settled is true once all seeds have been tried.
	Settled bool
}

// Decision is what Agree found.
type Decision struct {
	Action   Action
	Founders Founders // Promise and Bootstrap
	Through  []Peer   // Join: formed peers that are alive
	// Intent is the hash to advertise from now on as [Meta.Intent], whatever
	// the action.
	Intent string
	Reason string // for people: why this action
}

// Agree decides how a node without Raft state gets into a cluster. It is a pure
// function of the node's own promise and of what gossip shows; call it again at
// each change. See the package documentation for the rule and why it is safe.
func Agree(self Candidate, peers []Peer) Decision {
	if len(self.Promised) > 0 {
		return agreePromised(self, peers)
	}
	if d, ok := agreeJoin(self, peers); ok {
		return d
	}
	switch {
	case self.ClusterID != "":
		return wait("", "this node was taken in by cluster %q; no member of it is seen", self.ClusterID)
	case self.Nonvoter:
		return wait("", "a nonvoter founds no cluster; no formed peer is seen")
	case self.Expect == 0:
		return wait("", "no formed peer is seen, and bootstrap-expect is not set")
	}
	founders, reason := foundersOf(self, peers)
	if reason != "" {
		return wait("", "%s", reason)
	}
	hash := founders.Hash()
	for _, p := range peers {
		if p.State == Alive && p.Promise != "" && p.Promise != hash {
			return wait("", "%s has promised to form a cluster with other nodes: %s", p.NodeID, startAgain)
		}
	}
	if self.Expect == 1 && !self.Settled {
		return wait(hash, "the seeds have not all been tried yet")
	}
	var missing []string
	for _, p := range peers {
		if founders.has(p.NodeID) && p.Intent != hash && p.Promise != hash {
			missing = append(missing, p.NodeID)
		}
	}
	if len(missing) > 0 {
		return wait(hash, "%s must see the same %d nodes", strings.Join(missing, ", "), self.Expect)
	}
	return Decision{Action: Promise, Founders: founders, Intent: hash,
		Reason: fmt.Sprintf("all %d nodes see one another", self.Expect)}
}

// startAgain is what an operator has to do about promises that contradict each other. The
// nodes cannot do it themselves: a founder that nobody sees now may already rely on the
// promise of one of them.
const startAgain = "stop the nodes that are not part of a cluster yet, delete their data directories (they hold no locks) and start them again"

// agreePromised decides for a node that has made a promise.
func agreePromised(self Candidate, peers []Peer) Decision {
	hash := self.Promised.Hash()
	bootstrap := Decision{Action: Bootstrap, Founders: self.Promised, Intent: hash}
	agreed := map[string]bool{self.NodeID: true}
	var broken []string
	for _, p := range peers {
		if !self.Promised.has(p.NodeID) {
			continue
		}
		switch {
		case p.Promise == hash && p.Formed:
			// Only a node that has seen all promises is formed.
			bootstrap.Reason = fmt.Sprintf("%s has formed the cluster that was promised", p.NodeID)
			return bootstrap
		case p.Promise == hash:
			agreed[p.NodeID] = true // also if it has failed since: a promise is kept
		case p.Promise != "" && p.State == Alive:
			broken = append(broken, p.NodeID)
		}
	}
	var missing []string
	for _, id := range self.Promised.IDs() {
		if !agreed[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		bootstrap.Reason = fmt.Sprintf("all %d founders have promised", len(self.Promised))
		return bootstrap
	}
	if len(broken) > 0 {
		return wait(hash, "%s has promised to form a cluster with other nodes: %s", strings.Join(broken, ", "), startAgain)
	}
	for _, p := range peers {
		if p.Formed && p.State == Alive {
			return wait(hash, "this node is bound by its promise to form a cluster with %s and cannot join the cluster of %s: to make it join, delete its data directory (it holds no locks)",
				strings.Join(missing, ", "), p.NodeID)
		}
	}
	return wait(hash, "waiting for the promise of %s", strings.Join(missing, ", "))
}

// agreeJoin looks for a cluster that exists. A formed peer that has failed still counts as
// evidence of its cluster, and so does one that was admitted and has no state yet: as long
// as this node remembers one, it forms no second cluster.
func agreeJoin(self Candidate, peers []Peer) (Decision, bool) {
	var through []Peer
	var silent []string
	ids := make(map[string]bool)
	for _, p := range peers {
		if (!p.Formed && p.ClusterID == "") || p.State == Left || p.Leaving {
			continue
		}
		if p.State != Alive || !p.Formed {
			silent = append(silent, p.NodeID)
			continue
		}
		through = append(through, p)
		if p.ClusterID != "" {
			ids[p.ClusterID] = true
		}
	}
	switch {
	case len(ids) > 1:
		return wait("", "gossip shows members of %d clusters; this node joins none of them until its seeds lead to one only", len(ids)), true
	case len(through) > 0:
		return Decision{Action: Join, Through: through, Reason: through[0].NodeID + " belongs to a cluster"}, true
	case len(silent) > 0:
		return wait("", "%s belongs to a cluster but cannot be asked", silent[0]), true
	}
	return Decision{}, false
}

// foundersOf returns the list that this node would promise, or why there is
// none yet.
func foundersOf(self Candidate, peers []Peer) (list Founders, reason string) {
	list = Founders{self.NodeID: self.Raft}
	var differ []string
	addr := map[string]string{self.Raft: self.NodeID}
	for _, p := range peers {
		if p.State != Alive || p.Leaving || p.Nonvoter || p.Expect == 0 {
			continue
		}
		if p.Expect != self.Expect {
			differ = append(differ, fmt.Sprintf("%s expects %d", p.NodeID, p.Expect))
			continue
		}
		if other, taken := addr[p.Raft]; taken {
			return nil, fmt.Sprintf("%s and %s both say that their Raft address is %s", other, p.NodeID, p.Raft)
		}
		addr[p.Raft] = p.NodeID
		list[p.NodeID] = p.Raft
	}
	switch {
	case len(differ) > 0:
		return nil, fmt.Sprintf("this node expects %d voters, but %s", self.Expect, strings.Join(differ, ", "))
	case len(list) < self.Expect:
		return nil, fmt.Sprintf("%d of %d fresh voters are seen", len(list), self.Expect)
	case len(list) > self.Expect:
		return nil, fmt.Sprintf("%d fresh voters are seen but only %d are expected: stop some, or raise bootstrap-expect on all", len(list), self.Expect)
	}
	return list, ""
}

func (f Founders) has(id string) bool {
	_, ok := f[id]
	return ok
}

func wait(intent, format string, args ...any) Decision {
	return Decision{Action: Wait, Intent: intent, Reason: fmt.Sprintf(format, args...)}
}

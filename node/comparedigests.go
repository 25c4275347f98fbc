package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/peerapi"
)

// ErrDiverged says that this node's lock table differs from that of a majority although
// both have applied the log up to the same index: its disk, its memory or its program has a
// fault. [Node.Err] returns it. The node has ended, and [Open] refuses its data directory:
// re-seed the node from the others, as the message says (see [Reseed]).
var ErrDiverged = errors.New("the node's state differs from that of a majority")

// Nodes compare their states: each asks all others, in intervals, for the digests of their
// states at some indexes of which it has its own.
//
// There is no false alarm. A digest is a chain over every entry applied up to its
// index, with the results and events of each; it reads nothing but the log. Raft
// gives all nodes of a cluster the same entries up to any index that one of them
// has applied, and only applied entries are in a digest. A checkpoint is taken
// with its index in one step, so it stays true while the node goes on, restarts or
// installs a snapshot, which contains its digest. Only checkpoints of exactly the
// same index are compared, and only with a peer whose answer names the member and the
// cluster that were meant. So a difference means that an entry, a result or the state
// before differed.
//
// A node stops only when a majority of the voters agrees on a digest at an index at which
// its own differs. So at most a minority can stop. Without such a majority a node only logs
// the difference: it cannot know which state is right.

const (
	compareEvery     = 10 * time.Second
	compareEveryFast = time.Second
	compareTimeout   = 2 * time.Second // for all peers to answer
)

// divergence records which peers have another state than this node.
type divergence struct {
	mu    sync.Mutex
	peers map[string]bool // those whose state was found to differ from this node's
}

// found reports whether the state of any peer differs from this node's.
func (d *divergence) found() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.peers) > 0
}

// difference is between this node and a peer.
type difference struct {
	peer        string
	equal       uint64 // the last index compared at which they were equal; 0: none
	index       uint64 // the first one at which they differ
	own, theirs uint64 // their digests there
}

// outvoted says that a majority of the voters agrees on another state than this
// node's.
type outvoted struct {
	index       uint64
	own, theirs uint64   // digests
	who         []string // the majority
}

// compareStates compares until ctx ends or this node has to stop. It is a
// goroutine of its own.
func (n *Node) compareStates(ctx context.Context) {
	every := compareEvery
	if n.cfg.Fast {
		every = compareEveryFast
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := n.compareOnce(ctx); err != nil {
			n.fail(err)
			return
		}
	}
}

// compareOnce returns an error if this node has to stop.
func (n *Node) compareOnce(ctx context.Context) error {
	own := n.checkpoints.some()
	servers, err := membership.Configuration(n.raft.Load())
	if err != nil {
		return nil // there is nobody to compare with
	}
	var members, voters []string
	for _, s := range servers {
		members = append(members, string(s.ID))
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	states := n.askDigests(ctx, members, slices.Sorted(maps.Keys(own)))
	states[n.id] = own
	n.logDifferences(members, states)
	o := judge(n.id, voters, states)
	if o == nil {
		return nil
	}
	reason := fmt.Sprintf("at log index %d the digest of its state was %016x, and that of %s was %016x",
		o.index, o.own, strings.Join(o.who, ", "), o.theirs)
	// From here on the directory is refused: what it holds may be wrong for good.
	err = n.stores.UpdateIdentity(func(id *disk.Identity) { id.Diverged = reason })
	return errors.Join(fmt.Errorf("%w: %s; %s", ErrDiverged, reason, disk.ReseedHint(n.cfg.DataDir)), err)
}

// askDigests asks the other members for the digests of their states.
func (n *Node) askDigests(ctx context.Context, members []string, indexes []uint64) map[string]map[uint64]uint64 {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	states := make(map[string]map[uint64]uint64)
	var mu sync.Mutex // guards states
	var asked sync.WaitGroup
	for _, id := range members {
		if id == n.id {
			continue
		}
		asked.Go(func() {
			if state := n.digestsOf(ctx, id, indexes); len(state) > 0 {
				mu.Lock()
				defer mu.Unlock()
				states[id] = state
			}
		})
	}
	asked.Wait()
	return states
}

// digestsOf returns nil for a node that does not answer, or is not the one that was meant.
func (n *Node) digestsOf(ctx context.Context, id string, indexes []uint64) map[uint64]uint64 {
	peer, err := n.peers.peer(id)
	if err != nil {
		return nil
	}
	res, err := peer.Digests(ctx, &peerapi.DigestsRequest{Indexes: indexes})
	if err != nil || res.GetNodeId() != id || res.GetClusterId() == "" || res.GetClusterId() != n.clusterID() {
		return nil
	}
	state := make(map[uint64]uint64)
	for _, c := range res.GetCheckpoints() {
		state[c.GetIndex()] = c.GetDigest()
	}
	return state
}

// logDifferences counts the comparisons, and logs once for each peer that its state differs.
func (n *Node) logDifferences(members []string, states map[string]map[uint64]uint64) {
	for id, state := range states {
		if id == n.id {
			continue
		}
		d, compared := differenceOf(id, states[n.id], state)
		if !compared {
			continue
		}
		n.metrics.comparisons.Inc()
		if !n.divergence.note(id, d != nil) || d == nil {
			continue
		}
		n.log.Error("two nodes are in different states at the same place of the log",
			"peer", id, "index", d.index, "digest", fmt.Sprintf("%016x", d.own), "peer_digest", fmt.Sprintf("%016x", d.theirs),
			"equal_until", d.equal,
			"next", "one that differs from a majority stops by itself; if none does, compare the digests in \"locknode status -o json\" of all nodes, stop the one that is wrong and re-seed it")
	}
	n.divergence.keep(members)
}

// note records whether a peer's state differs. It reports whether that is new.
func (d *divergence) note(peer string, differs bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers[peer] == differs {
		return false
	}
	if !differs {
		delete(d.peers, peer)
		return true
	}
	if d.peers == nil {
		d.peers = make(map[string]bool)
	}
	d.peers[peer] = true
	return true
}

// keep drops peers that are no members any more.
func (d *divergence) keep(members []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.peers, func(id string, _ bool) bool { return !slices.Contains(members, id) })
}

// differenceOf compares this node's checkpoints with a peer's: d is nil if they
// agree, and compared false if they have no index in common.
func differenceOf(peer string, own, theirs map[uint64]uint64) (d *difference, compared bool) {
	equal := uint64(0)
	for _, index := range slices.Sorted(maps.Keys(own)) {
		digest, both := theirs[index]
		switch {
		case !both:
		case digest == own[index]:
			equal, compared = index, true
		default:
			return &difference{peer: peer, equal: equal, index: index, own: own[index], theirs: digest}, true
		}
	}
	return nil, compared
}

// judge returns nil unless a majority of the voters agrees, at some index that all
// of them and this node know, on a digest that is not this node's.
func judge(self string, voters []string, states map[string]map[uint64]uint64) *outvoted {
	for _, index := range slices.Sorted(maps.Keys(states[self])) {
		own := states[self][index]
		agree := make(map[uint64][]string) // digest → voters
		for _, id := range voters {
			if digest, known := states[id][index]; known {
				agree[digest] = append(agree[digest], id)
			}
		}
		for digest, who := range agree {
			if digest != own && len(who) > len(voters)/2 {
				return &outvoted{index: index, own: own, theirs: digest, who: who}
			}
		}
	}
	return nil
}

// checkDigests bounds what a peer may ask for.
func checkDigests(req *peerapi.DigestsRequest) error {
	if n := len(req.GetIndexes()); n > maxDigestIndexes {
		return apiv1.NewError(apiv1.CodeInvalid, "indexes: are %d, must be at most %d", n, maxDigestIndexes)
	}
	return nil
}

// Digests answers a peer that compares states.
func (n wire) Digests(_ context.Context, req *peerapi.DigestsRequest) (*peerapi.DigestsResponse, error) {
	if err := checkDigests(req); err != nil {
		return nil, err
	}
	res := &peerapi.DigestsResponse{NodeId: n.id, ClusterId: n.clusterID()}
	for _, c := range n.checkpoints.at(req.GetIndexes()) {
		res.Checkpoints = append(res.Checkpoints, &peerapi.Checkpoint{Index: c.index, Digest: c.digest})
	}
	return res, nil
}

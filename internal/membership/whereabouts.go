package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/peerapi"
)

// Where is a member? Raft's configuration has the address of its Raft. The process that
// answers there under its ID, as a member of this cluster, is the member, and says where
// calls reach it. That is its home. Gossip has an address of the member as well, but
// strangers can write to gossip. So an address in gossip is tried only when the member does
// not answer at home, and it has to be shown in the same way that the member is there.
//
// As long as all addresses agree, the member is not asked. When gossip, or a process in a
// handshake, names another address than the home does, the home is asked again, at most
// once in times.home, on a goroutine of its own.

// homeState is what is known of a member's home.
type homeState uint8

const (
	homeUnknown homeState = iota // it was not asked yet
	homeThere                    // the member answers there
	homeGone                     // it does not
)

// homeSilences is how many questions in a row must get no answer before a member counts as
// gone from its home. A refusal, or an answer under another ID, counts at once. But a busy
// node is only slow, and an address in gossip must not replace its home.
const homeSilences = 3

// home is the answer from the place where the configuration has a member.
type home struct {
	place    string // that was asked
	state    homeState
	api      string // that the member named there
	silences int    // the last questions that got no answer in time
	asked    time.Time
	asking   bool
}

// homes remembers the answers. Its methods are safe for concurrent use.
type homes struct {
	ask   func(ctx context.Context, id, place string) (api string, err error)
	start func(f func()) bool // runs f on a goroutine of its own, unless the manager is closed
	every time.Duration       // between two questions to one member

	mu sync.Mutex
	of map[string]*home // guarded by mu: member ID → what is known
}

// maxHomes bounds what is remembered of nodes that are no longer members.
const maxHomes = 1024

// look returns what is known of a member's home, and starts a goroutine that asks there if
// that is old.
func (h *homes) look(id, place string) home {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.knownLocked(id, place)
	if !known.asking && (known.state == homeUnknown || time.Since(known.asked) >= h.every) {
		known.asking = h.start(func() { h.now(context.Background(), id, place) })
	}
	return *known
}

func (h *homes) knownLocked(id, place string) *home {
	known := h.of[id]
	if known == nil || known.place != place {
		if h.of == nil || len(h.of) >= maxHomes {
			h.of = make(map[string]*home)
		}
		known = &home{place: place}
		h.of[id] = known
	}
	return known
}

// now asks at a member's home, whatever is known.
func (h *homes) now(ctx context.Context, id, place string) home {
	api, err := h.ask(ctx, id, place)
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.knownLocked(id, place)
	known.asking, known.asked = false, time.Now()
	switch {
	case err == nil:
		known.state, known.api, known.silences = homeThere, api, 0
	case timedOut(err) && known.silences+1 < homeSilences:
		known.silences++
	default:
		known.state, known.api, known.silences = homeGone, "", 0
	}
	return *known
}

// timedOut reports whether a question failed only because no answer came in time.
func timedOut(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
}

// homeOf returns the address of a member in the configuration.
func (m *Manager) homeOf(id string) (place string, ok bool) {
	r := m.cfg.Raft()
	if r == nil {
		return "", false
	}
	s, ok := Find(Servers(r), id)
	return Place(s), ok
}

// APIAddresses returns the API addresses at which a node may be, the likeliest first.
//
// For a member of the configuration it is the one that it names at home. If it does not
// answer there, it is the one that it has named where Raft reaches it now; and if Raft does
// not reach it either, all that are known, also from gossip. While that is being found out,
// it is the one that it has named to Raft. For other nodes, and before there is a
// configuration, there is only gossip. The address of a failed node is among them, because
// gossip may be wrong.
func (m *Manager) APIAddresses(id string) []string {
	said := m.cfg.SaidAPI(id)
	all := m.apiHints(id, said)
	if id == m.cfg.ID || said != "" && len(all) == 1 {
		return all // all addresses agree
	}
	place, ok := m.homeOf(id)
	if !ok {
		return all
	}
	switch h := m.homes.look(id, place); {
	case h.state == homeThere && h.api != "":
		return []string{h.api}
	case h.state == homeGone && (said == "" || !m.raftHears(id)):
		return all
	case said != "":
		return []string{said}
	}
	return nil
}

// apiHints returns all API addresses that Raft or gossip has for a node.
func (m *Manager) apiHints(id, said string) (addrs []string) {
	p, _ := m.cfg.Gossip.Peer(id)
	add := func(api string) {
		if api != "" && !slices.Contains(addrs, api) {
			addrs = append(addrs, api)
		}
	}
	add(said)
	add(p.API)
	for _, c := range p.Claims {
		add(c.API)
	}
	return addrs
}

// raftHears reports whether Raft has just heard a member: a follower that answers this
// node, or the leader that this node follows.
func (m *Manager) raftHears(id string) bool {
	r := m.cfg.Raft()
	if r == nil {
		return false
	}
	if r.State() == raft.Leader {
		return m.hears(id)
	}
	_, leader := r.LeaderWithID()
	return string(leader) == id && time.Since(r.LastContact()) <= silentAfter*m.cfg.Timing
}

// RaftAddresses implements [network.Addresses]: Raft tries a member at its address in the
// configuration, which Raft adds by itself. If the member does not answer there, Raft tries
// the address at which gossip sees it alive, and then those that the member announces while
// gossip still has the old one. So a cluster whose members all came back at other addresses
// forms again and can then write the addresses to the configuration.
func (m *Manager) RaftAddresses(id raft.ServerID) []string {
	hints := m.raftHints(string(id))
	place, ok := m.homeOf(string(id))
	if !ok {
		return hints
	}
	hints = slices.DeleteFunc(hints, func(addr string) bool { return addr == place })
	if len(hints) == 0 || m.homes.look(string(id), place).state != homeGone {
		return nil
	}
	return hints
}

// raftHints returns the addresses that gossip has for a node's Raft.
func (m *Manager) raftHints(id string) (addrs []string) {
	p, ok := m.cfg.Gossip.Peer(id)
	if ok && p.State == cluster.Alive && p.Formed && p.Raft != "" {
		addrs = append(addrs, p.Raft)
	}
	for _, c := range p.Claims {
		if c.Formed && c.Raft != "" && !slices.Contains(addrs, c.Raft) {
			addrs = append(addrs, c.Raft)
		}
	}
	return addrs
}

// askSelf asks a node at an API address what it is. It returns an error if another node
// answers, or none does in time.
func (m *Manager) askSelf(ctx context.Context, id, api string) (*peerapi.SelfResponse, error) {
	if api == "" {
		return nil, fmt.Errorf("ask node %q: its API address is not known", id)
	}
	cc, err := m.cfg.Conn(id, api)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.call)
	defer cancel()
	res, err := peerapi.NewPeersClient(cc).Self(ctx, &peerapi.SelfRequest{})
	switch own := m.cfg.ClusterID(); {
	case err != nil:
		return nil, fmt.Errorf("ask node %q at %s: %w", id, api, err)
	case res.GetNodeId() != id:
		return nil, fmt.Errorf("ask node %q at %s: the node there is %q", id, api, res.GetNodeId())
	case own != "" && res.GetClusterId() != "" && res.GetClusterId() != own:
		return nil, fmt.Errorf("ask node %q at %s: the node there belongs to cluster %q, not to %q", id, api, res.GetClusterId(), own)
	}
	return res, nil
}

// askMember is askSelf at the address that is known for the member.
func (m *Manager) askMember(ctx context.Context, id string) (*peerapi.SelfResponse, error) {
	return m.askSelf(ctx, id, m.cfg.Find(id))
}

// Self is what this node says of itself; the node adds what it knows of its Raft.
func (m *Manager) Self() *peerapi.SelfResponse {
	meta := m.cfg.Gossip.Meta()
	return &peerapi.SelfResponse{
		NodeId: m.cfg.ID, ClusterId: m.cfg.ClusterID(), RaftAddress: meta.Raft, ApiAddress: meta.API,
		Nonvoter: meta.Nonvoter, Formed: meta.Formed, Expect: uint32(meta.Expect), Intent: meta.Intent, Promise: meta.Promise, //nolint:gosec // small
		FeatureLevel: m.cfg.Levels.Agreed,
	}
}

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

// Where is a member? Raft's configuration has the address of its Raft, and whoever answers
// there under its ID, as a member of this cluster, is the member, and says where calls
// reach it. That is its home. Gossip says where a member is, too, and anybody may speak in
// gossip; so what it says is looked at only when the member does not answer at home. Where
// it is then, has to be shown in the same way.
//
// As long as nobody disagrees, nobody is asked. When gossip, or somebody who has shaken
// hands, names another place than the home does, the home is asked again, once in homeEvery
// at most, beside those who want to know.

// homeState is what is known of a member's home.
type homeState uint8

const (
	homeUnknown homeState = iota // it was not asked yet
	homeThere                    // the member answers there
	homeGone                     // it does not
)

// homeSilences is how many questions in a row have to stay without any answer before a
// member counts as gone from its home. Whoever refuses, or answers as somebody else, is gone
// at once; but a busy node only is slow, and what gossip says must not take its place.
const homeSilences = 3

// home is the answer from the place where the configuration has a member.
type home struct {
	place    string // that was asked
	state    homeState
	api      string // that the member named there
	silences int    // the last questions that nobody has answered in time
	asked    time.Time
	asking   bool
}

// homes remembers the answers. Its methods are safe for concurrent use.
type homes struct {
	ask   func(ctx context.Context, id, place string) (api string, err error)
	start func(f func()) bool // runs f on a goroutine of its own, unless all ends
	every time.Duration       // between two questions to one member

	mu sync.Mutex
	of map[string]*home // guarded by mu: member ID → what is known
}

// maxHomes bounds what is remembered of those who are members no more.
const maxHomes = 1024

// look returns what is known of a member's home, and asks there beside the caller if that
// is old.
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

// homeOf is where the configuration has a member.
func (m *Manager) homeOf(id string) (place string, ok bool) {
	r := m.cfg.Raft()
	if r == nil {
		return "", false
	}
	s, ok := Find(Servers(r), id)
	return Place(s), ok
}

// APIAddresses are the API addresses at which a node may be, the likeliest first.
//
// Of a member of the configuration: the one that it names at home. If it does not answer
// there, the one that it has named where Raft reaches it now; and if Raft does not either,
// all that are known, also from gossip. While it is being found out, the one that it has
// named to Raft. Of others, and before there is a configuration, there is only gossip.
// A failed node's address is given: it may be gossip that is wrong.
func (m *Manager) APIAddresses(id string) []string {
	said := m.cfg.SaidAPI(id)
	all := m.apiHints(id, said)
	if id == m.cfg.ID || said != "" && len(all) == 1 {
		return all // nobody disagrees
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

// apiHints are all API addresses that are said to be a node's.
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

// RaftAddresses implements [network.Addresses]: Raft looks for a member where the
// configuration has it, which Raft adds by itself. If it does not answer there, Raft looks
// where gossip sees it alive, then where the member says to be while gossip still believes
// that it is where it was. So a cluster whose members all came back at other addresses
// finds itself again and can then write the addresses down.
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

// raftHints are the addresses at which gossip has a node's Raft.
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

// askSelf has a node say what it is, at an API address. The error says why it is not the
// one that is asked for, or has not answered in time.
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

// askMember is askSelf where the member is known to be.
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

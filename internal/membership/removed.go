package membership

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/peerapi"
)

// Was this node removed? A member that is removed gets no message about it, it only gets
// nothing any more. So a node that no leader has contacted for a while asks the others.

// place is a node and the API address at which it is asked.
type place struct{ id, api string }

// RemovedBy returns the leader that reports that this node was removed, and "" if none does,
// or it is not time to ask: a leader has just made contact, this node leads, or there is no
// configuration yet. One goroutine calls it repeatedly. It returns a name only the second
// time that the same leader reports it: the first time the change may not be committed yet,
// and be lost.
func (m *Manager) RemovedBy(ctx context.Context) string {
	before := m.removedBy
	m.removedBy = ""
	r := m.cfg.Raft()
	if r == nil || m.leading() || time.Since(r.LastContact()) < max(time.Second, 5*m.cfg.Timing) || len(Servers(r)) == 0 {
		return ""
	}
	for _, p := range m.whoMayLead(ctx, r) {
		if !m.saysRemoved(ctx, p) {
			continue
		}
		if m.removedBy = p.id; before == p.id {
			return p.id
		}
		return ""
	}
	return ""
}

// whoMayLead returns the nodes that can report that this node was removed, and their
// addresses: the members that answer at home, and those that they name as the leader. A
// stranger can name a leader in gossip, so leaders in gossip are asked only if every member
// is gone from its home.
func (m *Manager) whoMayLead(ctx context.Context, r Configured) (places []place) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var slow atomic.Bool // a member may be at home, and has not answered yet
	add := func(at place) {
		mu.Lock()
		defer mu.Unlock()
		if at.api != "" && at.id != m.cfg.ID && !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	for _, s := range Servers(r) {
		if string(s.ID) == m.cfg.ID {
			continue
		}
		wg.Go(func() {
			id := string(s.ID)
			h := m.homes.now(ctx, id, Place(s))
			if h.state != homeThere {
				slow.CompareAndSwap(false, h.state != homeGone)
				return
			}
			add(place{id, h.api})
			cc, err := m.cfg.Conn(id, h.api)
			if err != nil {
				return
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if res, err := apiv1.NewLocksClient(cc).Status(ctx, &apiv1.StatusRequest{}); err == nil && res.GetLeaderId() != "" {
				add(place{res.GetLeaderId(), res.GetLeaderAddress()})
			}
		})
	}
	wg.Wait()
	if len(places) > 0 || slow.Load() {
		return places
	}
	for _, p := range m.cfg.Gossip.Peers() {
		if p.State == cluster.Alive && p.Formed {
			add(place{p.NodeID, p.API})
		}
	}
	return places
}

// saysRemoved asks a node whether it leads and no longer has this one in its configuration.
// It answers from memory; a read round after that shows that it really led.
func (m *Manager) saysRemoved(ctx context.Context, at place) bool {
	cc, err := m.cfg.Conn(at.id, at.api)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	res, err := apiv1.NewLocksClient(cc).Members(ctx, &apiv1.MembersRequest{})
	if err != nil || !removedFrom(res, at.id, m.cfg.ID) {
		return false
	}
	_, err = peerapi.NewPeersClient(cc).ReadIndex(ctx, &peerapi.ReadIndexRequest{})
	return err == nil
}

// removedFrom reports whether from says that it leads, and its configuration lacks id. A
// node that does not lead may be about to get a newer one.
func removedFrom(res *apiv1.MembersResponse, from, id string) bool {
	led := false
	for _, m := range res.GetMembers() {
		if m.GetId() == id && m.GetRole() != "none" {
			return false
		}
		led = led || m.GetRole() == "leader" && m.GetId() == from
	}
	return led
}

package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
)

// What happens when a member has another address? It is asked itself, and its answer is
// written to the configuration.

// followAddresses writes changed addresses into the configuration, one change
// after the other. Gossip says whose has changed, and the member itself what it is.
func (m *Manager) followAddresses(ctx context.Context) {
	own := m.cfg.ClusterID()
	r := m.cfg.Raft()
	if r == nil {
		return
	}
	for _, s := range Servers(r) {
		id, place := string(s.ID), Place(s)
		addr := m.cfg.Gossip.Meta().Raft
		if id != m.cfg.ID {
			p, ok := m.cfg.Gossip.Peer(id)
			if !ok || p.State != cluster.Alive || !p.Formed || own == "" || p.ClusterID != own {
				continue
			}
			addr = p.Raft
		}
		if addr == "" || addr == place || ctx.Err() != nil {
			continue
		}
		if id != m.cfg.ID {
			var err error
			if addr, err = m.movedTo(ctx, id, place, addr); err != nil {
				m.cfg.Logger.Debug("gossip says that a member has moved, and it has not said so itself", "peer", id, "err", err)
				continue
			}
		}
		if err := m.move(ctx, id, addr); err != nil && ctx.Err() == nil {
			m.warnOnce("move "+id, "address change of a member not followed", "peer", id, "raft", addr, "err", err)
		} else {
			m.warnAgain("move " + id)
		}
	}
}

// move changes the address of a member and nothing else of it. Another member may
// have the same one, and be about to get another: see [network.MemberAddress].
func (m *Manager) move(ctx context.Context, id, addr string) error {
	return m.alter(ctx, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := Find(servers, id)
		if !ok || Place(s) == addr {
			return nil, nil
		}
		m.cfg.Logger.Info("member has a new address", "peer", id, "raft", addr, "before", Place(s))
		// For a member this changes the address only, and never gives a vote.
		return r.AddNonvoter(s.ID, network.MemberAddress(id, addr), 0, m.times.change), nil
	})
}

// errNotMoved says that a member is where the configuration has it.
var errNotMoved = errors.New("it is where it was")

// movedTo returns the new address of a member's Raft, of which gossip has said that it is
// another one than place. It has to come from the member itself: from where the
// configuration has it, if it answers there, and otherwise from where Raft or gossip have
// it; and the member has to answer there under its ID.
func (m *Manager) movedTo(ctx context.Context, id, place, hint string) (addr string, err error) {
	h := m.homes.now(ctx, id, place)
	var apis []string
	if h.state == homeThere {
		apis = []string{h.api}
	} else {
		if said := m.cfg.SaidAPI(id); said != "" {
			apis = append(apis, said)
		}
		var api string
		if api, err = m.cfg.Ask(ctx, id, hint); err == nil && !slices.Contains(apis, api) {
			apis = append(apis, api)
		}
	}
	for _, api := range apis {
		res, failed := m.askSelf(ctx, id, api)
		if err = failed; err == nil {
			addr = res.GetRaftAddress()
			break
		}
	}
	switch {
	case addr == "" && err == nil:
		return "", fmt.Errorf("node %q does not say where it is", id)
	case err != nil:
		return "", err
	case addr == place:
		return "", errNotMoved
	}
	if _, err := m.cfg.Ask(ctx, id, addr); err != nil {
		return "", err
	}
	return addr, nil
}

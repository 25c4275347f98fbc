package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/membership"
)

// How does an operator have a node read its files again?

// reload is what [Config.Reload] returns; without it the node reads its certificates.
func (n *Node) reload(ctx context.Context) []client.ReloadedItem {
	if n.cfg.Reload != nil {
		return n.cfg.Reload(ctx)
	}
	if n.security.source == nil {
		return nil
	}
	return []client.ReloadedItem{n.ReloadedCertificates()}
}

// HasCertificates reports whether the node uses TLS.
func (n *Node) HasCertificates() bool { return n.security.source != nil }

// ReloadedCertificates is [Node.ReloadCertificates] for an answer of [Config.Reload].
func (n *Node) ReloadedCertificates() client.ReloadedItem {
	item := client.ReloadedItem{What: "certificates"}
	if n.security.source == nil {
		return item
	}
	before := n.security.source.State().ReadAt
	if err := n.ReloadCertificates(); err != nil {
		item.Refused = err.Error()
	}
	item.Changed = !n.security.source.State().ReadAt.Equal(before)
	return item
}

// Reload has a member read its files again, or all of them.
func (n wire) Reload(ctx context.Context, req *apiv1.ReloadRequest) (*apiv1.ReloadResponse, error) {
	req.Who = n.whoAsks(req.GetWho())
	if id := req.GetMember(); !req.GetAllMembers() && (id == "" || id == n.id) {
		return &apiv1.ReloadResponse{Members: []*apiv1.ReloadedMember{n.reloadSelf(ctx, req.GetWho())}}, nil
	}
	r := n.raft.Load()
	if r == nil {
		return nil, n.unavailable()
	}
	if id := req.GetMember(); !req.GetAllMembers() {
		if _, is := membership.Find(membership.Servers(r), id); !is {
			return nil, apiv1.NewError(apiv1.CodeNoMember, "reload: there is no member %.100q", id)
		}
	}
	var mu sync.Mutex
	res := &apiv1.ReloadResponse{}
	n.onMembers(ctx, func(ctx context.Context, id string) {
		if !req.GetAllMembers() && id != req.GetMember() {
			return
		}
		m := n.reloadMember(ctx, id, req.GetWho())
		mu.Lock()
		defer mu.Unlock()
		res.Members = append(res.Members, m)
	})
	slices.SortFunc(res.Members, func(a, b *apiv1.ReloadedMember) int { return strings.Compare(a.GetId(), b.GetId()) })
	return res, nil
}

func (n *Node) reloadSelf(ctx context.Context, who string) *apiv1.ReloadedMember {
	own := &apiv1.ReloadedMember{Id: n.id}
	for _, i := range n.reload(ctx) {
		own.Items = append(own.Items, &apiv1.ReloadedItem{What: i.What, Changed: i.Changed, Detail: i.Detail, Refused: i.Refused})
	}
	n.log.Info("files were read again for an operator", "who", who)
	return own
}

// reloadMember has one member do it.
func (n *Node) reloadMember(ctx context.Context, id, who string) *apiv1.ReloadedMember {
	if id == n.id {
		return n.reloadSelf(ctx, who)
	}
	res, err := n.reloadOther(ctx, id, who)
	switch {
	case err != nil:
		return &apiv1.ReloadedMember{Id: id, Fault: err.Error()}
	case len(res.GetMembers()) != 1:
		return &apiv1.ReloadedMember{Id: id, Fault: "it has not said what it has done"}
	}
	return res.GetMembers()[0]
}

func (n *Node) reloadOther(ctx context.Context, id, who string) (*apiv1.ReloadResponse, error) {
	at := n.peers.find(id)
	if at.api == "" {
		return nil, fmt.Errorf("node %q: its API address is not known", id)
	}
	cc, err := n.peers.conn(at.id, at.api)
	if err != nil {
		return nil, err
	}
	return apiv1.NewLocksClient(cc).Reload(ctx, &apiv1.ReloadRequest{Who: who})
}

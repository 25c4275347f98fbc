//nolint:revive // the methods are the calls of locknode.proto, which describes them
package server

import (
	"context"
	"net/netip"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// The calls of an operator that concern nodes.

func (l *locks) ListGossipKeys(ctx context.Context, r *apiv1.ListGossipKeysRequest) (*apiv1.ListGossipKeysResponse, error) {
	return operate(ctx, l, access{call: "ListGossipKeys", right: fsm.RightAdmin}, nil, func() (*apiv1.ListGossipKeysResponse, error) {
		return l.server.backend.ListGossipKeys(ctx, r)
	})
}

func (l *locks) ChangeGossipKeys(ctx context.Context, r *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error) {
	return operate(ctx, l, access{call: "ChangeGossipKeys", right: fsm.RightAdmin}, func(e *Event, done *apiv1.ChangeGossipKeysResponse) {
		e.Names = gossipKeyChange(r, done.GetFingerprint())
	}, func() (*apiv1.ChangeGossipKeysResponse, error) {
		if len(r.GetInstall()) > 0 && !secret(grpcConn(ctx)) {
			return nil, apiv1.NewError(apiv1.CodeDenied, "install: the key came in plain text from another machine, must come in TLS; choose another key")
		}
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.ChangeGossipKeys(ctx, r)
	})
}

// gossipKeyChange is what an event about a change of keys names: what is done, and the fingerprint
// of the key, never the key.
func gossipKeyChange(r *apiv1.ChangeGossipKeysRequest, fingerprint string) []string {
	what := "install"
	switch {
	case r.GetGenerate():
		what = "generate"
	case r.GetUse() != "":
		what, fingerprint = "use", r.GetUse()
	case r.GetRemove() != "":
		what, fingerprint = "remove", r.GetRemove()
	}
	if fingerprint == "" {
		return []string{what}
	}
	return []string{what, fingerprint}
}

func (l *locks) Reload(ctx context.Context, r *apiv1.ReloadRequest) (*apiv1.ReloadResponse, error) {
	return operate(ctx, l, access{call: "Reload", right: fsm.RightAdmin}, func(e *Event, _ *apiv1.ReloadResponse) {
		if e.Names = []string{r.GetMember()}; r.GetAllMembers() {
			e.Names = []string{"all members"}
		}
	}, func() (*apiv1.ReloadResponse, error) {
		r.Who = l.server.who(ctx, r.GetWho())
		return l.server.backend.Reload(ctx, r)
	})
}

// secret reports whether a connection may carry what nobody else must read: it is in TLS, or it does
// not leave the machine.
func secret(c *limitedConn) bool {
	if c.inTLS() {
		return true
	}
	if c == nil {
		return false
	}
	at, err := netip.ParseAddrPort(c.Conn.RemoteAddr().String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

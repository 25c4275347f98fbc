package server

import (
	"context"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// Addresses are used again: a container gets the address of one that has ended. So nodes,
// and clients that know their cluster, name in headers the node or cluster that a call is
// meant for, and a node that is another one refuses the call. A call without these headers
// is not checked.

// misdirected returns why a call is not for this node, or nil.
func (s *Server) misdirected(ctx context.Context) *apiv1.Error {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return nil
	}
	member, cluster := md.Get(mux.MemberHeader), md.Get(mux.ClusterHeader)
	if len(member) == 0 && len(cluster) == 0 {
		return nil
	}
	ownMember, ownCluster := s.cfg.Self()
	for _, id := range member {
		if ownMember != "" && id != ownMember {
			return apiv1.NewError(apiv1.CodeUnavailable, "the node here is %q, not %q; nothing was done", ownMember, id)
		}
	}
	for _, id := range cluster {
		if ownCluster != "" && id != ownCluster {
			return apiv1.NewError(apiv1.CodeUnavailable, "the node here belongs to cluster %s, not to %s; nothing was done", ownCluster, id)
		}
	}
	return nil
}

// wrongNode is the trailer of calls that misdirected refuses.
func wrongNode() metadata.MD { return metadata.Pairs(mux.WrongNodeTrailer, "1") }

package server

import (
	"context"
	"net"
	"slices"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// Acquires that wait hold connections, and places on connections, for as long as they
// wait. A quarter of both is kept for whoever comes to free what they wait for: an
// acquire that would take the last of the rest is refused, and nothing else is.

// shareOf is how much of a limit may be taken by what waits.
func shareOf(limit int) int { return max(limit*3/4, 1) }

// startWait counts one more acquire, or batch of them, that waits on the connection. It
// is refused if too many connections of its address, or in all, have any. A nil conn
// counts nothing.
func (c *limitedConn) startWait() *apiv1.Error {
	if c == nil {
		return nil
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.waits == 0 {
		if n := l.waitingByIP[c.ip]; n >= shareOf(l.perIP) {
			return apiv1.NewError(apiv1.CodeOverloaded, "acquires wait on %d connections from %s, and no more than %d may: the others are for what frees locks; nothing was done", n, c.ip, shareOf(l.perIP))
		}
		if l.waiting >= shareOf(l.total) {
			return apiv1.NewError(apiv1.CodeOverloaded, "acquires wait on %d connections, and no more than %d may: the others are for what frees locks; nothing was done", l.waiting, shareOf(l.total))
		}
		l.waiting++
		l.waitingByIP[c.ip]++
	}
	c.waits++
	return nil
}

// endWait says that one of them does not wait any more.
func (c *limitedConn) endWait() {
	if c == nil {
		return
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.waits--; c.waits > 0 {
		return
	}
	l.waiting--
	if l.waitingByIP[c.ip]--; l.waitingByIP[c.ip] == 0 {
		delete(l.waitingByIP, c.ip)
	}
}

// startCall is startWait for a call that takes one of the connection's places.
func (c *limitedConn) startCall(places int) *apiv1.Error {
	if c == nil {
		return nil
	}
	c.listener.mu.Lock()
	n := c.calls
	if n < shareOf(places) {
		c.calls++
	}
	c.listener.mu.Unlock()
	if n >= shareOf(places) {
		return apiv1.NewError(apiv1.CodeOverloaded, "%d calls of this connection wait, and no more than %d may: the others are for what frees locks; a Session stream takes more; nothing was done", n, shareOf(places))
	}
	refusal := c.startWait()
	if refusal != nil {
		c.endPlace()
	}
	return refusal
}

// endCall says that such a call is over.
func (c *limitedConn) endCall() {
	c.endPlace()
	c.endWait()
}

func (c *limitedConn) endPlace() {
	if c == nil {
		return
	}
	c.listener.mu.Lock()
	c.calls--
	c.listener.mu.Unlock()
}

// mayWait reports whether a request of a unary call may stand in line.
func mayWait(request any) bool {
	switch r := request.(type) {
	case *apiv1.AcquireRequest:
		return r.GetWaitNs() != 0
	case *apiv1.BatchRequest:
		for _, op := range r.GetOperations() {
			if mux.MayWait(op) {
				return true
			}
		}
	}
	return false
}

// grpcConn is the connection that a call came on, nil if it is not known.
func grpcConn(ctx context.Context) *limitedConn {
	if p, ok := peer.FromContext(ctx); ok {
		if addr, ok := p.Addr.(connAddr); ok {
			return addr.conn
		}
	}
	return nil
}

type connKey struct{}

// withConn is a ConnContext of net/http.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// httpConn is the connection that an HTTP request came on, nil if it is not known.
func httpConn(ctx context.Context) *limitedConn {
	c, _ := ctx.Value(connKey{}).(*limitedConn)
	return c
}

// owner names whose the operations are that come over the connection: its address, of
// IPv6 the /64. It is empty where the connection is not known.
func (c *limitedConn) owner() string {
	if c == nil {
		return ""
	}
	return c.ip
}

// takesTurns is whose turns the operations take that come over the connection.
func (c *limitedConn) takesTurns() fair.Owner {
	if c == nil {
		return fair.Owner{}
	}
	return c.turns
}

// connOf is the connection over which a call or request came, nil if it is not known.
func connOf(ctx context.Context) *limitedConn {
	if c := httpConn(ctx); c != nil {
		return c
	}
	return grpcConn(ctx)
}

// ownerOf is owner, of the connection over which a call or request came.
func ownerOf(ctx context.Context) string {
	if c := httpConn(ctx); c != nil {
		return c.owner()
	}
	return grpcConn(ctx).owner()
}

// isPeer reports whether a call or stream is one of another node of the cluster: then it
// says itself whose the operations are.
func (s *Server) isPeer(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return slices.ContainsFunc(md.Get(mux.PeerHeader), s.cfg.Peer)
}

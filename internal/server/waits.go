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

// Acquires that wait take up connections, and places on connections, for as long as they
// wait. A quarter of both is kept for requests that free what they wait for: an acquire
// that would take part of that quarter is refused, and nothing else is.

// shareOf is how much of a limit acquires that wait may take.
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
			return apiv1.NewError(apiv1.CodeOverloaded, "acquires wait on %d connections from %s, at most %d may: the others are for what frees locks; nothing was done", n, c.ip, shareOf(l.perIP))
		}
		if l.waiting >= shareOf(l.total) {
			return apiv1.NewError(apiv1.CodeOverloaded, "acquires wait on %d connections, at most %d may: the others are for what frees locks; nothing was done", l.waiting, shareOf(l.total))
		}
		l.waiting++
		l.waitingByIP[c.ip]++
	}
	c.waits++
	return nil
}

// endWait undoes one startWait.
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
		return apiv1.NewError(apiv1.CodeOverloaded, "%d calls of this connection wait, at most %d may: the others are for what frees locks; a Session stream takes more; nothing was done", n, shareOf(places))
	}
	refusal := c.startWait()
	if refusal != nil {
		c.endPlace()
	}
	return refusal
}

// endCall undoes one startCall.
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

// mayWait reports whether a request of a unary call may wait in a queue.
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

// grpcConn is the connection of a call, nil if it is not known.
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

// httpConn is the connection of an HTTP request, nil if it is not known.
func httpConn(ctx context.Context) *limitedConn {
	c, _ := ctx.Value(connKey{}).(*limitedConn)
	return c
}

// owner is the owner of the operations that come over the connection: its address, of
// IPv6 the /64. It is empty where the connection is not known.
func (c *limitedConn) owner() string {
	if c == nil {
		return ""
	}
	return c.ip
}

// takesTurns is the owner in whose turns the operations of the connection are run.
func (c *limitedConn) takesTurns() fair.Owner {
	if c == nil {
		return fair.Owner{}
	}
	return c.turns
}

// connOf is the connection of a call or HTTP request, nil if it is not known.
func connOf(ctx context.Context) *limitedConn {
	if c := httpConn(ctx); c != nil {
		return c
	}
	return grpcConn(ctx)
}

// isPeer reports whether a call or stream comes from another node of the cluster: its
// operations then name their owners themselves.
func (s *Server) isPeer(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return slices.ContainsFunc(md.Get(mux.PeerHeader), s.cfg.Peer) && s.fromMember(ctx)
}

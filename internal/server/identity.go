package server

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/secure"
)

// Who has sent a request? In TLS the certificate of its connection says so, which was
// verified in the handshake. What a request says about itself proves nothing.
//
// The nodes' own service is for nodes of this cluster. A node that is no member may say
// what it is, ask to join for itself, and find out whether it was removed; everything else
// is for members. A connection in plain text, which a port accepts only while a cluster is
// moved to TLS, proves nothing, and is served as it always was.

// identity returns who the other end of a connection is. ok is false in plain text, and for a
// client without a certificate.
func (c *limitedConn) identity() (who certs.Identity, ok bool) {
	if c == nil {
		return certs.Identity{}, false
	}
	secured, is := c.Conn.(*secure.Conn)
	if !is {
		return certs.Identity{}, false
	}
	return secured.Identity()
}

// serial is the serial number of the certificate that the other end has shown, hexadecimal;
// empty if it has shown none.
func (c *limitedConn) serial() string {
	if c == nil {
		return ""
	}
	if secured, is := c.Conn.(*secure.Conn); is {
		return secured.Serial()
	}
	return ""
}

// raw is the connection of the system.
func (c *limitedConn) raw() net.Conn {
	if secured, is := c.Conn.(*secure.Conn); is {
		return secured.NetConn()
	}
	return c.Conn
}

// inTLS reports whether the connection is in TLS.
func (c *limitedConn) inTLS() bool {
	if c == nil {
		return false
	}
	secured, is := c.Conn.(*secure.Conn)
	return is && secured.TLS()
}

// identityOf returns who has sent a call, stream or HTTP request.
func identityOf(ctx context.Context) (who certs.Identity, ok bool) { return connOf(ctx).identity() }

// openPeerCalls are those of the nodes' own service that a node which is no member may make.
var openPeerCalls = []string{peerapi.Peers_Self_FullMethodName, peerapi.Peers_Join_FullMethodName, peerapi.Peers_ReadIndex_FullMethodName}

// strangerToPeers returns why a call of the nodes' own service is refused, nil if it is not
// or if it is another call.
func (s *Server) strangerToPeers(ctx context.Context, method string, request any) *apiv1.Error {
	if !strings.HasPrefix(method, "/"+peerapi.Peers_ServiceDesc.ServiceName+"/") || !grpcConn(ctx).inTLS() {
		return nil
	}
	who, ok := identityOf(ctx)
	if !ok || who.Role != certs.Node {
		return apiv1.NewError(apiv1.CodeDenied, "this call is for nodes of the cluster: the certificate that was shown is not that of a node")
	}
	member := s.member(who)
	if !slices.Contains(openPeerCalls, method) && member != nil {
		return apiv1.NewError(apiv1.CodeDenied, "%v", member)
	}
	if join, is := request.(*peerapi.JoinRequest); is && join.GetNodeId() != who.Name && member != nil {
		return apiv1.NewError(apiv1.CodeDenied, "join: is for node %q, must be for %q, whose certificate was shown", join.GetNodeId(), who.Name)
	}
	return nil
}

// member returns why a node is not one of the members.
func (s *Server) member(who certs.Identity) error {
	if s.cfg.Member == nil {
		return nil
	}
	return s.cfg.Member(who.Name)
}

// fromMember reports whether a call or stream may be that of a member: it comes in plain
// text, or with the certificate of one.
func (s *Server) fromMember(ctx context.Context) bool {
	if !grpcConn(ctx).inTLS() {
		return true
	}
	who, ok := identityOf(ctx)
	return ok && who.Role == certs.Node && s.member(who) == nil
}

// needsCertificate refuses an HTTP request without a certificate where clients need one. The
// checks of health have none in most places, change nothing and reveal little.
func (s *Server) needsCertificate(r *http.Request) *apiv1.Error {
	conn := httpConn(r.Context())
	if !s.cfg.NeedCertificate || slices.Contains(unnamed, r.URL.EscapedPath()) || !conn.inTLS() {
		return nil
	}
	if _, ok := conn.identity(); ok {
		return nil
	}
	return apiv1.NewError(apiv1.CodeDenied, "certificate: is missing, must be one that a CA in tls.client_ca_file of the node has signed: curl --cert FILE --key FILE")
}

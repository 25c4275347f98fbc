package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/secure"
)

// Why a node is not reached, in words that say what to check. The errors of grpc are about
// frames, prefaces and picker updates instead, and differ in nothing but their
// text. So the connection itself is observed here: how the dial ended, and what the other
// end sent first.

// trouble is why there is no connection to a node that can be used.
type trouble string

const (
	noAnswer  trouble = "it does not answer: no connection came about"
	noHello   trouble = "it takes connections but does not answer: is the process stopped, or is this not the API port of a node?"
	noWord    trouble = "it closed the connection before it sent anything: this is not the API port of a node, or the node is stopping or accepts no more connections"
	speaksTLS trouble = "TLS is spoken there, and this client uses plain text: give it the CA of the cluster (client.TLSFiles, --tls-ca)"
	speaksH1  trouble = "this is not the API port of a node: HTTP/1 is spoken there, as on a node's other ports"
	otherWord trouble = "this is not the API port of a node: something else than gRPC is spoken there"
	hungUp    trouble = "the connection was closed by the other end: the node is stopping, or has ended"
	wasReset  trouble = "the connection was cut: the node has ended, or something between cuts connections"
	refused   trouble = "connection refused: nothing listens there; is the node started, and is the port right?"
	noRoute   trouble = "there is no route to this host"
	noFiles   trouble = "this process may open no more files: raise its limit (ulimit -n)"
)

// unreachable is the error of a call that failed because of the connection to the node.
type unreachable struct {
	code  apiv1.Code // CodeUnknownOutcome if the node may have got the request
	why   trouble
	cause error
}

func (e *unreachable) Error() string { return string(e.why) }

// Unwrap returns an error with the code, and the error of grpc.
func (e *unreachable) Unwrap() []error {
	errs := []error{apiv1.NewError(e.code, "%s", e.why)}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// explain replaces an error of grpc about the connection to a node by one that says what to
// check. It returns an error that the node has sent without what grpc adds to it. The
// outcome of a request is unknown if the node had sent its settings on the connection.
func (p *peer) explain(err error, before contact) error {
	code, byGRPC := grpcCode(err)
	if !byGRPC {
		return undecorated(err)
	}
	outcome := apiv1.CodeUnavailable
	sent := before.greeted || p.contact().hellos != before.hellos
	if sent {
		outcome = apiv1.CodeUnknownOutcome
	}
	why := p.trouble.Load()
	switch {
	case code != codes.Unavailable && code != codes.DeadlineExceeded:
		return apiv1.AsError(err)
	case why != nil:
		return &unreachable{outcome, *why, err}
	case code == codes.Unavailable:
		return apiv1.AsError(err) // grpc is stopping, or looks up names
	case sent:
		return &unreachable{outcome, "it does not answer", err}
	}
	return &unreachable{outcome, noAnswer, err}
}

// whySilent returns why a node that was asked has not answered yet.
func (r *remote) whySilent(addr string) error {
	r.mu.Lock()
	p := r.peers[addr]
	r.mu.Unlock()
	if p != nil {
		if why := p.trouble.Load(); why != nil {
			return &unreachable{apiv1.CodeUnavailable, *why, nil}
		}
	}
	return errors.New("it has not answered yet")
}

// grpcCode returns the code of an error that grpc itself has made, or of the end of the
// time of a call. It returns false for an error that a node has sent and for any other.
func grpcCode(err error) (codes.Code, bool) {
	var own *apiv1.Error
	var byGRPC interface{ GRPCStatus() *status.Status }
	switch {
	case err == nil, errors.As(err, &own):
		return codes.OK, false
	case errors.As(err, &byGRPC):
		s := byGRPC.GRPCStatus()
		return s.Code(), !carriesOwn(s)
	}
	return codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded)
}

// carriesOwn reports whether a node has put an error of the protocol into a status.
func carriesOwn(s *status.Status) bool {
	return slices.ContainsFunc(s.Details(), func(detail any) bool { _, ok := detail.(*apiv1.Error); return ok })
}

// undecorated returns the error that a node has sent if err has one, and err otherwise.
func undecorated(err error) error {
	var own *apiv1.Error
	var byGRPC interface{ GRPCStatus() *status.Status }
	if err == nil || errors.As(err, &own) || !errors.As(err, &byGRPC) {
		return err
	}
	return apiv1.AsError(err)
}

// contact is how far the connections to a node have got.
type contact struct {
	greeted bool  // there is one on which the node has sent its settings
	hellos  int64 // how many there have been
}

func (p *peer) contact() contact { return contact{p.greeted.Load() > 0, p.hellos.Load()} }

// dialled notes how a dial ended.
func (p *peer) dialled(ctx context.Context, err error) {
	if err != nil {
		why := dialTrouble(ctx, err)
		p.trouble.Store(&why)
	}
}

// dialTrouble returns why a dial failed.
func dialTrouble(ctx context.Context, err error) trouble {
	var lookup *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return trouble(fmt.Sprintf("the name %q is not known to this host's resolver", lookup.Name))
	case errors.As(err, &lookup):
		return trouble(fmt.Sprintf("the name %q could not be looked up: %s", lookup.Name, lookup.Err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return noRoute
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return noFiles
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), ctx.Err() != nil:
		return noAnswer
	case errors.As(err, &op):
		return trouble("no connection came about: " + op.Err.Error())
	}
	return trouble("no connection came about: " + err.Error())
}

// connected notes that a connection was made. What is known of earlier ones is kept
// until the other end has sent something: grpc still returns the errors of those.
func (p *peer) connected() {
	if last := p.trouble.Load(); last != nil {
		switch *last {
		case noWord, speaksTLS, speaksPlain, speaksH1, otherWord:
			return
		}
		if strings.HasPrefix(string(*last), noTLS) {
			return
		}
	}
	why := noHello
	p.trouble.Store(&why)
}

// listening observes the first bytes of a connection. It wraps TLS, or takes its place, so that
// it gets the connections of every dialer.
type listening struct {
	credentials.TransportCredentials
	p   *peer
	tls *security
}

// ClientHandshake implements [credentials.TransportCredentials].
func (l listening) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	l.p.connected()
	secured, info, err := l.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		if ctx.Err() == nil {
			why := l.tls.trouble(err)
			l.p.trouble.Store(&why)
		}
		return nil, nil, err
	}
	return &watchedConn{Conn: secured, p: l.p}, info, nil
}

// Clone implements [credentials.TransportCredentials].
func (l listening) Clone() credentials.TransportCredentials {
	return listening{l.TransportCredentials.Clone(), l.p, l.tls}
}

// watchedConn observes what the other end sends first, and how the connection ends.
type watchedConn struct {
	net.Conn
	p *peer
	// Used only by the goroutine that reads.
	first   []byte // until greeted
	greeted bool
	over    bool
}

// frameHead is how many bytes show a frame of HTTP/2: three of its length, and its type. The
// first frame of a connection has settings.
const (
	frameHead     = 4
	frameSettings = 4
)

// Read implements [net.Conn].
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.greeted || c.over {
		if err != nil {
			c.end(err)
		}
		return n, err
	}
	c.first = append(c.first, b[:min(n, frameHead)]...)
	switch {
	case len(c.first) < frameHead && err == nil:
		return n, nil
	case len(c.first) < frameHead:
		if errors.Is(err, net.ErrClosed) { // by this end
			return n, err
		}
		if why := secure.RefusedLater(err); why != "" {
			return n, c.give(noTLS+trouble(why), err)
		}
		return n, c.give(noWord, err)
	case c.first[0] == 0 && c.first[3] == frameSettings:
		c.greeted, c.first = true, nil
		c.p.hellos.Add(1)
		c.p.greeted.Add(1)
		c.p.trouble.Store(nil)
		return n, err
	case strings.HasPrefix(string(c.first), "HTTP"):
		return 0, c.give(speaksH1, err)
	case c.first[0] == 0x15 && c.first[1] == 3: // a TLS alert: it cannot read what was sent
		return 0, c.give(speaksTLS, err)
	}
	return 0, c.give(otherWord, err)
}

// give notes why this is no connection to a node, and returns it as an error.
func (c *watchedConn) give(why trouble, cause error) error {
	c.over = true
	c.p.trouble.Store(&why)
	if cause != nil {
		return fmt.Errorf("%s: %w", why, cause)
	}
	return errors.New(string(why)) // explain replaces what grpc makes of it
}

// end notes the end of a connection that was one to a node.
func (c *watchedConn) end(err error) {
	if c.over {
		return
	}
	c.over = true
	c.p.greeted.Add(-1)
	switch {
	case errors.Is(err, net.ErrClosed): // by this end
	case errors.Is(err, io.EOF):
		why := hungUp
		c.p.trouble.Store(&why)
	default:
		why := wasReset
		c.p.trouble.Store(&why)
	}
}

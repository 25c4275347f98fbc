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
)

// Why a node is not reached, in words that say what to look at. grpc tells of frames,
// prefaces and picker updates instead, in sentences that nothing but their text tells
// apart. So the two ends of a connection are looked at here: how it was dialled, and
// what the other end said first.

// trouble is what is known about why there is no connection to a node that can be used.
type trouble string

const (
	noAnswer  trouble = "it does not answer: no connection came about"
	noHello   trouble = "it takes connections but does not answer: is the process stopped, or is this not the API port of a node?"
	noWord    trouble = "it closed the connection before it said anything: this is not the API port of a node, or the node is stopping or takes no more connections"
	speaksTLS trouble = "TLS is spoken there, and this client uses plain text"
	speaksH1  trouble = "this is not the API port of a node: HTTP/1 is spoken there, as on a node's other ports"
	otherWord trouble = "this is not the API port of a node: something else than gRPC is spoken there"
	hungUp    trouble = "the connection was closed by the other end: the node is stopping, or has ended"
	wasReset  trouble = "the connection was cut: the node has ended, or something between cuts connections"
	refused   trouble = "connection refused: nothing listens there; is the node started, and is the port right?"
	noRoute   trouble = "there is no route to this host"
	noFiles   trouble = "this process may open no more files: raise its limit (ulimit -n)"
)

// unreachable is a node that did not do what was asked, for a trouble of the way to it.
type unreachable struct {
	code  apiv1.Code // CodeUnknownOutcome if it may have got the request
	why   trouble
	cause error
}

func (e *unreachable) Error() string { return string(e.why) }

// Unwrap makes it an error with a code, and what grpc says.
func (e *unreachable) Unwrap() []error {
	errs := []error{apiv1.NewError(e.code, "%s", e.why)}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// explain puts what grpc says about the way to a node into words. What the node itself
// has answered is returned without grpc's decoration. A request that went over a
// connection on which the node had said hello may have been done.
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

// whySilent says why a node that was asked has not answered yet.
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

// grpcCode returns the code of an error that grpc itself has made, or that the time of a
// call was over, and false for what a node has sent and for everything else.
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

func carriesOwn(s *status.Status) bool {
	return slices.ContainsFunc(s.Details(), func(detail any) bool { _, ok := detail.(*apiv1.Error); return ok })
}

// undecorated is what a node has sent, where that is what err is.
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
	greeted bool  // there is one on which the node has said hello
	hellos  int64 // how many there were
}

func (p *peer) contact() contact { return contact{p.greeted.Load() > 0, p.hellos.Load()} }

// dialled notes how a dial ended.
func (p *peer) dialled(ctx context.Context, err error) {
	if err != nil {
		why := dialTrouble(ctx, err)
		p.trouble.Store(&why)
	}
}

// dialTrouble says why a connection did not come about.
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

// connected notes that a connection was made. What earlier ones have met there is known
// until the other end has said something again: grpc goes on telling of those.
func (p *peer) connected() {
	if last := p.trouble.Load(); last != nil {
		switch *last {
		case noWord, speaksTLS, speaksH1, otherWord:
			return
		}
	}
	why := noHello
	p.trouble.Store(&why)
}

// listening makes a connection one whose first bytes are looked at. It stands where
// TLS would, so that it sees the connections of every dialer.
type listening struct {
	credentials.TransportCredentials
	p *peer
}

// ClientHandshake implements [credentials.TransportCredentials].
func (l listening) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	l.p.connected()
	return l.TransportCredentials.ClientHandshake(ctx, authority, &watchedConn{Conn: conn, p: l.p})
}

// Clone implements [credentials.TransportCredentials].
func (l listening) Clone() credentials.TransportCredentials {
	return listening{l.TransportCredentials.Clone(), l.p}
}

// watchedConn looks at what the other end says first, and at how it ends.
type watchedConn struct {
	net.Conn
	p *peer
	// Of the goroutine that reads.
	first   []byte // until greeted
	greeted bool
	over    bool
}

// frameHead is enough of a frame of HTTP/2 to see that it is one: three bytes of
// length and the type. The first of a connection has settings.
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
		return n, c.give(noWord, err)
	case c.first[0] == 0 && c.first[3] == frameSettings:
		c.greeted, c.first = true, nil
		c.p.hellos.Add(1)
		c.p.greeted.Add(1)
		c.p.trouble.Store(nil)
		return n, err
	case strings.HasPrefix(string(c.first), "HTTP"):
		return 0, c.give(speaksH1, err)
	case c.first[0] == 0x15 && c.first[1] == 3: // an alert: it cannot read what we said
		return 0, c.give(speaksTLS, err)
	}
	return 0, c.give(otherWord, err)
}

// give notes why this is no connection to a node.
func (c *watchedConn) give(why trouble, cause error) error {
	c.over = true
	c.p.trouble.Store(&why)
	if cause != nil {
		return fmt.Errorf("%s: %w", why, cause)
	}
	return errors.New(string(why)) // grpc shows it, and explain says it better
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

package server

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/rights"
)

// Who calls? A secret in the header Authorization says so, else the certificate of the
// connection, else the caller is anonymous. What was shown is taken once, when a stream opens or
// a call arrives. What it means is found out for each operation, and that costs the comparison of
// a pointer as long as no access token and no policy has changed: see caller.resolve.
//
// A secret that is not valid never makes an anonymous caller: who was mistaken about his
// secret must not do with the rights of everybody what he meant to do with his own.

// AuthMode says what becomes of what the caller has no right to.
type AuthMode string

// The modes.
const (
	AuthOff      AuthMode = "off"      // nobody is asked; the zero value is the same
	AuthLog      AuthMode = "log"      // it is done, logged and counted
	AuthRequired AuthMode = "required" // it is refused
)

// Auth is what a server has to know to ask callers who they are. The zero value asks nobody.
type Auth struct {
	Mode AuthMode
	// Open is what is answered without rights: "metrics", "status", "members", "reflection".
	Open []string
	// Insecure takes secrets in plain text from other hosts.
	Insecure bool
	// Book returns the access tokens and policies by which to decide, nil as long as the node
	// does not know them.
	Book func() *rights.Book
	// Enforced reports whether rights may be asked for. It is false while the table is at a
	// feature level that has none.
	Enforced func() bool
	// Refresh waits until Book has what the cluster knew when Refresh was called, for a short time
	// at most. The owner is in whose turns it is done. nil: Book always has.
	Refresh func(context.Context, fair.Owner)
	// Deaf returns why what needs the right admin is not decided now, nil if it is.
	Deaf func() error
	// Owner returns the owner of the session in the operation's request ID, or of the
	// detached grant that it shows, as the node's table has them now; empty if it has neither.
	// It is asked in mode log only, to find out what the table would refuse. nil: nobody knows.
	Owner func(*apiv1.Operation) string
	// GrantOwner returns the owner of the grant with a token, as the node's table has it now; empty
	// if it has none. nil: nobody knows.
	GrantOwner func(token uint64) string
	// Authorizer is asked after the policies.
	Authorizer func(context.Context, Access) error
}

// Access is what a caller wants to do: see node.Access.
type Access struct {
	Identity, Address, Operation, Right string
	Names                               []string
}

// caller is who sends operations over one stream, or one call or HTTP request. It is safe for
// concurrent use: nothing of it changes but its standing.
type caller struct {
	conn    *limitedConn    // nil: not known
	address string          // of the connection
	turns   fair.Owner      // in which the connection's operations take turns
	serial  string          // of the certificate that was shown
	proved  rights.Identity // by the connection alone
	hash    [32]byte        // of the secret, if shown
	shown   bool            // a secret was shown
	bad     *apiv1.Error    // what was shown is not valid, whatever access tokens there are
	member  bool            // a member of the cluster: what it passes on is checked already

	last  atomic.Pointer[standing]    // as of the last resolve; nil: there was none
	noted atomic.Pointer[rights.Book] // by which it was noted that the caller is not who he says
}

// standing is what a caller is by one book.
type standing struct {
	book    *rights.Book
	subject *rights.Subject
	token   *fsm.AccessToken // whose secret was shown; nil: none
	failure *apiv1.Error     // why the caller is not who he says: then he has no more rights than who has shown nothing
}

// nobodyYet is the standing of callers as long as nobody asks who they are.
var nobodyYet = &standing{subject: rights.NewBook(0, nil, nil).Subject(rights.Anonymous)}

const bearer = "bearer "

// withDefaults returns a copy with every function set.
func (a Auth) withDefaults() Auth {
	if a.Mode == "" {
		a.Mode = AuthOff
	}
	if a.Book == nil {
		a.Book = func() *rights.Book { return nil }
	}
	if a.Enforced == nil {
		a.Enforced = func() bool { return true }
	}
	if a.Refresh == nil {
		a.Refresh = func(context.Context, fair.Owner) {}
	}
	if a.Deaf == nil {
		a.Deaf = func() error { return nil }
	}
	return a
}

// callerOf returns who has sent a call, stream or HTTP request, with the values of its header
// Authorization.
func (s *Server) callerOf(conn *limitedConn, authorization []string) *caller {
	c := &caller{conn: conn, address: conn.owner(), turns: conn.takesTurns(), proved: rights.Anonymous}
	if s.auth.Mode == AuthOff {
		return c
	}
	if who, ok := conn.identity(); ok && who.Name != "" {
		c.serial = conn.serial()
		c.proved = rights.Cert(who.Name)
		if who.Role == certs.Node {
			c.proved = rights.Node(who.Name)
		}
	}
	switch {
	case len(authorization) == 0:
		return c
	case len(authorization) > 1:
		c.bad = unauthenticated("authorization: is given %d times, must be given once", len(authorization))
		return c
	}
	text := authorization[0]
	if len(text) < len(bearer) || !strings.EqualFold(text[:len(bearer)], bearer) {
		c.bad = unauthenticated("authorization: is of a kind that this node does not know, must be Bearer and an access token")
		return c
	}
	if s.listensIn(conn) {
		c.bad = unauthenticated("access token: was sent in plain text from another host, must come in TLS: everybody on the way can read it; revoke it, and set tls.mode on the node")
		return c
	}
	hash, err := rights.HashOf(strings.TrimSpace(text[len(bearer):]))
	if err != nil {
		c.bad = unauthenticated("%v", err)
		return c
	}
	c.hash, c.shown = hash, true
	return c
}

func unauthenticated(format string, args ...any) *apiv1.Error {
	return apiv1.NewError(apiv1.CodeUnauthenticated, format, args...)
}

// listensIn reports whether others may have read what came over a connection.
func (s *Server) listensIn(conn *limitedConn) bool {
	if s.auth.Insecure || conn == nil || conn.inTLS() {
		return false
	}
	ip, err := netip.ParseAddr(conn.ip)
	return err != nil || !ip.IsLoopback()
}

// caller returns who has sent a call or stream.
func (s *Server) caller(ctx context.Context) *caller {
	md, _ := metadata.FromIncomingContext(ctx)
	c := s.callerOf(grpcConn(ctx), md.Get("authorization"))
	c.member = s.isPeer(ctx)
	return c
}

type callerKey struct{}

// withCaller returns a context that carries who has sent a request.
func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerIn returns who has sent a request; somebody who has shown nothing if it is not known.
func (s *Server) callerIn(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return s.callerOf(connOf(ctx), nil)
}

// resolve finds out what the caller is by a book.
func (c *caller) resolve(book *rights.Book) *standing {
	if last := c.last.Load(); last != nil && last.book == book {
		return last
	}
	now := &standing{book: book, subject: book.Subject(rights.Anonymous), failure: c.bad}
	switch {
	case c.bad != nil:
	case c.shown:
		if h := book.Holder(c.hash); h != nil {
			now.subject, now.token = h.Subject, &h.Token
		} else {
			now.failure = unauthenticated("access token: is not valid: it was revoked, it has ended, or there never was one")
		}
	case c.proved != rights.Anonymous:
		now.subject = book.Subject(c.proved)
	}
	c.last.Store(now)
	return now
}

// standing is what the caller was by the last book.
func (c *caller) standing() *standing {
	if last := c.last.Load(); last != nil {
		return last
	}
	return nobodyYet
}

func (st *standing) identity() rights.Identity { return st.subject.Identity }

// accessor names the access token that was shown, empty if none was.
func (st *standing) accessor() string {
	if st.token == nil {
		return ""
	}
	return st.token.Accessor
}

// owner is the owner of what the caller makes in the table: who he is, or where he calls from.
func (c *caller) owner() string {
	if id := c.standing().identity(); id.Owns() {
		return string(id)
	}
	return c.address
}

// takesTurns is the owner in whose turns the caller's operations are run.
func (c *caller) takesTurns() fair.Owner {
	if id := c.standing().identity(); id.Owns() {
		return fair.Owner{Address: fair.AddressOf(string(id)), Connection: c.turns.Connection}
	}
	return c.turns
}

// asks returns how rights are asked for now, and by which book. An error is why no request that
// needs any can be answered.
func (s *Server) asks() (mode AuthMode, book *rights.Book, err *apiv1.Error) {
	if s.auth.Mode == AuthOff || !s.auth.Enforced() {
		return AuthOff, nil, nil
	}
	if book = s.auth.Book(); book != nil {
		return s.auth.Mode, book, nil
	}
	if s.auth.Mode == AuthLog {
		return AuthOff, nil, nil
	}
	return AuthOff, nil, apiv1.NewError(apiv1.CodeUnavailable, "the node does not know yet who may do what: its table has not caught up, and /readyz says why; send the request to another node")
}

// identify refuses a caller who has shown what is not valid, before his request is read. The node may
// not have heard yet of an access token that was made through another one a moment ago: so it
// looks again before it refuses one. A refused caller gets his answer late, and the node does not
// look again for him, if his address has been refused often.
func (s *Server) identify(ctx context.Context, c *caller, operation string) *apiv1.Error {
	if c.member {
		return nil
	}
	mode, book, err := s.asks()
	if err != nil || mode == AuthOff {
		return nil // what needs no rights is answered all the same
	}
	now := c.resolve(book)
	if now.failure != nil && mode == AuthRequired {
		late := s.failures.delay(c.address, time.Now())
		if late == 0 && c.shown {
			s.auth.Refresh(ctx, c.turns)
			if book = s.auth.Book(); book != nil {
				now = c.resolve(book)
			}
		}
		if now.failure != nil {
			rest(ctx, s.stopping, late)
		}
	}
	return s.mistaken(c, now, mode, operation)
}

// mistaken refuses a caller who is not who he says.
func (s *Server) mistaken(c *caller, now *standing, mode AuthMode, operation string) *apiv1.Error {
	if now.failure == nil {
		return nil
	}
	if mode != AuthRequired && c.noted.Swap(now.book) == now.book {
		return nil // once for each call or stream
	}
	return s.refuse(c, mode, Event{Operation: operation}, now.failure)
}

// nothingShown is the error for an anonymous caller who has no right to something.
func nothingShown(lacks string) *apiv1.Error {
	if lacks != "" {
		lacks += ": "
	}
	return unauthenticated("%sno access token and no client certificate was shown", lacks)
}

// isOpen reports whether something is answered without rights.
func (s *Server) isOpen(what string) bool { return slices.Contains(s.auth.Open, what) }

// RightsChanged has open streams and waiting calls end whose access token is not valid any
// more. The node calls it when there is another book. What an open stream may do follows the book
// by itself, with its next operation.
func (s *Server) RightsChanged() {
	_, book, _ := s.asks()
	if book == nil {
		return
	}
	s.mu.Lock()
	var out []*stream
	for st := range s.streams {
		if st.caller.shown && book.Holder(st.caller.hash) == nil {
			out = append(out, st)
		}
	}
	for w := range s.waiting {
		if w.caller.shown && book.Holder(w.caller.hash) == nil {
			w.revoke()
		}
	}
	s.mu.Unlock()
	if s.auth.Mode != AuthRequired {
		return
	}
	for _, st := range out {
		st.refuse(unauthenticated("access token: is not valid any more: it was revoked, or it has ended"))
	}
}

// waiting is a unary call, batch or HTTP request that waits for a lock.
type waiting struct {
	caller  *caller
	once    bool // revoked is closed; guarded by Server.mu
	revoked chan struct{}
}

// revoke is called with Server.mu held.
func (w *waiting) revoke() {
	if !w.once {
		w.once = true
		close(w.revoked)
	}
}

// wait registers a call that may wait until its access token is revoked. The caller calls leave
// when it is over.
func (s *Server) wait(c *caller) (revoked <-chan struct{}, leave func()) {
	if s.auth.Mode != AuthRequired || !c.shown {
		return nil, func() {}
	}
	w := &waiting{caller: c, revoked: make(chan struct{})}
	s.mu.Lock()
	s.waiting[w] = struct{}{}
	s.mu.Unlock()
	return w.revoked, func() {
		s.mu.Lock()
		delete(s.waiting, w)
		s.mu.Unlock()
	}
}

func revokedMeanwhile() *apiv1.Error {
	return unauthenticated("access token: is not valid any more: it was revoked, or it has ended; the wait was given up")
}

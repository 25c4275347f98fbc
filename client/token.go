package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Token has the client prove who it is with an access token: secret returns it, and is the
// place to read a file or variable that may be replaced while the client runs. An empty text
// is none. The client calls secret for each connection that it makes, and again when a node
// has refused what it returned before: so a client whose token was replaced goes on with the
// new one, with all that it holds if both tokens have the same name. While secret runs no
// request of the client is sent; it is called by one goroutine at a time, and must return
// soon.
//
// The secret is sent to nodes on this machine, and to others in TLS only: see [TLSFiles] and
// [PlainTextToken]. It is never logged and is in no error. The option has no effect on a
// client of an embedded node, which has all rights.
func Token(secret func() string) Option {
	return func(c *config) { c.token, c.tokenGiven = secret, true }
}

// PlainTextToken lets the client send its access token in plain text to other machines, for
// networks that others encrypt. Whoever can read the traffic can use the token from then on.
// Nodes accept it only if they are configured with insecure.
func PlainTextToken() Option { return func(c *config) { c.plainToken = true } }

const (
	// maxSecret bounds an access token: one of Locknode has 53 characters.
	maxSecret = 1 << 10
	// leastAsked is the least time between two calls of the caller's function because of
	// refusals: many operations are refused at once.
	leastAsked = 20 * time.Millisecond
)

// credential is the access token of a client. Its methods are safe for concurrent use, and
// for a client without one.
type credential struct {
	secret func() string
	plain  bool        // it is sent in plain text
	stale  atomic.Bool // it is asked for before the next request

	mu      sync.Mutex // guards what follows, and is held while secret runs
	asked   time.Time  // when it was asked for because of a refusal last
	text    string
	err     error  // why it cannot be sent
	version uint64 // counts the different ones; 0: none was asked for
}

func newCredential(cfg config) *credential {
	if cfg.token == nil {
		return nil
	}
	return &credential{secret: cfg.token, plain: cfg.tls == nil}
}

// again has the token asked for again before the next request.
func (c *credential) again() {
	if c != nil {
		c.stale.Store(true)
	}
}

// current returns the version of the token in use. It is 0 for a client without one.
func (c *credential) current() uint64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.askLocked()
	return c.version
}

// refused asks for the token again, because a node has refused one, and returns the version of
// the one in use then.
func (c *credential) refused() uint64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) >= leastAsked {
		c.stale.Store(true)
		c.asked = time.Now()
	}
	c.askLocked()
	return c.version
}

// replaces reports whether err is the refusal of an access token, and there is another one than
// that with this version.
func (c *credential) replaces(version uint64, err error) bool {
	return c != nil && apiv1.CodeOf(err) == apiv1.CodeUnauthenticated && c.refused() != version
}

func (c *credential) askLocked() {
	if !c.stale.Swap(false) && c.version > 0 {
		return
	}
	text := strings.TrimSpace(c.secret())
	if text == c.text && c.version > 0 {
		return
	}
	c.version++
	c.text, c.err = text, nil
	switch at := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }); {
	case len(text) > maxSecret:
		c.err = unauthenticated("access token: is %d characters long, must be at most %d", len(text), maxSecret)
	case at >= 0:
		c.err = unauthenticated("access token: has a character that none has, in position %d: is it read from the right place?", at+1)
	}
}

// unauthenticated returns an error as a node sends it.
func unauthenticated(format string, args ...any) error {
	return apiv1.NewError(apiv1.CodeUnauthenticated, format, args...)
}

// bearer adds the access token to each call and stream of one connection. It implements
// credentials.PerRPCCredentials.
type bearer struct {
	*credential
	addr string // of the node
	bare bool   // it must not be sent there: in plain text, and not to this machine
}

func newBearer(c *credential, addr string, plainToken bool) bearer {
	return bearer{c, addr, c.plain && !plainToken && !isLoopback(addr)}
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.askLocked()
	switch {
	case b.text == "":
		return nil, nil
	case b.err != nil:
		return nil, b.err
	case b.bare:
		return nil, unauthenticated("the access token is not sent to %s in plain text: use TLS (client.TLSFiles, --tls-ca), or allow it (client.PlainTextToken)", b.addr)
	}
	return map[string]string{"authorization": "Bearer " + b.text}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: GetRequestMetadata decides.
func (b bearer) RequireTransportSecurity() bool { return false }

// Format keeps the secret out of what is printed, with any verb, also of a bearer.
func (c *credential) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("access token")) }

// turnedAway reports whether a node has refused who calls, or what he is allowed: then others
// will as well, and to repeat it is of no use.
func turnedAway(err error) bool { return isTurnedAway(apiv1.CodeOf(err)) }

func isTurnedAway(code apiv1.Code) bool {
	return code == apiv1.CodeUnauthenticated || code == apiv1.CodeDenied
}

// mostRefusals bounds how often one operation is sent again because its access token was
// refused and there is another one.
const mostRefusals = 4

// authenticate is part of router.
func (r *remote) authenticate(o *op, e *apiv1.Error) bool {
	if r.credential == nil || o.refusals >= mostRefusals {
		return false
	}
	first := o.refusals == 0
	o.refusals++
	version := r.credential.refused()
	l := r.link.Load()
	switch {
	case l != nil && l.token != version:
		r.drop(l, l.addr, e)
	case l != nil && !first:
		return false
	}
	// There is another token, or the stream was opened again since the operation was sent,
	// perhaps: a refusal of the second try is final.
	r.enqueue(&o.call)
	return true
}

// refusedStream returns the error with which a node has refused a stream to this client; nil if
// it has not, or there is another access token by now.
func (r *remote) refusedStream(l *link, err error) *apiv1.Error {
	if err == nil || !turnedAway(err) || l.token != r.credential.refused() {
		return nil
	}
	return apiv1.AsError(err)
}

// reauthenticate leaves a link whose access token was refused if there is another token.
func (r *remote) reauthenticate(e *apiv1.Error) {
	if r.credential == nil {
		return
	}
	version := r.credential.refused()
	if l := r.link.Load(); l != nil && l.token != version {
		r.drop(l, l.addr, e)
	}
}

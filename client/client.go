package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

// closeWait bounds how long Close waits for the answers of the cluster.
const closeWait = 2 * time.Second

// backend takes operations to the cluster: an embedded node, or what [Dial] makes of a
// list of endpoints.
type backend = embedded.Node

// router is what the remote backend can do beyond a backend.
type router interface {
	// reroute takes over a refused call and reports whether it did: the caller retries it
	// otherwise.
	reroute(call *mux.Call, e *apiv1.Error, tries int) bool
	// refused notes the refusal of an operation that is not retried: a node that does
	// not lead is left, so that the next operation goes to the leader.
	refused(e *apiv1.Error)
	// authenticate takes over a call that was refused because of the access token, and
	// reports whether it did: there may be another token by now.
	authenticate(o *op, e *apiv1.Error) bool
	// trouble returns the endpoints and the last error; the error is nil while a
	// node takes operations.
	trouble() (endpoints []string, last error)
	close()
}

// Done is part of backend: a remote backend ends with its client.
func (r *remote) Done() <-chan struct{} { return nil }

// Client is a cluster's client. It is safe for concurrent use, and one is
// enough for a program.
type Client struct {
	backend backend
	router  router // nil: an embedded node
	config  config
	log     *slog.Logger
	now     func() time.Duration
	closing chan struct{}   // closed when Close begins
	over    <-chan struct{} // closed when the backend has ended; nil: it does not
	wg      sync.WaitGroup
	polled  refusedTries

	mu         sync.Mutex // guards what follows, and the closing of closing
	closeErr   error
	closeEnd   chan struct{}         // closed when Close is done
	cut        bool                  // a session was open when the backend ended
	cur        *session              // takes new acquires; nil: the next one opens it
	sessions   map[*session]struct{} // all that have not ended
	unsettled  map[*op]struct{}      // operations without a caller whose answers Close waits for
	allSettled chan struct{}         // not nil: closed when unsettled is empty
	refused    *apiv1.Error          // why an operation without a caller was, if the client itself is
}

// newEmbedded returns a client of an embedded node. Its options are checked when it opens
// its first session. Closing it does not close the node.
func newEmbedded(b backend, opts []Option) *Client {
	c := newClient(newConfig(opts))
	c.backend, c.over = b, b.Done()
	return c
}

func newClient(cfg config) *Client {
	return &Client{
		config:    cfg,
		log:       cfg.log,
		now:       cfg.now,
		closing:   make(chan struct{}),
		closeEnd:  make(chan struct{}),
		sessions:  make(map[*session]struct{}),
		unsettled: make(map[*op]struct{}),
	}
}

// Dial returns a client of the cluster that the endpoints, 1 to 32 of the form host:port,
// are nodes of. The client finds the leader from any of them, follows it, and learns the
// addresses of the other members: all endpoints may be replaced while it is connected. A
// host may be a name, also one of several nodes; see [Resolver]. Once the client has used
// a node, it uses no node of another cluster.
//
// Dial checks its arguments and returns at once: connecting begins with the first
// operation, which waits for a cluster that is not up yet. The client does
// not depend on ctx once Dial has returned. The errors are ErrInvalid, which names every
// argument that is not valid, and the end of ctx.
func Dial(ctx context.Context, endpoints []string, opts ...Option) (*Client, error) {
	if n := embedded.From(ctx); n != nil {
		return newEmbedded(n, opts), nil
	}
	c := newClient(newConfig(opts))
	if err := errors.Join(checkEndpoints(endpoints), c.config.check()); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &opError{op: "dial", cause: err}
	}
	r := newRemote(endpoints, c.config, c.renewAll)
	c.backend, c.router = r, r
	return c, nil
}

func (cfg *config) check() error {
	w := what{verb: "dial"}
	errs := []error{checkText(w, "holder", cfg.holder, false), cfg.tls.check()}
	if cfg.ttl <= 0 {
		errs = append(errs, invalid(w, "session ttl: is %v, must be positive", cfg.ttl))
	}
	if len(cfg.cluster) > maxID {
		errs = append(errs, invalid(w, "cluster ID: is %d bytes long, must be at most %d", len(cfg.cluster), maxID))
	}
	if cfg.connectTimeout < 0 {
		errs = append(errs, invalid(w, "connect timeout: is %v, must not be negative", cfg.connectTimeout))
	}
	if len(cfg.labels) > 256 {
		errs = append(errs, invalid(w, "number of labels: is %d, must be at most 256", len(cfg.labels)))
	}
	if cfg.tokenGiven && cfg.token == nil {
		errs = append(errs, invalid(w, "Token: is nil, must be a function"))
	}
	for _, l := range cfg.labels {
		errs = append(errs, checkText(w, "label key", l.GetKey(), true), checkText(w, "label value", l.GetValue(), false))
	}
	return errors.Join(errs...)
}

// errNodeEnded is why a client of an embedded node is closed.
var errNodeEnded = errors.New("node has ended")

// Done returns a channel that is closed when Close begins.
func (c *Client) Done() <-chan struct{} { return c.closing }

// ready returns ErrClosed if the client is closed or its node has ended. An operation
// returns that before any other error.
func (c *Client) ready(w what) error {
	switch {
	case ended(c.closing):
		return &opError{op: w.String(), kind: ErrClosed}
	case ended(c.over):
		return &opError{op: w.String(), kind: ErrClosed, text: errNodeEnded.Error()}
	}
	return nil
}

// admit returns the error of an operation that cannot begin.
func (c *Client) admit(ctx context.Context, w what) error {
	if ctx.Err() != nil {
		return c.ended(ctx, w, nil)
	}
	return c.ready(w)
}

// session returns the session for new acquires, and opens one if there is none. It waits
// until the session is open or has ended, or ctx ends.
func (c *Client) session(ctx context.Context, w what) (*session, error) {
	c.mu.Lock()
	if err := c.ready(w); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	s := c.cur
	if s == nil {
		if err := c.config.check(); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		s = newSession(c)
		c.cur = s
		c.sessions[s] = struct{}{}
		c.wg.Go(s.run)
	}
	c.mu.Unlock()
	if ended(s.ready) {
		return s, nil
	}
	select {
	case <-s.ready:
		return s, nil
	case <-ctx.Done():
		return nil, c.ended(ctx, w, s.opening)
	}
}

// retire makes the next acquire open another session. s goes on for the grants and
// operations that it has.
func (c *Client) retire(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == s {
		c.cur = nil
	}
}

// forget is called by a session that has ended.
func (c *Client) forget(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == s {
		c.cur = nil
	}
	delete(c.sessions, s)
}

// cutOff is called by a session that was open when the backend ended.
func (c *Client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
}

// renewAll makes all sessions send a keep-alive: the backend has found another node, which
// sends the notices of a session only once a keep-alive has named it.
func (c *Client) renewAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		s.renewSoon()
	}
}

// track makes Close wait for the answer of an operation that has no caller.
func (c *Client) track(o *op) {
	o.to = takerFunc(func(a *apiv1.Answer) {
		if e := a.GetError(); isTurnedAway(apiv1.Code(e.GetCode())) {
			c.mu.Lock()
			c.refused = e
			c.mu.Unlock()
		}
		c.settled(o)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsettled[o] = struct{}{}
}

// settled notes that a tracked operation was answered, or will not be sent.
func (c *Client) settled(o *op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unsettled, o)
	if len(c.unsettled) == 0 && c.allSettled != nil {
		close(c.allSettled)
		c.allSettled = nil
	}
}

// Close ends the client's sessions, which releases all of its locks except detached
// ones. Operations under way and later ones fail with [ErrClosed], grants are lost;
// for those with [DelayAfterLoss] the delay begins. The grant of a detached acquire that
// fails because of Close is released, too.
//
// It waits for the cluster, at most about two seconds. If the cluster has not answered by
// then, it returns ErrUnavailable, and locks that were held are free when the session's TTL
// is over; likewise ErrUnauthenticated if the client's access token is refused. It is safe for concurrent use, may be called more than once, and returns the
// same each time. A node that is closed first closes the clients that it has returned.
func (c *Client) Close() error {
	c.mu.Lock()
	if ended(c.closing) {
		c.mu.Unlock()
		<-c.closeEnd
		return c.closeErr
	}
	close(c.closing)
	sessions := make([]*session, 0, len(c.sessions))
	for s := range c.sessions {
		sessions = append(sessions, s)
	}
	c.mu.Unlock()

	c.closeErr = c.endSessions(sessions)
	for _, s := range sessions {
		s.abandon()
	}
	c.mu.Lock()
	for o := range c.unsettled {
		o.call.Abandon()
	}
	c.mu.Unlock()
	if c.router != nil {
		c.router.close()
	}
	c.wg.Wait()
	close(c.closeEnd)
	return c.closeErr
}

// endSessions ends the sessions and waits until no operation is unsettled, at most for
// closeWait.
func (c *Client) endSessions(sessions []*session) error {
	c.mu.Lock()
	c.refused = nil // of a session that ended earlier
	c.mu.Unlock()
	for _, s := range sessions {
		o := c.endSession(s.id)
		c.track(o)
		if !s.close(o) {
			c.settled(o)
		}
	}
	c.mu.Lock()
	idle, cut := len(c.unsettled) == 0, c.cut
	settled := make(chan struct{})
	if !idle {
		c.allSettled = settled
	}
	c.mu.Unlock()
	switch {
	case cut:
		return &UnavailableError{Op: "close: end session", Last: errNodeEnded}
	case idle:
		return nil
	}
	patience := time.NewTimer(closeWait)
	defer patience.Stop()
	err := &UnavailableError{Op: "close: end session"}
	select {
	case <-settled:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.refused != nil {
			return newError(what{verb: "close: end session"}, c.refused)
		}
		return nil
	case <-c.over:
		err.Last = errNodeEnded
	case <-patience.C:
		if c.router != nil {
			err.Endpoints, err.Last = c.router.trouble()
		}
	}
	return err
}

// endSession returns the operation that ends a session.
func (c *Client) endSession(id [16]byte) *op {
	o := &op{c: c, untilReached: true}
	o.call.Op = &apiv1.Operation{Request: &apiv1.Operation_EndSession{
		EndSession: &apiv1.EndSessionRequest{Session: id[:]},
	}}
	return o
}

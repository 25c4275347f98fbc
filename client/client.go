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
	// reroute takes over a call that was refused; false leaves it to the caller.
	reroute(call *mux.Call, e *apiv1.Error, tries int) bool
	// refused notes an answer to an operation that is not sent again: the node is
	// left if it does not lead, so that the next one goes to who does.
	refused(e *apiv1.Error)
	// trouble returns what was tried and what went wrong; nil while there is a
	// node that takes operations.
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
	over    <-chan struct{} // closed when the backend has ended; nil: never
	wg      sync.WaitGroup

	mu         sync.Mutex // guards what follows, and the closing of closing
	closeErr   error
	closeEnd   chan struct{}         // closed when Close is done
	cut        bool                  // a session was open when the backend ended
	cur        *session              // takes new acquires; nil: the next one opens it
	sessions   map[*session]struct{} // all that have not ended
	unsettled  map[*op]struct{}      // operations without a caller whose answers Close waits for
	allSettled chan struct{}         // not nil: closed when unsettled is empty
}

// newEmbedded returns a client of an embedded node. It does nothing until it is used, and
// then checks its options. Closing it does not close the node.
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

// Dial returns a client of the cluster that the endpoints, host:port each, are
// nodes of. It finds the leader from any of them and follows it, and learns where the
// other members are: the endpoints may all be replaced while it is connected. A host may
// be a name, of several nodes, too; see [Resolver]. Once a node was used, nodes of
// other clusters are not.
//
// It checks its arguments and returns at once: connecting begins with the first
// operation, and a cluster that is not there yet is waited for. The client does
// not depend on ctx once Dial has returned.
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
	errs := []error{checkText(w, "holder", cfg.holder, false)}
	if cfg.ttl <= 0 {
		errs = append(errs, invalid(w, "session ttl is %v, must be positive", cfg.ttl))
	}
	if len(cfg.cluster) > maxID {
		errs = append(errs, invalid(w, "cluster has %d bytes, at most %d are an ID", len(cfg.cluster), maxID))
	}
	if cfg.connectTimeout < 0 {
		errs = append(errs, invalid(w, "connect timeout is %v, must not be negative", cfg.connectTimeout))
	}
	if len(cfg.labels) > 256 {
		errs = append(errs, invalid(w, "%d labels, at most 256 can be sent", len(cfg.labels)))
	}
	for _, l := range cfg.labels {
		errs = append(errs, checkText(w, "label key", l.GetKey(), true), checkText(w, "label value", l.GetValue(), false))
	}
	return errors.Join(errs...)
}

// errNodeEnded says why nothing can be asked any more.
var errNodeEnded = errors.New("node has ended")

// Done returns a channel that is closed when Close begins.
func (c *Client) Done() <-chan struct{} { return c.closing }

// ready returns ErrClosed if the client is of no use any more. Whatever else is
// wrong, this is what an operation returns then.
func (c *Client) ready(w what) error {
	switch {
	case ended(c.closing):
		return &opError{op: w.String(), kind: ErrClosed}
	case ended(c.over):
		return &opError{op: w.String(), kind: ErrClosed, text: errNodeEnded.Error()}
	}
	return nil
}

// admit returns why an operation is not begun at all.
func (c *Client) admit(ctx context.Context, w what) error {
	if ctx.Err() != nil {
		return c.ended(ctx, w, nil)
	}
	return c.ready(w)
}

// session returns the session for new acquires once it is open, and opens one
// if there is none.
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

// retire makes the next acquire open another session than s, which goes on for
// what it has.
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

// renewAll sends keep-alives soon: the backend has found another node, which
// knows of our sessions only when we name them.
func (c *Client) renewAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		s.renewSoon()
	}
}

// track has Close wait for the answer of an operation whose caller does not.
func (c *Client) track(o *op) {
	o.to = takerFunc(func(*apiv1.Answer) { c.settled(o) })
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

// Close ends the client's sessions, which releases all of its locks but detached
// ones. Operations under way and later ones fail with [ErrClosed], grants are lost;
// for those with [DelayAfterLoss] the delay begins. A detached grant whose call
// fails is released, too.
//
// It waits at most about two seconds for the cluster. If it returns an error,
// that wait was in vain: locks that were held are free when the session's TTL
// is over. It may be called more than once, and returns the same each time. A
// node that is closed closes the clients that it has given out, before it stops
// to serve them.
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

// ending ends the sessions and waits for what is still on its way.
func (c *Client) endSessions(sessions []*session) error {
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

// endSession tells the cluster that a session is not needed any more.
func (c *Client) endSession(id [16]byte) *op {
	o := &op{c: c, untilReached: true}
	o.call.Op = &apiv1.Operation{Request: &apiv1.Operation_EndSession{
		EndSession: &apiv1.EndSessionRequest{Session: id[:]},
	}}
	return o
}

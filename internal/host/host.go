package host

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// keepPlace is how long the place in the queue or the grant of a once ID is kept after
	// its caller has gone away, for a retry of the request.
	keepPlace = 5 * time.Second
	// idleSession is how long an unused session is kept.
	idleSession = time.Minute
	// maxUnanswered is how many requests a session has at a time. The cluster
	// remembers their answers.
	maxUnanswered = 4096
	// openPatience is how long a request waits for a session to be opened.
	openPatience = 5 * time.Second
	// retryAfter is the pause before a request that was refused for now is sent again.
	retryAfter = 100 * time.Millisecond
	// maxSessions bounds how many sessions one request is sent in.
	maxSessions = 8
	// never is later than the clock will ever read.
	never = time.Duration(math.MaxInt64)
)

// Config is what a Host needs. Everything but Logger is required.
type Config struct {
	// Start sends an operation that has a session to the leader. It must not block.
	Start func(*mux.Call)
	// Mono is the node's monotonic clock. Timers are real.
	Mono func() time.Duration
	// TTL is that of the sessions, as far as the limits allow it.
	TTL time.Duration
	// Limits are those of the lock table. It may wait for the table; only Run calls it.
	Limits func() fsm.Limits
	// Holder names the sessions, for people.
	Holder string
	Logger *slog.Logger // nil: silent
}

// Host sends operations without a session in sessions of its node. Its methods are safe for
// concurrent use.
type Host struct {
	cfg     Config
	woken   chan struct{}                   // holds a token when Run has to check what is due
	ids     atomic.Pointer[[]fsm.SessionID] // of byID
	applied atomic.Uint64                   // log index that this node has applied
	waits   atomic.Bool                     // something in behind

	mu       sync.Mutex                 // guards what follows
	current  *session                   // takes new requests; nil: none
	sessions []*session                 // that are kept alive, or being opened; oldest first
	byID     map[fsm.SessionID]*session // these, and ended ones with requests left
	tokens   map[uint64][]*request      // token → unanswered requests that the log says were granted it
	left     []*request                 // of callers that have gone away; Run handles them
	kept     []later                    // places that are kept for a retry, in order of time
	again    []later                    // the host's own requests that are to be retried
	behind   []behind                   // acquires whose session is over
	own      int                        // the host's own requests that are not answered
	closed   bool
	ownDone  chan struct{} // of Close: closed when own is 0; nil before
	calls    []*mux.Call   // to be started by unlock
	answers  []answered    // to be given by unlock
}

// later is a request with the time at which something is due.
type later struct {
	r   *request
	due time.Duration
}

// behind is an acquire whose session is over, and that waits until this node has applied the
// log up to the index of that answer.
type behind struct {
	r     *request
	index uint64
}

// answered is a call and its answer.
type answered struct {
	call   *mux.Call
	answer *apiv1.Answer
}

// New returns a host that has no session yet.
func New(cfg Config) *Host {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, woken: make(chan struct{}, 1), byID: make(map[fsm.SessionID]*session), tokens: make(map[uint64][]*request)}
	h.ids.Store(&[]fsm.SessionID{})
	return h
}

// Start sends an operation for which [Takes] is true, and answers it. It never blocks.
func (h *Host) Start(call *mux.Call) {
	r := h.newRequest(call)
	call.OnAbandon(func() { h.abandoned(r) })
	h.mu.Lock()
	defer h.unlock()
	switch {
	case r.gone:
	case h.closed:
		h.answerLocked(r, failed(apiv1.CodeUnavailable, "the node is stopping; nothing was done: send the request to another one"))
	default:
		h.placeLocked(r)
	}
}

// abandoned records that nobody gets the answer of r. It may be called with locks held, so
// Run does the rest.
func (h *Host) abandoned(r *request) {
	h.mu.Lock()
	r.gone = true
	h.left = append(h.left, r)
	h.mu.Unlock()
	h.wake()
}

func (h *Host) wake() {
	select {
	case h.woken <- struct{}{}:
	default:
	}
}

// unlock releases the mutex, and then starts and answers calls, for which the mutex must not
// be held.
func (h *Host) unlock() {
	calls, answers := h.calls, h.answers
	h.calls, h.answers = nil, nil
	h.mu.Unlock()
	for _, t := range answers {
		t.call.Done(t.answer)
	}
	for _, c := range calls {
		h.cfg.Start(c)
	}
}

// Run keeps sessions alive and does what takes time, until ctx ends.
func (h *Host) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-h.woken:
		}
		timer.Reset(h.tick())
	}
}

// tick does what is due, and returns how long until something is due again.
func (h *Host) tick() time.Duration {
	h.size()
	h.mu.Lock()
	defer h.unlock()
	now := h.cfg.Mono()
	for _, r := range h.left {
		h.leaveLocked(r)
	}
	h.left = nil
	h.resumeLocked()
	next := never
	for len(h.kept) > 0 && h.kept[0].due <= now {
		h.stopKeepingLocked(h.kept[0])
		h.kept = h.kept[1:]
	}
	if len(h.kept) > 0 {
		next = h.kept[0].due
	}
	next = min(next, h.sendAgainLocked(now))
	for i := 0; i < len(h.sessions); i++ {
		s := h.sessions[i]
		if s.tickLocked(now); s.over {
			i-- // it is gone from the list
			continue
		}
		next = min(next, s.nextLocked())
	}
	if next == never {
		return time.Hour // or until something comes
	}
	return max(next-now, time.Millisecond)
}

// size sets what depends on the limits in new sessions.
func (h *Host) size() {
	h.mu.Lock()
	sized := !slices.ContainsFunc(h.sessions, func(s *session) bool { return s.ttl == 0 })
	h.mu.Unlock()
	if sized {
		return
	}
	limits := h.cfg.Limits()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		if s.ttl == 0 {
			s.ttl = min(max(h.cfg.TTL, time.Duration(limits.MinTTL)), time.Duration(limits.MaxTTL))
			s.maxWaits = limits.GrantsPerSession
			if len(h.cfg.Holder) <= limits.HolderBytes {
				s.holder = h.cfg.Holder
			}
		}
	}
}

// Observe is called for every entry that this node applies, on the goroutine that applies
// it. It records which requests were granted, and which of these grants ended.
func (h *Host) Observe(a *fsm.Applied) {
	ids := *h.ids.Load()
	for i := range a.Events {
		if len(ids) == 0 {
			break
		}
		switch e := &a.Events[i]; e.Kind {
		case fsm.EventGranted:
			h.granted(ids, e.Request, e, a)
			for _, other := range e.Others {
				h.granted(ids, other, e, a)
			}
		case fsm.EventReleased, fsm.EventExpired, fsm.EventRevoked:
			h.ended(e.Token)
		}
	}
	h.Restored(a.Index)
}

// granted records that the log grants a request, if it is one of the host's.
func (h *Host) granted(ids []fsm.SessionID, id fsm.RequestID, e *fsm.Event, a *fsm.Applied) {
	if !slices.Contains(ids, id.Session) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.byID[id.Session]; s != nil {
		if r := s.window.Get(id.Sequence); r != nil {
			r.granted = grantAnswer(&e.Result, a.Index)
			h.tokens[e.Token] = append(h.tokens[e.Token], r)
		}
	}
}

// ended records that the log ends a grant, if it is that of one of the host's requests.
func (h *Host) ended(token uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.tokens[token] {
		r.granted = nil
	}
	delete(h.tokens, token)
}

// forgetGrantLocked forgets the grant of a request whose answer is no longer needed.
func (h *Host) forgetGrantLocked(r *request) {
	if r.granted == nil {
		return
	}
	token := r.granted.GetAcquire().GetToken()
	r.granted = nil
	rest := slices.DeleteFunc(h.tokens[token], func(other *request) bool { return other == r })
	if h.tokens[token] = rest; len(rest) == 0 {
		delete(h.tokens, token)
	}
}

// Restored is called after a snapshot has brought this node's table to an index. There are no
// events for what happened up to there: a request that was granted meanwhile, and whose
// session is over, counts as not granted.
func (h *Host) Restored(index uint64) {
	h.applied.Store(index)
	if h.waits.Load() {
		h.wake()
	}
}

// Close answers unanswered requests with unavailable, gives up the acquires among them as if
// their callers had gone away, and ends the sessions. A session in which a place is kept for
// a retry is not ended: it expires. Close waits until the cluster has applied all that or
// ctx ends; Run has to run meanwhile.
func (h *Host) Close(ctx context.Context) {
	done := make(chan struct{})
	h.mu.Lock()
	h.closed = true
	for _, r := range h.left {
		h.leaveLocked(r)
	}
	h.left = nil
	for _, s := range append([]*session(nil), h.sessions...) {
		s.closeLocked()
	}
	if h.own == 0 {
		close(done)
	} else {
		h.ownDone = done
	}
	h.unlock()
	select {
	case <-done:
	case <-ctx.Done():
		h.cfg.Logger.Info("stopping before the requests of callers without a session were cancelled", "err", context.Cause(ctx))
	}
}

// ownLocked counts the host's own requests under way.
func (h *Host) ownLocked(delta int) {
	if h.own += delta; h.own == 0 && h.ownDone != nil {
		close(h.ownDone)
		h.ownDone = nil
	}
}

package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/window"
)

const (
	// maxOpen bounds the unanswered operations of a session, and so how many end at once
	// with it. Beyond it new acquires go to another session; operations that free a
	// lock do not.
	maxOpen = 4096
	// maxRenewals bounds the keep-alives under way.
	maxRenewals = 3
	// idleSession is how long an unused session is kept.
	idleSession = time.Minute
	// forever is later than any reading of the clock.
	forever = time.Duration(math.MaxInt64)
)

// errAgain says that the session has ended or retired, and that the operation is to
// be repeated in another one.
var errAgain = errors.New("session changed")

// session is the liveness of a client: it has grants and places in queues. Its goroutine
// opens it and keeps it alive. It ends once: when the cluster answers that it has ended,
// when the client is closed, or when it has retired and has no grant or operation left.
//
// While now >= ticket.bound(deadline) the session is in doubt: it has no valid grant,
// because the cluster may have ended it, but keep-alives go on, and if one is
// answered the session goes on as before.
type session struct {
	c       *Client
	id      [16]byte
	opening *op
	failed  atomic.Bool   // could not be opened, for the reason in cause
	ready   chan struct{} // closed when open or ended
	over    chan struct{} // closed when ended
	woken   chan struct{} // of capacity 1: wakes run

	mu        sync.Mutex // guards what follows
	opened    bool
	cause     error // why it has ended; nil: it has not
	retired   bool  // takes no new acquires
	ticket    ticket
	deadline  int64         // cluster time: the latest of all answers
	latest    time.Duration // a bound of the bound, whatever the stamps are; see extendLocked
	extended  chan struct{} // closed and replaced when the bound grows; nil: no goroutine waits
	renewAt   time.Duration // when the next keep-alive is due
	renewals  []*op         // keep-alives under way
	failures  int           // keep-alives refused in a row
	refusal   *apiv1.Error  // why the last one was, if the caller is: he is not known, or may not
	wakeAt    time.Duration // when run wakes up by itself
	idleSince time.Duration
	window    window.Window[op]
	acquires  int // under way
	// undelivered are the detached acquires whose answer no caller got: they are not
	// answered, or cancelled and the cancel is not answered. They may have been granted.
	undelivered map[*acquiring]struct{}
	grants      map[uint64]*Grant
	timed       grantHeap                    // grants with a TTL
	firstOver   time.Duration                // no later than Grant.latest of any of them
	revoked     map[uint64]*apiv1.Revocation // by token: received before the acquire was answered
	seen        uint64                       // number up to which all revocations were received
	missedUntil int64                        // cluster time: of grants of up to then a revocation may have been missed; see missedLocked
	delays      int                          // releases of lost grants with a delay, not answered
	ending      *op                          // to be sent when delays is 0
}

func newSession(c *Client) *session {
	s := &session{
		c:      c,
		ready:  make(chan struct{}),
		over:   make(chan struct{}),
		woken:  make(chan struct{}, 1),
		grants: make(map[uint64]*Grant),
	}
	_, _ = rand.Read(s.id[:]) // never fails
	s.opening = &op{c: c}
	s.opening.call.Op = &apiv1.Operation{Request: &apiv1.Operation_OpenSession{
		OpenSession: &apiv1.OpenSessionRequest{
			Session: s.id[:],
			TtlNs:   int64(c.config.ttl),
			Holder:  c.config.holder,
			Labels:  c.config.labels,
		},
	}}
	return s
}

// run opens the session, keeps it alive and ends grants whose time is over. It is
// the session's only goroutine.
func (s *session) run() {
	defer s.c.forget(s)
	stop := s.c.backend.Watch(s.id, s.notice)
	defer stop()
	if !s.open() {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.woken:
		case <-s.over:
			return
		case <-s.c.over:
			s.cutOff()
			return
		}
		sleep, renew := s.tick()
		if renew {
			s.renew()
		}
		timer.Reset(sleep)
	}
}

// open waits until the session is open or has ended, and reports whether it is open.
func (s *session) open() bool {
	sent := s.c.now()
	answers := make(chan *apiv1.Answer, 1)
	s.opening.to = takerFunc(func(a *apiv1.Answer) { answers <- a })
	s.c.send(s.opening)
	select {
	case a := <-answers:
		e := a.GetError()
		if apiv1.Code(e.GetCode()) == apiv1.CodeNoSession {
			// It was opened, the answer was lost, and it has expired meanwhile.
			s.expired()
			return false
		}
		if e != nil {
			s.failed.Store(true)
			s.end(s.c.failure(what{verb: "open session"}, e), LostExpired, "")
			return false
		}
		s.mu.Lock()
		closed := s.cause != nil
		if !closed {
			s.opened = true
			s.idleSince = sent
			s.extendLocked(sent, a.GetOpenSession().GetDeadline(), a.GetStamp())
			s.renewAt = sent + s.renewEvery()
			close(s.ready)
		}
		s.mu.Unlock()
		s.c.log.Debug("session opened", "session", hex.EncodeToString(apiv1.SessionHash(s.id[:])), "ttl", s.c.config.ttl)
		return !closed
	case <-s.over:
	case <-s.c.over:
		s.cutOff()
	}
	s.opening.call.Abandon()
	return false
}

// cutOff ends a session whose backend has ended.
func (s *session) cutOff() {
	if s.wasOpened() {
		s.c.cutOff()
	}
	s.end(s.c.ready(what{verb: "session"}), LostClosed, errNodeEnded.Error())
}

// tick ends the grants whose time is over, and the session if it is idle. It returns how
// long run sleeps, and whether a keep-alive is due.
func (s *session) tick() (sleep time.Duration, renew bool) {
	if s.retireIfIdle() {
		return tickEvery, false
	}
	now := s.c.now()
	s.mu.Lock()
	lost := s.expireLocked(now)
	s.window.Each(func(o *op) {
		if r, ok := o.to.(*releasing); ok && now-r.since >= unlockWait {
			r.unblock()
		}
	})
	if now >= s.renewAt && len(s.renewals) < maxRenewals {
		renew = true
		s.renewAt = now + s.renewEvery()
	}
	next := now + tickEvery
	if len(s.renewals) < maxRenewals {
		next = min(next, s.renewAt) // otherwise an answer has to come first, which wakes run
	}
	if len(s.grants) > 0 {
		next = min(next, s.boundLocked())
	}
	if len(s.timed) > 0 {
		next = min(next, s.timed[0].boundLocked())
	}
	s.wakeAt = next
	s.mu.Unlock()
	lost.notify()
	return max(next-now, 0), renew
}

// renewEvery returns the time between keep-alives: a third of the TTL, but not so
// long that one percent of it matters to the deadlines of grants.
func (s *session) renewEvery() time.Duration { return min(s.c.config.ttl/3, time.Minute) }

// retireIfIdle ends a session that has been unused for long, or has retired and has no grant
// or operation left, and reports whether it did.
func (s *session) retireIfIdle() bool {
	c := s.c
	c.mu.Lock()
	s.mu.Lock()
	idle := s.cause == nil && len(s.grants) == 0 && s.window.Len() == 0 && s.acquires == 0
	if idle && !s.retired {
		idle = (c.now()-s.idleSince)/6 > max(idleSession/6, c.config.ttl)
	}
	if idle {
		s.retired = true
		if c.cur == s {
			c.cur = nil
		}
	}
	s.mu.Unlock()
	c.mu.Unlock()
	if !idle {
		return false
	}
	s.end(&opError{op: "session", kind: ErrSession, text: "retired"}, LostClosed, "")
	o := c.endSession(s.id)
	c.track(o)
	c.send(o)
	time.AfterFunc(c.config.ttl, o.call.Abandon) // by then it has expired
	return true
}

// renew sends a keep-alive. The bound counts from when it is sent, so that it is sent once
// and not retried.
func (s *session) renew() {
	sent := s.c.now()
	o := &op{c: s.c, noRetry: true}
	o.to = takerFunc(func(a *apiv1.Answer) { s.renewed(o, sent, a) })
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	o.call.Op = &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{
		KeepAlive: &apiv1.KeepAliveRequest{Session: s.id[:], RevocationsSeen: s.seen},
	}}
	s.renewals = append(s.renewals, o)
	s.mu.Unlock()
	s.c.send(o)
}

// renewed gets the answer of a keep-alive first sent at sent.
func (s *session) renewed(o *op, sent time.Duration, a *apiv1.Answer) {
	now := s.c.now()
	e := a.GetError()
	alive := a.GetKeepAlive()
	if apiv1.Code(e.GetCode()) == apiv1.CodeNoSession || e == nil && alive.GetDeadline() == 0 {
		s.expired()
		return
	}
	s.mu.Lock()
	s.renewals = slices.DeleteFunc(s.renewals, func(r *op) bool { return r == o })
	foreign := false
	if e != nil {
		pause := min(jitter(s.failures), s.c.config.ttl/12)
		if s.refusal = nil; turnedAway(e) {
			// There may be another token in time, but nodes slow down those who guess.
			s.refusal, pause = e, max(pause, s.c.config.ttl/6)
			// The session is another caller's: the token is one with another name now.
			foreign = apiv1.Code(e.GetCode()) == apiv1.CodeDenied
		}
		s.renewAt = min(s.renewAt, now+pause)
		s.failures++
	} else {
		s.failures, s.refusal = 0, nil
		s.extendLocked(sent, alive.GetDeadline(), a.GetStamp())
	}
	lost := s.takeRevocationsLocked(alive.GetRevocations(), a.GetStamp())
	s.retired = s.retired || foreign
	s.mu.Unlock()
	if foreign {
		s.c.retire(s)
	}
	s.wake()
	lost.notify()
}

// notice is called by the backend and does not block.
func (s *session) notice(n *apiv1.Notice) {
	r := n.GetRevocation()
	if r == nil {
		s.expired()
		return
	}
	s.mu.Lock()
	lost := s.revokeLocked(r)
	if r.GetNumber() == s.seen+1 {
		s.seen++ // with a gap, the answer to a keep-alive has what is missing
	}
	s.mu.Unlock()
	lost.notify()
}

// expired ends the session when the cluster answers that there is no such session.
func (s *session) expired() {
	s.end(&opError{op: "session", kind: ErrSession}, LostExpired, "")
}

// renewSoon makes a keep-alive due now.
func (s *session) renewSoon() {
	s.mu.Lock()
	s.renewAt = 0
	s.mu.Unlock()
	s.wake()
}

// wake makes run look at the time again.
func (s *session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// extendLocked notes that a request first sent at sent was applied at stamp and
// gave the session the deadline.
func (s *session) extendLocked(sent time.Duration, deadline, stamp int64) {
	before := s.boundLocked()
	s.ticket.learn(sent, stamp)
	// A deadline farther away than the TTL cannot be that of this session. And whatever
	// the stamps are, the cluster ends the session no later than one TTL after its last
	// answer arrives: stamps may be wrong, or fall because a backup was restored.
	s.deadline = max(s.deadline, min(deadline, sum(stamp, int64(s.c.config.ttl))))
	s.latest = sum(s.c.now(), s.c.config.ttl)
	if s.extended != nil && s.boundLocked() > before {
		close(s.extended)
		s.extended = nil
	}
}

// boundLocked returns until when the session is certain to be open.
func (s *session) boundLocked() time.Duration { return min(s.ticket.bound(s.deadline), s.latest) }

// confirm waits until the session is certain to be open. It returns errAgain if it has
// ended, and the error of ctx if that ends first.
func (s *session) confirm(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.cause != nil {
			s.mu.Unlock()
			return errAgain
		}
		if s.c.now() < s.boundLocked() {
			s.mu.Unlock()
			return nil
		}
		if s.extended == nil {
			s.extended = make(chan struct{})
		}
		extended := s.extended
		s.renewAt = min(s.renewAt, s.c.now())
		s.mu.Unlock()
		s.wake()
		select {
		case <-extended:
		case <-s.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end ends the session, once: its grants are lost for reason, its operations
// are abandoned.
func (s *session) end(cause error, reason LostReason, why string) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.window.Each(func(o *op) { o.call.Abandon() })
	lost := s.endLocked(cause, reason, why)
	s.mu.Unlock()
	s.notifyEnd(lost)
}

// endLocked is end without abandoning the operations. The caller calls notifyEnd once it
// holds no mutex.
func (s *session) endLocked(cause error, reason LostReason, why string) losses {
	s.cause = cause
	if !s.opened {
		close(s.ready)
	}
	close(s.over)
	var lost losses
	for _, g := range s.grants {
		lost = append(lost, s.loseLocked(g, reason, "", why))
	}
	for _, o := range s.renewals {
		o.call.Abandon()
	}
	return lost
}

// notifyEnd reports the losses and logs the end of the session.
func (s *session) notifyEnd(lost losses) {
	s.c.retire(s)
	lost.notify()
	s.c.log.Debug("session ended", "session", hex.EncodeToString(apiv1.SessionHash(s.id[:])), "grants_lost", len(lost), "err", s.cause)
}

// close ends the session of a client that is closed, and sends ending, the operation that
// ends it in the cluster. It returns false if that is not needed.
//
// Grants with a delay after a loss are released as lost, because their holders have
// not unlocked them and may have sent something that has not arrived. The end of the
// session would release them without the delay, so it is sent after these releases.
func (s *session) close(ending *op) bool {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return false
	}
	var lost losses
	now := s.c.now()
	for _, g := range s.grants {
		if g.delay > 0 {
			lost = append(lost, s.surrenderLocked(g, LostClosed, "", now))
		}
	}
	s.window.Each(func(o *op) {
		if r, ok := o.to.(*releasing); !ok || !r.delays {
			o.call.Abandon()
		}
	})
	// From here on their callers get no grant, whatever the answers are.
	undelivered := ending.call.Op.GetEndSession()
	for a := range s.undelivered {
		undelivered.Undelivered = append(undelivered.Undelivered, a.id.GetSequence())
	}
	slices.Sort(undelivered.Undelivered)
	s.undelivered = nil
	opened, wait := s.opened, s.delays > 0
	if opened && wait {
		s.ending = ending
	}
	lost = append(lost, s.endLocked(&opError{op: "close", kind: ErrClosed}, LostClosed, "")...)
	s.mu.Unlock()
	s.notifyEnd(lost)
	if opened && !wait {
		s.c.send(ending)
	}
	return opened
}

// abandon gives up the operations that close has not.
func (s *session) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.Each(func(o *op) { o.call.Abandon() })
}

func (s *session) wasOpened() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

package client

import (
	"container/heap"
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
)

const (
	// maxSpan bounds the sequences of a session from the first unanswered one
	// on: the cluster remembers their answers. Beyond it, because one acquire
	// waits long, new acquires go to another session.
	maxSpan = 4096
	// maxRenewals bounds the keep-alives under way.
	maxRenewals = 3
	// idleSession is how long a session is kept for nothing.
	idleSession = time.Minute
	// forever is later than the clock will ever read.
	forever = time.Duration(math.MaxInt64)
)

// errAgain says that the session ended or retired under an acquire, which is to
// be repeated in another one.
var errAgain = errors.New("session changed")

// session is the liveness of a client, which owns grants and places in line. It
// is opened by its goroutine, kept alive, and ends once: when the cluster says
// that it has ended, when the client is closed, or when it has retired and has
// nothing left.
//
// While now >= ticket.bound(deadline) the session is in doubt: nothing is held,
// because the cluster may have ended it, but keep-alives go on, and if one is
// answered the session is as good as before.
type session struct {
	c       *Client
	id      [16]byte
	opening *op
	failed  atomic.Bool   // could not be opened, for the reason in cause
	ready   chan struct{} // closed when open or ended
	over    chan struct{} // closed when ended
	wake    chan struct{} // of capacity 1: run looks at the time again

	mu        sync.Mutex // guards what follows
	opened    bool
	cause     error // not nil: ended
	retired   bool  // takes no new acquires
	ticket    ticket
	deadline  int64         // cluster time: the latest that was answered
	latest    time.Duration // no answer can have meant a later bound; see extendLocked
	extended  chan struct{} // closed and replaced when the bound grows; nil: nobody waits
	renewAt   time.Duration // when the next keep-alive is due
	renewals  []*op         // keep-alives under way
	failures  int           // keep-alives refused in a row
	wakeAt    time.Duration // when run wakes up by itself
	idleSince time.Duration
	window    window
	acquires  int // under way
	grants    map[uint64]*Grant
	timed     grantHeap                    // grants with a TTL
	firstOver time.Duration                // not after the latest bound of any of them
	revoked   map[uint64]*apiv1.Revocation // told before the acquire was answered
	seen      uint64                       // revocations up to this one are known
}

func newSession(c *Client) *session {
	s := &session{
		c:      c,
		ready:  make(chan struct{}),
		over:   make(chan struct{}),
		wake:   make(chan struct{}, 1),
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

// run opens the session, keeps it alive and ends grants whose time is up. It is
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
		case <-s.wake:
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

// open returns when the session is open or has ended.
func (s *session) open() bool {
	sent := s.c.now()
	answers := make(chan *apiv1.Answer, 1)
	s.opening.to = takerFunc(func(a *apiv1.Answer) { answers <- a })
	s.c.send(s.opening)
	select {
	case a := <-answers:
		e := a.GetError()
		if apiv1.Code(e.GetCode()) == apiv1.CodeNoSession {
			// It was opened, the answer was lost, and its time has run out meanwhile.
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
		s.c.log.Debug("session opened", "session", hex.EncodeToString(s.id[:]), "ttl", s.c.config.ttl)
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

// tick ends what is over and returns how long to sleep, and whether a keep-alive
// is due.
func (s *session) tick() (sleep time.Duration, renew bool) {
	if s.retireIfIdle() {
		return tickEvery, false
	}
	now := s.c.now()
	s.mu.Lock()
	lost := s.expireLocked(now)
	s.window.each(func(o *op) {
		if r, ok := o.to.(*releasing); ok && now-r.since >= unlockWait {
			r.leave()
		}
	})
	if now >= s.renewAt && len(s.renewals) < maxRenewals {
		renew = true
		s.renewAt = now + s.renewEvery()
	}
	next := now + tickEvery
	if len(s.renewals) < maxRenewals {
		next = min(next, s.renewAt) // otherwise an answer has to come first
	}
	if len(s.grants) > 0 {
		next = min(next, s.boundLocked())
	}
	if len(s.timed) > 0 {
		next = min(next, s.timed[0].boundLocked())
	}
	s.wakeAt = next
	s.mu.Unlock()
	lost.tell()
	return max(next-now, 0), renew
}

// renewEvery returns the time between keep-alives: a third of the TTL, but not so
// long that one percent of it matters to the deadlines of grants.
func (s *session) renewEvery() time.Duration { return min(s.c.config.ttl/3, time.Minute) }

// retireIfIdle ends a session that has been of no use for long, or has retired
// and has nothing left.
func (s *session) retireIfIdle() bool {
	c := s.c
	c.mu.Lock()
	s.mu.Lock()
	idle := s.cause == nil && len(s.grants) == 0 && s.window.span() == 0 && s.acquires == 0
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
	c.sendLoose(o)
	time.AfterFunc(c.config.ttl, o.call.Abandon) // by then it has ended by itself
	return true
}

// renew sends a keep-alive. Each has its own beginning, so each is sent as it
// is and never again.
func (s *session) renew() {
	sent := s.c.now()
	o := &op{c: s.c, final: true}
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
	if e != nil {
		s.renewAt = min(s.renewAt, now+min(jitter(s.failures), s.c.config.ttl/12))
		s.failures++
	} else {
		s.failures = 0
		s.extendLocked(sent, alive.GetDeadline(), a.GetStamp())
	}
	var lost losses
	for _, r := range alive.GetRevocations() {
		lost = append(lost, s.revokeLocked(r)...)
		s.seen = max(s.seen, r.GetNumber())
	}
	s.mu.Unlock()
	s.poke()
	lost.tell()
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
		s.seen++ // with a gap, a keep-alive will tell what is missing
	}
	s.mu.Unlock()
	lost.tell()
}

// expired is called when the cluster says that there is no such session.
func (s *session) expired() {
	s.end(&opError{op: "session", kind: ErrSession}, LostExpired, "")
}

// renewSoon makes a keep-alive due.
func (s *session) renewSoon() {
	s.mu.Lock()
	s.renewAt = 0
	s.mu.Unlock()
	s.poke()
}

// poke makes run look at the time again.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// extendLocked notes that a request first sent at sent was applied at stamp and
// gave the session the deadline.
func (s *session) extendLocked(sent time.Duration, deadline, stamp int64) {
	before := s.boundLocked()
	s.ticket.learn(sent, stamp)
	// A deadline farther away than the TTL cannot be ours. And whatever the stamps
	// say, the cluster ends the session no later than one TTL after its last answer
	// arrives: stamps may lie, or fall because a backup was restored.
	s.deadline = max(s.deadline, min(deadline, sum(stamp, int64(s.c.config.ttl))))
	s.latest = sum(s.c.now(), s.c.config.ttl)
	if s.extended != nil && s.boundLocked() > before {
		close(s.extended)
		s.extended = nil
	}
}

// boundLocked returns until when the session is believed in.
func (s *session) boundLocked() time.Duration { return min(s.ticket.bound(s.deadline), s.latest) }

// confirm waits until the session is believed in, and returns errAgain if it
// has ended.
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
		s.poke()
		select {
		case <-extended:
		case <-s.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// expireLocked takes out the grants whose time is up.
func (s *session) expireLocked(now time.Duration) losses {
	var lost losses
	for len(s.timed) > 0 && s.timed[0].boundLocked() <= now {
		lost = append(lost, s.loseLocked(s.timed[0], LostExpired, "", ""))
	}
	if len(s.timed) > 0 && now >= s.firstOver {
		lost = append(lost, s.expireOverLocked(now)...)
	}
	if len(s.grants) == 0 || now < s.boundLocked() {
		return lost
	}
	for _, g := range s.grants {
		l := s.loseLocked(g, LostDeadline, "", "")
		l.release = true // the cluster may not know yet that nobody holds it
		lost = append(lost, l)
	}
	return lost
}

// expireOverLocked takes out the grants whose TTL has passed since they came. The
// heap, which goes by deadlines, has them on top only if the stamps are right.
func (s *session) expireOverLocked(now time.Duration) losses {
	var over []*Grant
	s.firstOver = forever
	for _, g := range s.timed {
		if g.latest <= now {
			over = append(over, g)
		} else {
			s.firstOver = min(s.firstOver, g.latest)
		}
	}
	var lost losses
	for _, g := range over {
		lost = append(lost, s.loseLocked(g, LostExpired, "", ""))
	}
	return lost
}

// revokeLocked ends the grant that an operator has ended.
func (s *session) revokeLocked(r *apiv1.Revocation) losses {
	if g := s.grants[r.GetToken()]; g != nil {
		return losses{s.loseLocked(g, LostForced, r.GetWho(), r.GetReason())}
	}
	if s.acquires > 0 && r.GetNumber() > s.seen && len(s.revoked) < maxSpan {
		if s.revoked == nil {
			s.revoked = make(map[uint64]*apiv1.Revocation)
		}
		s.revoked[r.GetToken()] = r
	}
	return nil
}

// loseLocked ends the belief in g. The caller tells the loss once it holds no mutex.
func (s *session) loseLocked(g *Grant, reason LostReason, who, why string) loss {
	s.dropLocked(g)
	g.state = grantLost
	g.err = &LostError{Lock: g.name, Token: g.token, Reason: reason, Who: who, Why: why}
	if g.lost != nil {
		close(g.lost)
	}
	return loss{grant: g}
}

// dropLocked forgets g.
func (s *session) dropLocked(g *Grant) {
	delete(s.grants, g.token)
	if g.deadline != 0 {
		heap.Remove(&s.timed, g.place)
	}
	if len(s.grants) == 0 {
		s.idleSince = s.c.now()
	}
}

// end ends the session, once: its grants are lost for reason, its operations
// are moot.
func (s *session) end(cause error, reason LostReason, why string) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.cause = cause
	if !s.opened {
		close(s.ready)
	}
	close(s.over)
	var lost losses
	for _, g := range s.grants {
		lost = append(lost, s.loseLocked(g, reason, "", why))
	}
	s.window.each(func(o *op) { o.call.Abandon() })
	for _, o := range s.renewals {
		o.call.Abandon()
	}
	s.mu.Unlock()
	s.c.retire(s)
	lost.tell()
	s.c.log.Debug("session ended", "session", hex.EncodeToString(s.id[:]), "grants_lost", len(lost), "err", cause)
}

func (s *session) wasOpened() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// losses are grants that have been lost but not told.
type losses []loss

type loss struct {
	grant   *Grant
	release bool // give it back to the cluster
}

// tell is called without any mutex: contexts and backends run code of others.
func (l losses) tell() {
	for _, one := range l {
		one.grant.tell()
		if one.release {
			one.grant.giveBack()
		}
	}
}

// grantHeap is a heap of grants with a TTL; the first to end is on top.
type grantHeap []*Grant

func (h grantHeap) Len() int           { return len(h) }
func (h grantHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }
func (h grantHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is part of heap.Interface.
func (h *grantHeap) Push(x any) {
	g := x.(*Grant)
	g.place = len(*h)
	*h = append(*h, g)
}

// Pop is part of heap.Interface.
func (h *grantHeap) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return g
}

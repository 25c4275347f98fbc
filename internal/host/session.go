package host

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/window"
)

// maxRenewals bounds the keep-alives under way.
const maxRenewals = 3

// session is one session of the host. All of it is guarded by Host.mu.
type session struct {
	h        *Host
	id       fsm.SessionID
	ttl      time.Duration // 0: not known yet
	holder   string
	window   window.Window[request]
	waits    int        // acquires in it, or to be sent in it, that wait
	maxWaits int        // the table allows no more; 0: not known yet
	queue    []*request // to be sent once it is open
	open     bool
	over     bool // ended, by the cluster or by the host; the window may have requests left
	opening  bool // it was sent, and is not answered
	openAt   time.Duration
	openErr  *apiv1.Error // why it is not open yet
	renewAt  time.Duration
	renewals int // keep-alives under way
	usedAt   time.Duration
}

func (h *Host) newSessionLocked() *session {
	s := &session{h: h}
	h.sessions = append(h.sessions, s)
	s.renameLocked()
	return s
}

// renameLocked gives a session that is not open an ID that was not used yet.
func (s *session) renameLocked() {
	delete(s.h.byID, s.id)
	_, _ = rand.Read(s.id[:]) // never fails
	s.h.byID[s.id] = s
	s.h.publishIDsLocked()
}

// publishIDsLocked publishes the IDs of the sessions to Observe.
func (h *Host) publishIDsLocked() {
	ids := make([]fsm.SessionID, 0, len(h.byID))
	for id := range h.byID {
		ids = append(ids, id)
	}
	h.ids.Store(&ids)
}

// isFullLocked reports whether r has to be sent in another session.
func (s *session) isFullLocked(r *request) bool {
	return s.window.Len()+len(s.queue) >= maxUnanswered || r.waits && s.maxWaits > 0 && s.waits >= s.maxWaits
}

// tickLocked does what is due in a session that is not over.
func (s *session) tickLocked(now time.Duration) {
	if !s.open {
		s.waitToOpenLocked(now)
		return
	}
	idle := s.window.Len() == 0
	if retired := s.h.current != s; idle && (retired || now-s.usedAt >= idleSession) {
		s.endLocked(nil)
		return
	}
	if now >= s.renewAt && s.renewals < maxRenewals {
		s.renewLocked(now)
	}
}

// nextLocked returns when something is due in it again.
func (s *session) nextLocked() time.Duration {
	if !s.open {
		next := never
		if !s.opening {
			next = s.openAt
		}
		for _, r := range s.queue {
			next = min(next, r.patienceEnds())
		}
		return next
	}
	next := never
	if s.renewals < maxRenewals {
		next = s.renewAt // otherwise an answer has to come first
	}
	if s.window.Len() == 0 {
		next = min(next, s.usedAt+idleSession)
	}
	return next
}

// waitToOpenLocked sends the request that opens the session, and answers requests that have
// waited for it too long. When no request waits, the session is given up: if it is opened
// nevertheless, it expires.
func (s *session) waitToOpenLocked(now time.Duration) {
	s.queue = slices.DeleteFunc(s.queue, func(r *request) bool {
		switch {
		case !r.gone && now < r.patienceEnds():
			return false
		case s.openErr != nil:
			s.h.answerLocked(r, &apiv1.Answer{Result: &apiv1.Answer_Error{Error: s.openErr}})
		default:
			s.h.answerLocked(r, failed(apiv1.CodeUnavailable, "no leader has opened a session for the request within %v; nothing was done", openPatience))
		}
		s.h.dropLocked(r)
		return true
	})
	switch {
	case len(s.queue) == 0:
		s.removeLocked()
	case !s.opening && now >= s.openAt && s.ttl > 0:
		s.sendOpenLocked(now)
	}
}

// patienceEnds returns until when r waits for its session to be opened. A request of the
// host's own waits until it is needed no more.
func (r *request) patienceEnds() time.Duration {
	if r.outer == nil {
		return r.until
	}
	return r.placed + openPatience
}

func (s *session) sendOpenLocked(now time.Duration) {
	s.opening = true
	h, id := s.h, s.id
	h.calls = append(h.calls, &mux.Call{
		Op: &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{
			Session: id[:], TtlNs: int64(s.ttl), Holder: s.holder,
		}}},
		Done: func(a *apiv1.Answer) {
			h.mu.Lock()
			defer h.unlock()
			if s.id == id && s.opening {
				s.openedLocked(now, a)
			}
		},
	})
}

// openedLocked processes the answer of the request that was sent at a time.
func (s *session) openedLocked(sent time.Duration, a *apiv1.Answer) {
	s.opening = false
	h, e := s.h, a.GetError()
	switch code := apiv1.Code(e.GetCode()); {
	case s.over:
	case e == nil:
		s.open, s.openErr = true, nil
		s.renewAt = sent + s.ttl/3
		s.usedAt = h.cfg.Mono()
		queue := s.queue
		s.queue = nil
		for _, r := range queue {
			if r.gone {
				h.dropLocked(r)
			} else {
				s.issueLocked(r)
			}
		}
		h.cfg.Logger.Debug("session for requests without one opened", "session", hex.EncodeToString(apiv1.SessionHash(s.id[:])), "ttl", s.ttl)
	case code == apiv1.CodeNoSession: // it was opened, the answer was lost, and it has expired
		s.renameLocked()
	case isPassing(code):
		s.openErr, s.openAt = e, h.cfg.Mono()+retryAfter
	default:
		s.refusedLocked(e)
	}
	h.wake()
}

// refusedLocked is called when the table has no room for another session. Acquires are
// refused. Operations that free a lock or keep it must not be refused: they are sent without
// a request ID.
func (s *session) refusedLocked(e *apiv1.Error) {
	h, queue := s.h, s.queue
	s.queue = nil
	s.removeLocked()
	for _, r := range queue {
		h.dropLocked(r)
		switch {
		case r.gone:
		case r.acquire:
			h.answerLocked(r, &apiv1.Answer{Result: &apiv1.Answer_Error{Error: e}})
		default:
			h.sendLocked(r, withID(r.op, nil, 0))
		}
	}
}

// renewLocked sends a keep-alive. A TTL counts from when its keep-alive was sent, so none is
// sent twice.
func (s *session) renewLocked(now time.Duration) {
	s.renewals++
	s.renewAt = now + s.ttl/3
	h := s.h
	h.calls = append(h.calls, &mux.Call{
		Op: &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: s.id[:]}}},
		Done: func(a *apiv1.Answer) {
			h.mu.Lock()
			defer h.unlock()
			s.renewals--
			switch code := apiv1.Code(a.GetError().GetCode()); {
			case s.over || code == apiv1.CodeOK:
			case code == apiv1.CodeNoSession:
				s.endedLocked()
			default:
				s.renewAt = min(s.renewAt, h.cfg.Mono()+retryAfter)
			}
			h.wake()
		},
	})
}

// endedLocked is called when the cluster says that there is no such session. Its
// requests are answered the same, one by one.
func (s *session) endedLocked() {
	if s.over {
		return
	}
	s.h.cfg.Logger.Info("the cluster has ended the session of callers without one", "session", hex.EncodeToString(apiv1.SessionHash(s.id[:])), "unanswered", s.window.Len())
	s.removeLocked()
}

// endLocked ends the session in the cluster; undelivered are the sequences whose grants no
// caller got.
func (s *session) endLocked(undelivered []uint64) {
	s.removeLocked()
	h := s.h
	r := &request{
		h: h, until: h.cfg.Mono() + s.ttl,
		op: &apiv1.Operation{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{
			Session: s.id[:], Undelivered: undelivered,
		}}},
	}
	h.ownLocked(+1)
	h.sendLocked(r, r.op)
}

// removeLocked removes the session from those that are kept alive.
func (s *session) removeLocked() {
	s.over = true
	h := s.h
	h.sessions = slices.DeleteFunc(h.sessions, func(other *session) bool { return other == s })
	if h.current == s {
		h.current = nil
	}
	s.forgetIfEmptyLocked()
}

// forgetIfEmptyLocked drops a session that is over and has no requests left.
func (s *session) forgetIfEmptyLocked() {
	if s.over && s.window.Len() == 0 {
		delete(s.h.byID, s.id)
		s.h.publishIDsLocked()
	}
}

// closeLocked ends the session, unless a place in it is kept for a retry.
func (s *session) closeLocked() {
	h := s.h
	queue := s.queue
	s.queue = nil
	for _, r := range queue {
		h.answerLocked(r, failed(apiv1.CodeUnavailable, "the node is stopping; nothing was done: send the request to another one"))
		h.dropLocked(r)
	}
	if !s.open {
		s.removeLocked()
		return
	}
	kept := false
	var undelivered []*request
	s.window.Each(func(r *request) {
		switch {
		case r.outer == nil:
			return
		case !r.acquire:
			h.answerLocked(r, failed(apiv1.CodeUnknownOutcome, "the node is stopping: the operation may have been done"))
			r.gone = true
			return
		case !r.gone && r.token != 0 && r.answer == nil:
			return // its caller has the grant
		case !r.gone:
			h.answerGivenUpLocked(r, failed(apiv1.CodeUnavailable, "the node is stopping"))
		}
		kept = kept || r.once
		undelivered = append(undelivered, r)
	})
	if kept {
		for _, r := range undelivered {
			h.leaveLocked(r)
		}
		s.renewLocked(h.cfg.Mono()) // so that it lasts a full TTL
		s.removeLocked()
		return
	}
	sequences := make([]uint64, len(undelivered))
	for i, r := range undelivered {
		sequences[i] = r.id.GetSequence()
		h.settleLocked(r) // the end of the session ends its waits and grants
	}
	s.endLocked(sequences)
}

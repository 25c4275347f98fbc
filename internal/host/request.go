package host

import (
	"fmt"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/window"
)

// request is one operation that is sent in a session: a caller's, or one of the
// host's own. Fields that are not marked as constant are guarded by Host.mu.
type request struct {
	h       *Host
	outer   *mux.Call        // constant. The caller's; nil: the host's own
	op      *apiv1.Operation // constant. The caller's operation
	acquire bool             // constant
	waits   bool             // constant. It may wait in a queue
	once    bool             // constant. The caller has an ID of its own for it
	target  *request         // constant. Of a cancel
	confirm *request         // constant. Of a renewal: the acquire whose grant it confirms
	turns   fair.Owner       // constant. The owner in whose turns it is run
	until   time.Duration    // constant. When its wait is over; of the host's own, when it is needed no more; 0: never

	placed  time.Duration    // when it was given a session
	s       *session         // in which it is sent; nil: none
	id      *apiv1.RequestID // under which it was sent last; nil: it has not been
	call    *mux.Call        // under way
	sent    int              // in how many sessions
	gone    bool             // its caller has gone away
	left    bool             // and that was handled
	settled bool             // its sequence is acknowledged, or was never used
	token   uint64           // of the grant that it was answered with
	answer  *apiv1.Answer    // that with the grant, while it is being confirmed
	granted *apiv1.Answer    // what this node's log says; nil: not granted, or not yet
	keep    time.Duration    // until when its place or grant is kept; 0: not kept
}

// Takes reports whether a Host can send op: it changes the table, and has no session.
func Takes(op *apiv1.Operation) bool { return op.Kind().Hosted() && hasNoSession(op.RequestID()) }

func hasNoSession(id *apiv1.RequestID) bool {
	return len(id.GetSession()) == 0 && id.GetSequence() == 0
}

func (h *Host) newRequest(call *mux.Call) *request {
	r := &request{h: h, outer: call, op: call.Op, turns: call.Owner}
	if a := call.Op.GetAcquire(); a != nil {
		r.acquire, r.waits, r.once = true, a.GetWaitNs() > 0, len(a.GetId().GetOnce()) > 0
		if r.waits {
			now := h.cfg.Mono()
			if r.until = now + time.Duration(a.GetWaitNs()); r.until < now {
				r.until = never
			}
		}
	}
	return r
}

// placeLocked sends r in the current session, or lets it wait for one.
func (h *Host) placeLocked(r *request) {
	if r.sent++; r.sent > maxSessions && r.outer != nil {
		h.finishLocked(r, failed(apiv1.CodeUnavailable, "the sessions in which the request was sent have ended, one after the other; nothing was done"))
		return
	}
	s := h.current
	if s == nil || s.isFullLocked(r) {
		s = h.newSessionLocked() // the one before retires
		h.current = s
		h.wake()
	}
	r.s, r.id, r.settled = s, nil, false
	r.placed = h.cfg.Mono()
	if r.waits {
		s.waits++
	}
	if s.open {
		s.issueLocked(r)
	} else {
		s.queue = append(s.queue, r)
	}
}

// dropLocked drops a request that has a session and was not sent.
func (h *Host) dropLocked(r *request) {
	if r.settled {
		return
	}
	if r.settled = true; r.waits {
		r.s.waits--
	}
	if r.s = nil; r.outer == nil {
		h.ownLocked(-1)
	}
}

// issueLocked gives r its sequence, and sends it.
func (s *session) issueLocked(r *request) {
	r.id = &apiv1.RequestID{Session: s.id[:], Once: r.op.GetAcquire().GetId().GetOnce()}
	s.window.Issue(r, r.id)
	s.usedAt = s.h.cfg.Mono()
	wait := time.Duration(0)
	if r.waits {
		wait = max(r.until-s.usedAt, time.Nanosecond)
	}
	s.h.sendLocked(r, withID(r.op, r.id, wait))
}

// sendLocked lets unlock start op, which is r as it is sent now.
func (h *Host) sendLocked(r *request, op *apiv1.Operation) {
	if op != r.op {
		op.Owner, op.Checked, op.Force = r.op.GetOwner(), r.op.GetChecked(), r.op.GetForce()
	}
	call := &mux.Call{Op: op, Owner: r.turns}
	call.Done = func(a *apiv1.Answer) { h.answered(r, call, a) }
	r.call = call
	h.calls = append(h.calls, call)
}

// withID returns a copy of op as it is sent in a session. A caller's op is not changed: an
// earlier copy may still be on its way.
func withID(op *apiv1.Operation, id *apiv1.RequestID, wait time.Duration) *apiv1.Operation {
	sent := op.Under(id)
	if a := sent.GetAcquire(); a != nil {
		a.WaitNs, a.Detached = waitOf(a, wait), true
	}
	return sent
}

// waitOf returns what is left of an acquire's wait. A wait that is zero or not valid is
// returned as it is.
func waitOf(a *apiv1.AcquireRequest, left time.Duration) int64 {
	if a.GetWaitNs() <= 0 {
		return a.GetWaitNs()
	}
	return min(a.GetWaitNs(), int64(left))
}

// isPassing reports whether a request that was refused with code may be accepted later.
func isPassing(code apiv1.Code) bool {
	return code.Passes() || code == apiv1.CodeInternal // of one node: the next leader may do it
}

// answered processes the answer of a call, on the goroutine that brings it.
func (h *Host) answered(r *request, call *mux.Call, a *apiv1.Answer) {
	h.mu.Lock()
	defer h.unlock()
	if r.call != call {
		return // it has been sent again
	}
	r.call = nil
	switch code := apiv1.Code(a.GetError().GetCode()); {
	case r.confirm != nil:
		h.confirmedLocked(r, call, code, a)
	case r.id != nil && code.Retry() == apiv1.RetryAnew:
		h.notRunLocked(r, call, code, a)
	case r.outer == nil && isPassing(code) && (r.until == 0 || h.cfg.Mono() < r.until):
		h.again = append(h.again, later{r, h.cfg.Mono() + retryAfter})
		r.call = call
		h.wake()
	case r.target != nil && window.FateOf(code) == window.Refused:
		h.cancelAgainLocked(r, a)
	case r.outer == nil:
		if r.target != nil {
			h.settleLocked(r.target)
		}
		h.ownDoneLocked(r)
	case code != apiv1.CodeOverloaded && isPassing(code):
		if call.Doubtful() && !r.acquire && code != apiv1.CodeInternal {
			a.GetError().Code = uint32(apiv1.CodeUnknownOutcome)
		}
		h.gaveUpLocked(r, a)
	default:
		h.finishLocked(r, a)
	}
}

// finishLocked passes on the answer that r has come to. A grant out of a wait is
// confirmed first.
func (h *Host) finishLocked(r *request, a *apiv1.Answer) {
	if r.token = a.GetAcquire().GetToken(); r.token != 0 && r.waits && !r.gone {
		h.confirmLocked(r, a)
		return
	}
	h.passOnLocked(r, a)
}

// passOnLocked gives the caller of r its answer.
func (h *Host) passOnLocked(r *request, a *apiv1.Answer) {
	r.token = a.GetAcquire().GetToken()
	switch {
	case r.token == 0, !r.gone && !r.once:
		h.settleLocked(r)
	case !r.gone:
		h.keepLocked(r) // the answer may be lost on its way
	}
	h.answerLocked(r, a)
}

// confirmLocked renews a grant that may have come out of a wait. Such a grant ends with the
// sessions of its request until it is renewed in one of them. So a waiter whose node fails
// blocks nobody, and a caller that got its grant keeps it whatever happens to the node.
func (h *Host) confirmLocked(r *request, a *apiv1.Answer) {
	r.answer = a
	ttl := r.op.GetAcquire().GetTtlNs()
	c := &request{
		h: h, s: r.s, confirm: r, turns: r.turns, until: h.cfg.Mono() + time.Duration(ttl),
		op: &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Token: r.token, TtlNs: ttl}}},
	}
	h.ownLocked(+1)
	r.s.issueLocked(c)
}

// confirmedLocked processes the answer of a renewal that confirms a grant. If the grant is
// gone, the acquire is sent again.
func (h *Host) confirmedLocked(c *request, call *mux.Call, code apiv1.Code, a *apiv1.Answer) {
	r := c.confirm
	switch {
	case isPassing(code) && code != apiv1.CodeUnavailable && !r.gone && h.cfg.Mono() < c.until:
		c.call = call
		h.again = append(h.again, later{c, h.cfg.Mono() + retryAfter})
		h.wake()
		return
	case r.gone: // it is kept, or being cancelled
	case code == apiv1.CodeOK:
		answer := r.answer
		answer.Index, answer.Stamp = a.GetIndex(), a.GetStamp()
		answer.GetAcquire().Deadline = a.GetRenew().GetDeadline()
		h.passOnLocked(r, answer)
	case isPassing(code):
		h.gaveUpLocked(r, a)
	default:
		if code == apiv1.CodeNoSession {
			r.s.endedLocked()
			if !r.once {
				h.releaseLocked(r, r.token) // an earlier copy may have confirmed it
			}
		}
		r.token = 0
		h.moveLocked(r)
	}
	r.answer = nil
	h.ownDoneLocked(c)
}

// gaveUpLocked is called when r was not answered in time. It may be in the log. The grant of
// an acquire is then released unless the request is retried.
func (h *Host) gaveUpLocked(r *request, a *apiv1.Answer) {
	if !r.acquire {
		h.finishLocked(r, a)
		return
	}
	if !r.gone { // otherwise its place is kept, or it is being cancelled
		h.answerGivenUpLocked(r, a)
		h.leaveLocked(r)
	}
}

// answerGivenUpLocked answers the caller of an acquire that was given up.
func (h *Host) answerGivenUpLocked(r *request, a *apiv1.Answer) {
	e := a.GetError()
	if apiv1.Code(e.GetCode()) != apiv1.CodeInternal {
		e.Code = uint32(apiv1.CodeUnavailable)
	}
	if r.once {
		e.Message += " (retry under the same request ID, through any node: its place in the queue is kept for " + keepPlace.String() + ")"
	} else {
		e.Message += " (the request was given up, and will not be granted)"
	}
	h.answerLocked(r, a)
	r.gone = true
}

func (h *Host) answerLocked(r *request, a *apiv1.Answer) {
	if r.outer != nil && !r.gone {
		a.Id = r.outer.Op.GetId()
		h.answers = append(h.answers, answered{r.outer, a})
	}
}

// settleLocked acknowledges the sequence of r, whose answer is no longer needed.
func (h *Host) settleLocked(r *request) {
	s := r.s
	if r.settled || s == nil {
		return
	}
	if r.settled = true; r.waits {
		s.waits--
	}
	s.usedAt = h.cfg.Mono()
	s.window.Answered(r.id.GetSequence())
	h.forgetGrantLocked(r)
	if s.window.Len() == 0 {
		s.forgetIfEmptyLocked()
		h.wake() // it may have retired
	}
}

// leaveLocked undoes what was done for a caller that did not get the answer.
func (h *Host) leaveLocked(r *request) {
	if r.left {
		return
	}
	r.left = true
	switch {
	case !r.acquire, r.id == nil: // what it has done is not undone; or it has done nothing
	case r.once:
		if !r.settled {
			h.keepLocked(r)
		}
	case !r.settled:
		h.cancelLocked(r)
	case r.token != 0:
		h.releaseLocked(r, r.token)
	}
}

// keepLocked keeps the place in the queue or the grant of a once ID for a retry.
func (h *Host) keepLocked(r *request) {
	r.keep = h.cfg.Mono() + keepPlace
	h.kept = append(h.kept, later{r, r.keep})
	h.wake()
}

// stopKeepingLocked ends the keeping of a place or grant when its time is over.
func (h *Host) stopKeepingLocked(l later) {
	r := l.r
	switch {
	case r.settled, r.keep != l.due: // or it is kept for longer
	case r.gone:
		h.cancelLocked(r)
	default:
		h.settleLocked(r)
	}
}

// cancelLocked ends the wait of r, or its grant, in its own session.
func (h *Host) cancelLocked(r *request) {
	if r.call != nil {
		r.call.Abandon()
	}
	c := &request{h: h, s: r.s, target: r, turns: r.turns, op: window.Cancel(nil, r.id)}
	h.ownLocked(+1)
	r.s.issueLocked(c)
}

// cancelAgainLocked retries a cancel that was refused, after a while and as another request.
func (h *Host) cancelAgainLocked(c *request, a *apiv1.Answer) {
	h.cfg.Logger.Warn("cancel refused", "err", a.GetError())
	h.settleLocked(c)
	c.settled = false
	h.again = append(h.again, later{c, h.cfg.Mono() + retryAfter})
	h.wake()
}

// releaseLocked releases the grant of r, which no caller got.
func (h *Host) releaseLocked(r *request, token uint64) {
	release := &request{
		h: h, turns: r.turns, until: h.cfg.Mono() + time.Duration(r.op.GetAcquire().GetTtlNs()), // by then it has ended
		op: &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: token}}},
	}
	h.ownLocked(+1)
	h.placeLocked(release)
}

// ownDoneLocked is called when a request of the host's own is answered, or needed no more.
func (h *Host) ownDoneLocked(r *request) {
	h.settleLocked(r)
	h.ownLocked(-1)
}

// sendAgainLocked retries the host's own requests that were refused, and returns when the
// next one is due.
func (h *Host) sendAgainLocked(now time.Duration) time.Duration {
	for len(h.again) > 0 && h.again[0].due <= now {
		r := h.again[0].r
		h.again = h.again[1:]
		if r.call == nil { // it was refused under its last sequence
			r.s.issueLocked(r)
		} else {
			h.sendLocked(r, r.call.Op)
		}
	}
	if len(h.again) == 0 {
		return never
	}
	return h.again[0].due
}

// notRunLocked is called for a request that has not run this time: its session is over, or
// its sequence counts as acknowledged. An earlier copy of it may have run.
func (h *Host) notRunLocked(r *request, call *mux.Call, code apiv1.Code, a *apiv1.Answer) {
	if code == apiv1.CodeNoSession {
		r.s.endedLocked()
	}
	switch {
	case r.target != nil && code == apiv1.CodeNoSession:
		h.catchUpLocked(r.target, a.GetIndex())
		h.ownDoneLocked(r)
	case r.target != nil:
		h.settleLocked(r)
		r.settled = false
		r.s.issueLocked(r) // under a new sequence
	case r.acquire:
		h.catchUpLocked(r, a.GetIndex())
	case r.outer != nil && call.Doubtful():
		h.finishLocked(r, failed(apiv1.CodeUnknownOutcome, "the node was cut off, and its session has ended: the operation may have been done"))
	default:
		h.moveLocked(r)
	}
}

// catchUpLocked decides about an acquire whose session is over once this node has applied the
// log up to the session's end, and so knows whether the acquire was granted.
func (h *Host) catchUpLocked(r *request, index uint64) {
	h.behind = append(h.behind, behind{r, index})
	h.waits.Store(true)
	h.wake()
}

// resumeLocked decides about the acquires for which this node has applied enough of the log.
func (h *Host) resumeLocked() {
	applied := h.applied.Load()
	h.behind = slices.DeleteFunc(h.behind, func(b behind) bool {
		if b.index > applied {
			return false
		}
		switch r := b.r; {
		case r.settled:
		case r.gone && r.granted != nil && !r.once:
			token := r.granted.GetAcquire().GetToken()
			h.settleLocked(r)
			h.releaseLocked(r, token)
		case r.gone:
			h.settleLocked(r)
		case r.granted != nil: // it has outlived the session, and so it needs no confirmation
			h.passOnLocked(r, r.granted)
		default:
			h.moveLocked(r)
		}
		return true
	})
	h.waits.Store(len(h.behind) > 0)
}

// moveLocked sends r in another session. An acquire that waited goes to the end of the
// queue.
func (h *Host) moveLocked(r *request) {
	h.settleLocked(r)
	if r.waits && h.cfg.Mono() >= r.until {
		h.answerLocked(r, failed(apiv1.CodeTimeout, "%s: wait timed out", subject(r.op)))
		return
	}
	h.placeLocked(r)
}

// grantAnswer is the answer of a request that the log has granted. Its stamp is the
// time at which the request entered the table, or a later one.
func grantAnswer(res *fsm.Result, index uint64) *apiv1.Answer {
	return &apiv1.Answer{Index: index, Stamp: int64(res.Queued), Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
		Token: res.Token, Deadline: int64(res.Deadline), Queued: int64(res.Queued), Granted: int64(res.Granted),
	}}}
}

func failed(code apiv1.Code, format string, args ...any) *apiv1.Answer {
	return &apiv1.Answer{Result: &apiv1.Answer_Error{Error: apiv1.NewError(code, format, args...)}}
}

func subject(op *apiv1.Operation) string {
	if locks := op.GetAcquire().GetLocks(); len(locks) == 1 {
		return fmt.Sprintf("lock %q", locks[0].GetName())
	}
	return "locks"
}

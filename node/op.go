package node

import (
	"fmt"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// command translates an operation that changes the table. Reads and keep-alives
// have roads of their own. The table checks names, sizes and limits; here only
// the shape of what arrived is checked.
func command(op *apiv1.Operation) (fsm.Command, *apiv1.Error) {
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_OpenSession:
		return openSession(r.OpenSession)
	case *apiv1.Operation_EndSession:
		session, err := sessionID("session", r.EndSession.GetSession())
		return fsm.EndSession{Session: session, Undelivered: r.EndSession.GetUndelivered()}, err
	case *apiv1.Operation_Acquire:
		return acquire(r.Acquire)
	case *apiv1.Operation_Cancel:
		id, err := requestID("id", r.Cancel.GetId())
		target, err2 := requestID("target", r.Cancel.GetTarget())
		return fsm.Cancel{ID: id, Target: target}, first(err, err2)
	case *apiv1.Operation_Release:
		id, err := requestID("id", r.Release.GetId())
		return fsm.Release{ID: id, Lock: r.Release.GetName(), Token: r.Release.GetToken(), Lost: r.Release.GetLost()}, err
	case *apiv1.Operation_Renew:
		id, err := requestID("id", r.Renew.GetId())
		return fsm.Renew{ID: id, Lock: r.Renew.GetName(), Token: r.Renew.GetToken(), TTL: r.Renew.GetTtlNs()}, err
	case *apiv1.Operation_SetValue:
		id, err := requestID("id", r.SetValue.GetId())
		v := r.SetValue
		return fsm.SetValue{ID: id, Lock: v.GetName(), Token: v.GetToken(), Value: v.GetValue()}, err
	case *apiv1.Operation_ForceRelease:
		id, err := requestID("id", r.ForceRelease.GetId())
		f := r.ForceRelease
		return fsm.ForceRelease{ID: id, Lock: f.GetName(), Token: f.GetToken(), Reason: f.GetReason(), Who: f.GetWho()}, err
	}
	return nil, apiv1.NewError(apiv1.CodeInvalid, "request: of a kind that this node does not know; is the client newer than the cluster?")
}

func openSession(r *apiv1.OpenSessionRequest) (fsm.Command, *apiv1.Error) {
	session, err := sessionID("session", r.GetSession())
	return fsm.OpenSession{Session: session, TTL: r.GetTtlNs(), Holder: r.GetHolder(), Labels: labels(r.GetLabels())}, err
}

func acquire(r *apiv1.AcquireRequest) (fsm.Command, *apiv1.Error) {
	id, err := requestID("id", r.GetId())
	c := fsm.Acquire{
		ID: id, TTL: r.GetTtlNs(), Wait: r.GetWaitNs(), Holder: r.GetHolder(), Value: r.GetValue(),
		Labels: labels(r.GetLabels()), Delay: r.GetDelayNs(), Detached: r.GetDetached(),
	}
	c.Wants = make([]fsm.Want, len(r.GetLocks()))
	for i, l := range r.GetLocks() {
		mode := fsm.Exclusive
		switch l.GetMode() {
		case apiv1.Mode_MODE_UNSPECIFIED, apiv1.Mode_MODE_EXCLUSIVE:
		case apiv1.Mode_MODE_SHARED:
			mode = fsm.Shared
		case apiv1.Mode_MODE_PERMITS:
			mode = fsm.Permits
		default:
			return nil, apiv1.NewError(apiv1.CodeInvalid, "locks[%d].mode %d: exclusive, shared or permits are allowed", i, l.GetMode())
		}
		c.Wants[i] = fsm.Want{Lock: l.GetName(), Mode: mode, Permits: l.GetPermits(), Limit: l.GetLimit()}
	}
	return c, err
}

func first(errs ...*apiv1.Error) *apiv1.Error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func sessionID(field string, b []byte) (id fsm.SessionID, err *apiv1.Error) {
	if len(b) != len(id) {
		return id, apiv1.NewError(apiv1.CodeInvalid, "%s has %d bytes: %d are needed", field, len(b), len(id))
	}
	copy(id[:], b)
	if id == (fsm.SessionID{}) {
		return id, apiv1.NewError(apiv1.CodeInvalid, "%s is all zeros: choose it at random", field)
	}
	return id, nil
}

// requestID translates an ID; a missing one is the zero value.
func requestID(field string, r *apiv1.RequestID) (id fsm.RequestID, err *apiv1.Error) {
	if r == nil {
		return id, nil
	}
	if len(r.GetOnce()) > 0 {
		once, err := sessionID(field+".once", r.GetOnce())
		if err != nil {
			return id, err
		}
		id.Once = fsm.OnceID(once)
	}
	if len(r.GetSession()) == 0 && r.GetSequence() == 0 {
		return id, nil
	}
	id.Session, err = sessionID(field+".session", r.GetSession())
	id.Sequence, id.Acked = r.GetSequence(), r.GetAcknowledged()
	if err == nil && id.Sequence == 0 {
		err = apiv1.NewError(apiv1.CodeInvalid, "%s.sequence is 0: sequences count from 1", field)
	}
	spans := r.GetAnswered()
	if err == nil && len(spans) > len(id.Answered) {
		err = apiv1.NewError(apiv1.CodeInvalid, "%s.answered has %d spans: at most %d are allowed", field, len(spans), len(id.Answered))
	}
	if err != nil {
		return id, err
	}
	for i, s := range spans {
		if s.GetFirst() == 0 || s.GetFirst() > s.GetLast() {
			return id, apiv1.NewError(apiv1.CodeInvalid, "%s.answered[%d] is %d to %d: first must be at least 1 and at most last", field, i, s.GetFirst(), s.GetLast())
		}
		id.Answered[i] = fsm.Span{First: s.GetFirst(), Last: s.GetLast()}
	}
	return id, nil
}

func labels(in []*apiv1.Label) []fsm.Label {
	if len(in) == 0 {
		return nil
	}
	out := make([]fsm.Label, len(in))
	for i, l := range in {
		out[i] = fsm.Label{Key: l.GetKey(), Value: l.GetValue()}
	}
	return out
}

// answer translates the result of op, which the entry at index gave at cluster
// time now. What it says is true then: a repeated acquire is told what is left of its
// grant, not what the first one was told.
func answer(op *apiv1.Operation, res *fsm.Result, index uint64, now int64) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId(), Index: index, Stamp: now}
	if res.Code != fsm.OK {
		a.Result = &apiv1.Answer_Error{Error: refusal(op, res, now)}
		return a
	}
	switch op.GetRequest().(type) {
	case *apiv1.Operation_OpenSession:
		a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: res.Deadline}}
	case *apiv1.Operation_EndSession:
		a.Result = &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}
	case *apiv1.Operation_Acquire:
		a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
			Token: res.Token, Deadline: res.Deadline, Queued: res.Queued, Granted: res.Granted,
		}}
	case *apiv1.Operation_Cancel:
		a.Result = &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}
	case *apiv1.Operation_Release:
		a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
	case *apiv1.Operation_Renew:
		a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: res.Deadline}}
	case *apiv1.Operation_SetValue:
		a.Result = &apiv1.Answer_SetValue{SetValue: &apiv1.SetValueResponse{}}
	case *apiv1.Operation_ForceRelease:
		a.Result = &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: holders(res.Holders, now)}}
	}
	return a
}

// refusal words a result that is not OK. The fsm codes and the wire codes share
// their numbers.
func refusal(op *apiv1.Operation, res *fsm.Result, now int64) *apiv1.Error {
	e := &apiv1.Error{Code: uint32(res.Code), Holders: holders(res.Holders, now)}
	for _, h := range e.Holders {
		h.Value, h.Labels = nil, nil // who holds it is enough; Get tells the rest
	}
	switch res.Code {
	case fsm.Busy:
		e.Message = busyMessage(op, res)
	case fsm.TimedOut:
		e.Message = fmt.Sprintf("%s: not granted within the wait limit", subject(op))
		if len(res.Holders) > 0 {
			e.Message += "; " + heldBy(&res.Holders[0])
		}
	case fsm.NotHeld:
		e.Message = fmt.Sprintf("%s: no such grant: it was released, it expired, it was revoked, or the token is wrong", subject(op))
		if res.Detail != "" {
			e.Message = res.Field + ": " + res.Detail
		}
	case fsm.NoSession:
		e.Message = "no such session: it ended, it expired or it was never opened"
		if op.GetOpenSession() != nil {
			e.Message = "session: has ended, and is not opened again: open another, under a new ID"
		}
	case fsm.Cancelled:
		e.Message = fmt.Sprintf("%s: the wait was cancelled", subject(op))
	case fsm.StaleRequest:
		e.Message = "the request's sequence was acknowledged already"
	default:
		e.Message = apiv1.Code(res.Code).String()
		if res.Field != "" {
			e.Message = res.Field + ": " + res.Detail
		} else if res.Detail != "" {
			e.Message = res.Detail
		}
	}
	return e
}

func busyMessage(op *apiv1.Operation, res *fsm.Result) string {
	if len(res.Holders) == 0 {
		return subject(op) + ": not free"
	}
	return fmt.Sprintf("lock %q: %s", res.Holders[0].Lock, heldBy(&res.Holders[0]))
}

func heldBy(h *fsm.Holder) string {
	who := h.Holder
	if who == "" {
		who = "an unnamed holder"
	}
	return fmt.Sprintf("held by %s with token %d", who, h.Token)
}

// byToken returns the lock and the token of an operation that shows one.
func byToken(op *apiv1.Operation) (name string, token uint64) {
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_Release:
		return r.Release.GetName(), r.Release.GetToken()
	case *apiv1.Operation_Renew:
		return r.Renew.GetName(), r.Renew.GetToken()
	case *apiv1.Operation_SetValue:
		return r.SetValue.GetName(), r.SetValue.GetToken()
	}
	return "", 0
}

// answered is answer, for what the table alone does not explain: that a grant is there
// and is not the caller's to touch.
func (n *Node) answered(op *apiv1.Operation, o *outcome) *apiv1.Answer {
	a := answer(op, &o.result, o.index, o.now)
	name, token := byToken(op)
	if o.result.Code != fsm.NotHeld || name == "" || token == 0 {
		return a
	}
	for _, h := range n.holdersOf([]fsm.Want{{Lock: name}}) {
		if h.Token == token && h.Session != (fsm.SessionID{}) {
			a.GetError().Message = fmt.Sprintf("lock %q with token %d: belongs to a session, and only that can release, renew or change it; force-release ends it against its holder's will", name, token)
		}
	}
	return a
}

// holdersOf says who holds locks now.
func (n *Node) holdersOf(wants []fsm.Want) (holders []fsm.Holder) {
	n.machine.View(func(t *fsm.Table) { holders = t.HoldersOf(wants) })
	return holders
}

// subject names what op is about.
func subject(op *apiv1.Operation) string {
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		if l := r.Acquire.GetLocks(); len(l) == 1 {
			return fmt.Sprintf("lock %q", l[0].GetName())
		}
		return "locks"
	case *apiv1.Operation_Release:
		return fmt.Sprintf("lock %q with token %d", r.Release.GetName(), r.Release.GetToken())
	case *apiv1.Operation_Renew:
		return fmt.Sprintf("lock %q with token %d", r.Renew.GetName(), r.Renew.GetToken())
	case *apiv1.Operation_SetValue:
		return fmt.Sprintf("lock %q with token %d", r.SetValue.GetName(), r.SetValue.GetToken())
	case *apiv1.Operation_ForceRelease:
		return fmt.Sprintf("lock %q", r.ForceRelease.GetName())
	}
	return "request"
}

func keepAliveAnswer(op *apiv1.Operation, alive fsm.Alive, o outcome) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId(), Index: o.index, Stamp: o.now}
	if alive.Deadline == 0 {
		a.Result = &apiv1.Answer_Error{Error: refusal(op, &fsm.Result{Code: fsm.NoSession}, o.now)}
		return a
	}
	res := &apiv1.KeepAliveResponse{Deadline: alive.Deadline}
	for _, r := range alive.Revocations {
		res.Revocations = append(res.Revocations, &apiv1.Revocation{Number: r.Number, Token: r.Token, Reason: r.Reason, Who: r.Who})
	}
	a.Result = &apiv1.Answer_KeepAlive{KeepAlive: res}
	return a
}

func holders(in []fsm.Holder, now int64) []*apiv1.Holder {
	if len(in) == 0 {
		return nil
	}
	out := make([]*apiv1.Holder, len(in))
	for i := range in {
		h := &in[i]
		out[i] = &apiv1.Holder{
			Lock: h.Lock, Token: h.Token, Holder: h.Holder, Mode: apiv1.Mode(h.Mode), Permits: h.Permits,
			RemainingNs: max(0, h.Deadline-now), SinceUnixMs: h.Since, Value: h.Value,
		}
		if h.Session != (fsm.SessionID{}) {
			out[i].Session = h.Session[:]
		}
		for _, l := range h.Labels {
			out[i].Labels = append(out[i].Labels, &apiv1.Label{Key: l.Key, Value: l.Value})
		}
	}
	return out
}

func lockMessage(v fsm.LockView, now int64) *apiv1.Lock {
	return &apiv1.Lock{
		Name: v.Name, Holders: holders(v.Holders, now), HolderCount: uint32(v.HolderCount), Waiters: uint32(v.Waiters),
		Limit: v.Limit, DelayLeftNs: max(0, v.DelayUntil-now),
	}
}

func errorAnswer(op *apiv1.Operation, err *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: op.GetId(), Result: &apiv1.Answer_Error{Error: err}}
}

package node

import (
	"fmt"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/quote"
)

// answer translates the result of op, which the entry at index gave at cluster time now.
// It is true as of then: the answer to a repeated acquire has what is left of its grant,
// not what the first answer had.
func answer(op *apiv1.Operation, res *fsm.Result, index uint64, now fsm.Instant) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId(), Index: index, Stamp: int64(now)}
	if res.Code != fsm.OK {
		a.Result = &apiv1.Answer_Error{Error: refusal(op, res, now)}
		return a
	}
	if f := parts[op.Kind()].result; f != nil {
		f(a, res, now)
	}
	return a
}

// refusal makes an error of a result that is not OK. The codes of fsm and of the protocol
// have the same numbers.
func refusal(op *apiv1.Operation, res *fsm.Result, now fsm.Instant) *apiv1.Error {
	e := &apiv1.Error{Code: uint32(res.Code), Holders: holders(res.Holders, now)}
	for _, h := range e.Holders {
		h.Value, h.Labels = nil, nil // Get returns them
	}
	switch res.Code {
	case fsm.Busy:
		e.Message = busyMessage(op, res)
	case fsm.TimedOut:
		e.Message = subject(op) + ": wait timed out"
		if len(res.Holders) > 0 {
			e.Message += ": " + heldBy(res.Holders)
		}
	case fsm.NotHeld:
		e.Message = fmt.Sprintf("%s: no such grant: it was released, it expired, it was revoked, or the token is wrong", subject(op))
		if op.GetResize() != nil {
			e.Message = fmt.Sprintf("%s: is not in use, so it has no size: the next acquire sets one", subject(op))
		}
		if res.Detail != "" {
			e.Message = res.Field + ": " + res.Detail
		}
	case fsm.NoSession:
		e.Message = "no such session: it ended, it expired or it was never opened"
		if op.GetOpenSession() != nil {
			e.Message = "session: has ended, must be a new one: open another under a new ID"
		}
	case fsm.Cancelled:
		e.Message = fmt.Sprintf("%s: the wait was cancelled", subject(op))
	case fsm.Revoked:
		e.Message = fmt.Sprintf("%s: the wait was ended by an operator", subject(op))
		if res.Detail != "" {
			e.Message += res.Detail
		}
	case fsm.NotOwner:
		e.Code = uint32(apiv1.CodeDenied)
		if res.Field == "caller" {
			e.Code, e.Message = uint32(apiv1.CodeUnauthenticated), "access token: "+res.Detail
			break
		}
		e.Message = subject(op) + ": belongs to another identity, and the right force on the lock is missing"
		if name, _, ok := op.Grant(); !ok || name == "" {
			e.Message = "session or grant: belongs to another identity"
		}
	case fsm.StaleRequest:
		e.Message = "the request's sequence was acknowledged already"
	default:
		e.Message = apiv1.Code(res.Code).String()
		if res.Field != "" {
			e.Message = res.Field + ": " + badText(op, res.Field) + res.Detail
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
	return fmt.Sprintf("lock %q: %s", res.Holders[0].Lock, heldBy(res.Holders))
}

func heldBy(holders []fsm.Holder) string {
	return quote.HeldBy(len(holders), func(i int) (string, uint64) { return holders[i].Holder, holders[i].Token })
}

// answered is answer with a better message if a grant exists but belongs to a session, and
// the caller is not that session: the table says only that it is not held.
func (n *Node) answered(op *apiv1.Operation, o *outcome) *apiv1.Answer {
	a := answer(op, &o.result, o.index, o.now)
	name, token, _ := op.Grant()
	if o.result.Code != fsm.NotHeld || name == "" || token == 0 {
		return a
	}
	for _, h := range n.holdersOf([]fsm.Want{{Lock: name}}) {
		if h.Token == token && h.Session != (fsm.SessionID{}) {
			a.GetError().Message = fmt.Sprintf("lock %q with token %d: belongs to a session, and only that can release, renew or change it; force-release ends it without asking its holder", name, token)
		}
	}
	return a
}

// holdersOf returns who holds locks now.
func (n *Node) holdersOf(wants []fsm.Want) (holders []fsm.Holder) {
	n.machine.View(func(t *fsm.Table) { holders = t.HoldersOf(wants) })
	return holders
}

// subject names the lock or locks of op, for messages.
func subject(op *apiv1.Operation) string {
	if name, token, ok := op.Grant(); ok {
		return fmt.Sprintf("lock %q with token %d", name, token)
	}
	if a := op.GetAcquire(); a != nil {
		if l := a.GetLocks(); len(l) == 1 {
			return fmt.Sprintf("lock %q", l[0].GetName())
		}
		return "locks"
	}
	if f := op.GetForceRelease(); f != nil {
		return fmt.Sprintf("lock %q", f.GetName())
	}
	if r := op.GetResize(); r != nil {
		return fmt.Sprintf("semaphore %q", r.GetName())
	}
	return "request"
}

func keepAliveAnswer(op *apiv1.Operation, alive fsm.Alive, o outcome) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId(), Index: o.index, Stamp: int64(o.now)}
	if alive.Deadline == 0 {
		a.Result = &apiv1.Answer_Error{Error: refusal(op, &fsm.Result{Code: fsm.NoSession}, o.now)}
		return a
	}
	res := &apiv1.KeepAliveResponse{Deadline: int64(alive.Deadline)}
	for _, r := range alive.Revocations {
		res.Revocations = append(res.Revocations, &apiv1.Revocation{Number: r.Number, Token: r.Token, Reason: r.Reason, Who: r.Who})
	}
	a.Result = &apiv1.Answer_KeepAlive{KeepAlive: res}
	return a
}

func holders(in []fsm.Holder, now fsm.Instant) []*apiv1.Holder {
	if len(in) == 0 {
		return nil
	}
	out := make([]*apiv1.Holder, len(in))
	for i := range in {
		h := &in[i]
		out[i] = &apiv1.Holder{
			Lock: h.Lock, Token: h.Token, Holder: h.Holder, Mode: apiv1.Mode(h.Mode), Permits: h.Permits,
			RemainingNs: h.Deadline.Until(now), SinceUnixMs: h.Since, Value: h.Value,
		}
		if h.Session != (fsm.SessionID{}) {
			out[i].Session = apiv1.SessionHash(h.Session[:])
		}
		for _, l := range h.Labels {
			out[i].Labels = append(out[i].Labels, &apiv1.Label{Key: l.Key, Value: l.Value})
		}
	}
	return out
}

func lockMessage(v fsm.LockView, now fsm.Instant) *apiv1.Lock {
	return &apiv1.Lock{
		Name: v.Name, Holders: holders(v.Holders, now), HolderCount: uint32(v.HolderCount), Waiters: uint32(v.Waiters),
		Limit: v.Limit, DelayLeftNs: v.DelayUntil.Until(now),
	}
}

func errorAnswer(op *apiv1.Operation, err *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: op.GetId(), Result: &apiv1.Answer_Error{Error: err}}
}

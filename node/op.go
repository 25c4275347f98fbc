package node

import (
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// parts is the table of what this node does with an operation, by its kind: for one that
// changes the table its command, and the answer from that command's result; for a read the
// answer. All other facts about a kind are in the table of package apiv1. Keep-alives have
// no command of their own: see startKeepAlive. The lock table checks names, sizes and
// limits; here only the shape of what arrived is checked.
var parts = [...]struct {
	command func(op *apiv1.Operation, owner string) (fsm.Command, *apiv1.Error)
	result  func(a *apiv1.Answer, res *fsm.Result, now fsm.Instant)
	read    func(t *fsm.Table, call *mux.Call, a *apiv1.Answer, age time.Duration) *apiv1.Error
}{
	apiv1.KindOpenSession: {
		command: openSession,
		result: func(a *apiv1.Answer, res *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: int64(res.Deadline)}}
		},
	},
	apiv1.KindEndSession: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			r := op.GetEndSession()
			session, err := sessionID("session", r.GetSession())
			return fsm.EndSession{Session: session, Undelivered: r.GetUndelivered()}, err
		},
		result: func(a *apiv1.Answer, _ *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}
		},
	},
	apiv1.KindAcquire: {
		command: acquire,
		result: func(a *apiv1.Answer, res *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
				Token: res.Token, Deadline: int64(res.Deadline), Queued: int64(res.Queued), Granted: int64(res.Granted),
			}}
		},
	},
	apiv1.KindCancel: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			id, err := requestID("id", op.GetCancel().GetId())
			target, err2 := requestID("target", op.GetCancel().GetTarget())
			return fsm.Cancel{ID: id, Target: target}, first(err, err2)
		},
		result: func(a *apiv1.Answer, _ *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}
		},
	},
	apiv1.KindRelease: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			r := op.GetRelease()
			id, err := requestID("id", r.GetId())
			return fsm.Release{ID: id, Lock: r.GetName(), Token: r.GetToken(), Lost: r.GetLost()}, err
		},
		result: func(a *apiv1.Answer, _ *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
		},
	},
	apiv1.KindRenew: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			r := op.GetRenew()
			id, err := requestID("id", r.GetId())
			return fsm.Renew{ID: id, Lock: r.GetName(), Token: r.GetToken(), TTL: r.GetTtlNs()}, err
		},
		result: func(a *apiv1.Answer, res *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: int64(res.Deadline)}}
		},
	},
	apiv1.KindSetValue: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			r := op.GetSetValue()
			id, err := requestID("id", r.GetId())
			return fsm.SetValue{ID: id, Lock: r.GetName(), Token: r.GetToken(), Value: r.GetValue()}, err
		},
		result: func(a *apiv1.Answer, _ *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_SetValue{SetValue: &apiv1.SetValueResponse{}}
		},
	},
	apiv1.KindForceRelease: {
		command: func(op *apiv1.Operation, owner string) (fsm.Command, *apiv1.Error) {
			r := op.GetForceRelease()
			id, err := requestID("id", r.GetId())
			return fsm.ForceRelease{ID: id, Lock: r.GetName(), Token: r.GetToken(), Reason: r.GetReason(), Who: whoDid(owner, r.GetWho())}, err
		},
		result: func(a *apiv1.Answer, res *fsm.Result, now fsm.Instant) {
			a.Result = &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: holders(res.Holders, now)}}
		},
	},
	apiv1.KindResize: {
		command: func(op *apiv1.Operation, _ string) (fsm.Command, *apiv1.Error) {
			r := op.GetResize()
			id, err := requestID("id", r.GetId())
			return fsm.Resize{ID: id, Lock: r.GetName(), Limit: r.GetLimit()}, err
		},
		result: func(a *apiv1.Answer, _ *fsm.Result, _ fsm.Instant) {
			a.Result = &apiv1.Answer_Resize{Resize: &apiv1.ResizeResponse{}}
		},
	},
	apiv1.KindGet: {read: func(t *fsm.Table, call *mux.Call, a *apiv1.Answer, age time.Duration) *apiv1.Error {
		name := call.Op.GetGet().GetName()
		if err := checkName(name, t.Limits().NameBytes); err != nil {
			return err
		}
		a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: lockMessage(t.Lock(name), t.Now()), AgeNs: int64(age)}}
		return nil
	}},
	apiv1.KindList: {read: func(t *fsm.Table, call *mux.Call, a *apiv1.Answer, age time.Duration) *apiv1.Error {
		a.Result = &apiv1.Answer_List{List: listLocks(t, call.Op.GetList(), call.Readable, age)}
		return nil
	}},
}

// command translates an operation that changes the table.
func command(op *apiv1.Operation, owner string) (fsm.Command, *apiv1.Error) {
	if f := parts[op.Kind()].command; f != nil {
		return f(op, owner)
	}
	return nil, apiv1.NewError(apiv1.CodeInvalid, "request: is of a kind that this node does not know; is the client newer than the cluster?")
}

// whoDid returns the text that names who has ended a grant: where the request came from, as
// the node sees it, and the caller's own claim, marked as such.
func whoDid(owner, claim string) string {
	if claim == "" {
		return owner
	}
	return owner + " (says: " + claim + ")"
}

func openSession(op *apiv1.Operation, owner string) (fsm.Command, *apiv1.Error) {
	r := op.GetOpenSession()
	session, err := sessionID("session", r.GetSession())
	return fsm.OpenSession{Session: session, TTL: r.GetTtlNs(), Holder: r.GetHolder(), Labels: labels(r.GetLabels()), Owner: owner}, err
}

func acquire(op *apiv1.Operation, owner string) (fsm.Command, *apiv1.Error) {
	r := op.GetAcquire()
	id, err := requestID("id", r.GetId())
	c := fsm.Acquire{
		ID: id, TTL: r.GetTtlNs(), Wait: r.GetWaitNs(), Holder: r.GetHolder(), Value: r.GetValue(),
		Labels: labels(r.GetLabels()), Delay: r.GetDelayNs(), Detached: r.GetDetached(),
	}
	if c.Detached {
		c.Owner = owner // a session's acquire is its session's owner's
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
			return nil, apiv1.NewError(apiv1.CodeInvalid, "locks[%d].mode: is %d, must be exclusive, shared or permits", i, l.GetMode())
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
		return id, apiv1.NewError(apiv1.CodeInvalid, "%s: is %d bytes long, must be %d", field, len(b), len(id))
	}
	copy(id[:], b)
	if id == (fsm.SessionID{}) {
		return id, apiv1.NewError(apiv1.CodeInvalid, "%s: is all zeros, must be random", field)
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
		err = apiv1.NewError(apiv1.CodeInvalid, "%s.sequence: is 0, must be at least 1", field)
	}
	spans := r.GetAnswered()
	if err == nil && len(spans) > len(id.Answered) {
		err = apiv1.NewError(apiv1.CodeInvalid, "%s.answered: is %d spans long, must be at most %d", field, len(spans), len(id.Answered))
	}
	if err != nil {
		return id, err
	}
	for i, s := range spans {
		if s.GetFirst() == 0 || s.GetFirst() > s.GetLast() {
			return id, apiv1.NewError(apiv1.CodeInvalid, "%s.answered[%d]: is %d to %d, must begin with at least 1 and not end before that", field, i, s.GetFirst(), s.GetLast())
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

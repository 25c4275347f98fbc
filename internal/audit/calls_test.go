package audit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

func forceRelease() *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "orders/1", Token: 3, Reason: "it hangs"}}}
}

func me() Who { return Who{Identity: "token:me", Address: "10.0.0.7:1"} }

func TestAForcedOperationIsRecordedWithItsOutcome(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		to := &sink{}
		l := New(Options{To: to, Refuse: refuse})
		answers := make(chan *apiv1.Answer, 1)
		l.Start(me(), &mux.Call{Op: forceRelease(), Done: func(a *apiv1.Answer) { answers <- a }}, func(c *mux.Call) {
			c.Done(&apiv1.Answer{Index: 12, Result: &apiv1.Answer_ForceRelease{}})
		})
		<-answers
		closed(t, l)
		lines, _ := to.lines(t)
		want := 1
		if refuse {
			want = 2
			if len(lines) != 2 || lines[0]["outcome"] != OutcomeBegun {
				t.Fatalf("refuse: %v, want a line before it is done", lines)
			}
		}
		if len(lines) != want {
			t.Fatalf("refuse %v: %d lines, want %d", refuse, len(lines), want)
		}
		last := lines[want-1]
		for key, value := range map[string]any{"event": "force_release", "name": "orders/1", "token": 3.0, "reason": "it hangs", "identity": "token:me", "address": "10.0.0.7:1", "outcome": "ok", "index": 12.0} {
			if last[key] != value {
				t.Errorf("refuse %v: %s is %v, want %v", refuse, key, last[key], value)
			}
		}
	}
}

// Who sends a forced operation and goes away leaves a trace of it all the same.
func TestAnOperationWhoseCallerHasGoneAwayIsRecorded(t *testing.T) {
	to := &sink{}
	l := New(Options{To: to})
	call := &mux.Call{Op: forceRelease(), Done: func(*apiv1.Answer) {}}
	var started *mux.Call
	l.Start(me(), call, func(c *mux.Call) { started = c })
	call.Abandon()
	if !started.Abandoned() {
		started.Done(&apiv1.Answer{Result: &apiv1.Answer_ForceRelease{}})
	}
	closed(t, l)
	if lines, _ := to.lines(t); len(lines) != 1 {
		t.Errorf("%d lines, want one: the operation was done", len(lines))
	}
}

func TestOrdinaryOperationsAreNotTouched(t *testing.T) {
	l := New(Options{To: &sink{}, Refuse: true})
	defer closed(t, l)
	call := &mux.Call{Op: &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: "a", Token: 1}}}}
	var started *mux.Call
	l.Start(me(), call, func(c *mux.Call) { started = c })
	if started != call {
		t.Error("a release was recorded, or not started")
	}
}

func TestWhatCannotBeRecordedIsNotDoneIfThatIsWanted(t *testing.T) {
	for name, broken := range map[string]func(*sink){
		"fails": func(s *sink) { s.fail = errors.New("no space") },
		"hangs": func(s *sink) { s.hang = make(chan struct{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &sink{}
				broken(to)
				l := New(Options{To: to, Refuse: true})
				answers := make(chan *apiv1.Answer, 1)
				l.Start(me(), &mux.Call{Op: forceRelease(), Done: func(a *apiv1.Answer) { answers <- a }}, func(*mux.Call) { t.Error("the operation was done") })
				if a := <-answers; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
					t.Errorf("answered %v, want unavailable", a)
				}
				op := l.Operator(operator{removed: func() { t.Error("the member was removed") }}, me())
				if _, err := op.RemoveMember(t.Context(), &apiv1.RemoveMemberRequest{Id: "n3"}); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
					t.Errorf("RemoveMember: %v, want unavailable", err)
				}
				if to.hang != nil {
					close(to.hang)
				}
				time.Sleep(2 * patience) // in virtual time: nothing comes after it
				closed(t, l)
			})
		})
	}
}

func TestWhatCannotBeRecordedIsDoneOtherwise(t *testing.T) {
	l := New(Options{To: &sink{fail: errors.New("no space")}})
	defer closed(t, l)
	done := false
	op := l.Operator(operator{removed: func() { done = true }}, me())
	if _, err := op.RemoveMember(t.Context(), &apiv1.RemoveMemberRequest{Id: "n3"}); err != nil || !done {
		t.Errorf("RemoveMember: %v, done %v; want it done", err, done)
	}
}

func TestCallsOfAnOperatorAreRecorded(t *testing.T) {
	to := &sink{}
	l := New(Options{To: to})
	op := l.Operator(operator{}, me())
	ctx := t.Context()
	_, _ = op.KillSessions(ctx, &apiv1.KillSessionsRequest{Owner: "10.0.0.9", Reason: "floods"})
	_, _ = op.ClearLock(ctx, &apiv1.ClearLockRequest{Name: "orders/1"})
	_, _ = op.SetLimits(ctx, &apiv1.SetLimitsRequest{Limits: []*apiv1.Limit{{Name: "sessions", Value: 5}}})
	_, _ = op.TransferLeadership(ctx, &apiv1.TransferLeadershipRequest{To: "n2"})
	_, _ = op.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: "n3"})
	_, _ = op.ChangePolicies(ctx, &apiv1.ChangePoliciesRequest{Put: []*apiv1.Policy{{Name: "shop"}}, Remove: []string{"old"}})
	closed(t, l)
	lines, _ := to.lines(t)
	want := []string{EventKill, EventClear, EventSetLimits, EventTransfer, EventRemove, EventChangePolicies}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(lines), len(want), lines)
	}
	for i, event := range want {
		if lines[i]["event"] != event || lines[i]["identity"] != "token:me" {
			t.Errorf("line %d is %v, want %s", i, lines[i], event)
		}
	}
	if lines[4]["outcome"] != "no_member" {
		t.Errorf("outcome %v, want no_member", lines[4]["outcome"])
	}
}

func TestWithoutAnAuditNothingIsInTheWay(t *testing.T) {
	var l *Log
	l.Put(Record{Event: EventGrant})
	started := false
	l.Start(me(), &mux.Call{Op: forceRelease()}, func(*mux.Call) { started = true })
	if err := l.Close(t.Context()); err != nil || l.Failing() != nil || !started {
		t.Errorf("Close: %v, Failing: %v, started %v", err, l.Failing(), started)
	}
	if _, is := l.Operator(operator{}, me()).(operator); !is {
		t.Error("an operator is wrapped without an audit")
	}
}

// operator is one that does nothing.
type operator struct {
	embedded.Operator
	embedded.Rights
	removed func()
}

func (operator) ChangePolicies(context.Context, *apiv1.ChangePoliciesRequest) (*apiv1.ChangePoliciesResponse, error) {
	return &apiv1.ChangePoliciesResponse{}, nil
}

func (operator) KillSessions(context.Context, *apiv1.KillSessionsRequest) (*apiv1.KillSessionsResponse, error) {
	return &apiv1.KillSessionsResponse{}, nil
}

func (operator) ClearLock(context.Context, *apiv1.ClearLockRequest) (*apiv1.ClearLockResponse, error) {
	return &apiv1.ClearLockResponse{}, nil
}

func (operator) SetLimits(context.Context, *apiv1.SetLimitsRequest) (*apiv1.SetLimitsResponse, error) {
	return &apiv1.SetLimitsResponse{}, nil
}

func (operator) TransferLeadership(context.Context, *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	return &apiv1.TransferLeadershipResponse{}, nil
}

func (o operator) RemoveMember(context.Context, *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	if o.removed != nil {
		o.removed()
		return &apiv1.RemoveMemberResponse{}, nil
	}
	return nil, apiv1.NewError(apiv1.CodeNoMember, "no such member")
}

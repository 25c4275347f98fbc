package node

import (
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// A refusal names the field, its text and what it must be.
func TestRefusedTextIsNamed(t *testing.T) {
	const bad = "a\u202eb"
	res := fsm.Result{Code: fsm.Invalid, Detail: "must be without control characters"}
	for field, op := range map[string]*apiv1.Operation{
		"lock":   {Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: "good"}, {Name: bad}}}}},
		"holder": {Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Holder: bad}}},
		"labels": {Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Labels: []*apiv1.Label{{Key: "k", Value: bad}}}}},
		"reason": {Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Reason: bad}}},
		"who":    {Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Who: bad}}},
	} {
		res.Field = field
		if got, want := refusal(op, &res, 0).GetMessage(), field+`: "a\u202eb": must be without control characters`; got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}

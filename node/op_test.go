package node

import (
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// The node records where a request came from, whatever the caller claims.
func TestTheNodeSaysWhoDidIt(t *testing.T) {
	for claim, want := range map[string]string{
		"":                          "10.0.0.7",
		"alice":                     "10.0.0.7 (says: alice)",
		"10.0.0.9 (says: the boss)": "10.0.0.7 (says: 10.0.0.9 (says: the boss))",
	} {
		c, err := command(&apiv1.Operation{Request: &apiv1.Operation_ForceRelease{
			ForceRelease: &apiv1.ForceReleaseRequest{Name: "a", Who: claim},
		}}, "10.0.0.7")
		if got, ok := c.(fsm.ForceRelease); err != nil || !ok || got.Who != want {
			t.Errorf("claim %q: %+v, %v, want who %q", claim, c, err, want)
		}
	}
}

// Every kind of operation has its part in this node: a command and the result of that, or
// an answer from the table. Those that free have a command that frees.
func TestEveryKindOfOperationHasItsPart(t *testing.T) {
	requests := (&apiv1.Operation{}).ProtoReflect().Descriptor().Oneofs().ByName("request").Fields()
	for i := range requests.Len() {
		op := &apiv1.Operation{}
		op.ProtoReflect().Mutable(requests.Get(i))
		kind := op.Kind()
		part := parts[kind]
		switch {
		case kind.Reads():
			if part.read == nil || part.command != nil || part.result != nil {
				t.Errorf("%s: only reads, and has more than a read", kind)
			}
		case kind == apiv1.KindKeepAlive: // has no command of its own
		case part.command == nil || part.result == nil || part.read != nil:
			t.Errorf("%s: has no command, or no result", kind)
		default:
			c, _ := part.command(op, "")
			if got := frees(c); got != kind.Frees() {
				t.Errorf("%s frees: %v, and its command %T does: %v", kind, kind.Frees(), c, got)
			}
			a := &apiv1.Answer{}
			part.result(a, &fsm.Result{Token: 1}, 0)
			if !kind.Fits(a) {
				t.Errorf("%s: is answered with %v", kind, a)
			}
		}
	}
}

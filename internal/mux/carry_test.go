package mux

import (
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// What nodes say about an operation beside its request reaches the leader: a field that is left out
// here is one that the leader does not know of.
func TestEveryFieldOfAnOperationIsSent(t *testing.T) {
	op := &apiv1.Operation{
		Id: 7, Redirect: true, Owner: "token:shop", Connection: 5, Checked: true, Force: true,
		Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}},
	}
	for i, fields := 0, op.ProtoReflect().Descriptor().Fields(); i < fields.Len(); i++ {
		if f := fields.Get(i); f.ContainingOneof() == nil && !op.ProtoReflect().Has(f) {
			t.Errorf("this test does not set the field %s", f.Name())
		}
	}
	var m message
	(&Conn{}).pack(&m, []queued{{id: 9, call: &Call{Op: op}}})
	want := proto.CloneOf(op)
	want.Id = 9
	if !proto.Equal(m.refs[0], want) {
		t.Errorf("sent: %v, want %v", m.refs[0], want)
	}
}

package mux

import (
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// BenchmarkCheck measures what every operation costs on each stream that it is sent on.
func BenchmarkCheck(b *testing.B) {
	id := &apiv1.RequestID{Session: make([]byte, 16), Sequence: 7, Acknowledged: 6}
	for name, op := range map[string]*apiv1.Operation{
		"acquire": {Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
			Id: id, Locks: []*apiv1.Want{{Name: "orders/42"}}, WaitNs: -1,
		}}},
		"release": {Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: id, Name: "orders/42", Token: 5}}},
		"get":     {Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "orders/42"}}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if Check(op) != nil || ClassOf(op) > Waits {
					b.Fatal("refused")
				}
			}
		})
	}
}

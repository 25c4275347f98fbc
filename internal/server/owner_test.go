package server

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// The owner of an operation is the address of its connection, on every road; only a node of
// the cluster may name another one.
func TestOwnerIsTheAddressOfTheConnection(t *testing.T) {
	const key = "0123456789abcdef"
	node := newFakeNode()
	r := serve(t, Config{Backend: node, Peer: func(k string) bool { return k == key }})
	claim := func(name string) *apiv1.Operation {
		op := acquireOp(1, name, 0)
		op.Owner = "10.9.9.9"
		return op
	}
	if _, err := r.client(t).Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{claim("batch")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client(t).Acquire(t.Context(), acquireOf("unary", 0)); err != nil {
		t.Fatal(err)
	}
	sendOps(t, openStream(t, r), claim("stream"))
	for shown, name := range map[string]string{key: "node", "wrong": "stranger"} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), mux.PeerHeader, shown)
		conn, err := mux.Open(ctx, r.dial(t), mux.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(); <-conn.Done() })
		if _, err := mux.Do(t.Context(), conn.Start, claim(name)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"batch": "127.0.0.1", "unary": "127.0.0.1", "stream": "127.0.0.1", "stranger": "127.0.0.1", "node": "10.9.9.9"}
	node.await(t, "five acquires", func() bool { return len(node.started) == len(want) })
	for _, op := range node.started {
		name := op.GetAcquire().GetLocks()[0].GetName()
		if op.GetOwner() != want[name] {
			t.Errorf("owner of acquire %q is %q, want %q", name, op.GetOwner(), want[name])
		}
	}
}

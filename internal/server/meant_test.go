package server

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// A node that now has the address of another one refuses calls that are meant for the other.
func TestCallForAnotherNodeIsRefused(t *testing.T) {
	own := [2]string{"n2", "c1"}
	r := serve(t, Config{Self: func() (node, cluster string) { return own[0], own[1] }})
	cl := r.client(t)
	for _, c := range []struct {
		headers []string
		refusal string // empty: it is accepted
	}{
		{nil, ""},
		{[]string{mux.MemberHeader, "n2"}, ""},
		{[]string{mux.MemberHeader, "n2", mux.ClusterHeader, "c1"}, ""},
		{[]string{mux.ClusterHeader, "c1"}, ""},
		{[]string{mux.MemberHeader, "n1"}, `the node here is "n2", not "n1"`},
		{[]string{mux.MemberHeader, "n1", mux.ClusterHeader, "c1"}, `the node here is "n2", not "n1"`},
		{[]string{mux.MemberHeader, "n2", mux.ClusterHeader, "c2"}, "the node here belongs to cluster c1, not to c2"},
		{[]string{mux.MemberHeader, "knöten\x01"}, `the node here is "n2", not "knöten\x01"`},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.headers...)
		var trailer metadata.MD
		_, unary := cl.Status(ctx, &apiv1.StatusRequest{}, grpc.Trailer(&trailer))
		wantRefusal(t, "call", c.headers, unary, trailer, c.refusal)

		ctx, cancel := context.WithTimeout(ctx, patience)
		stream, err := cl.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c.refusal == "" {
			sendOps(t, stream, getOp(1, "x"))
			receiveAnswers(t, stream, 1)
		} else {
			_, err := stream.Recv()
			wantRefusal(t, "stream", c.headers, err, stream.Trailer(), c.refusal)
		}
		cancel()
	}
}

func wantRefusal(t *testing.T, what string, headers []string, err error, trailer metadata.MD, refusal string) {
	t.Helper()
	if refusal == "" {
		if err != nil {
			t.Errorf("%s with %q: %v", what, headers, err)
		}
		return
	}
	if apiv1.CodeOf(err) != apiv1.CodeUnavailable || !strings.Contains(err.Error(), refusal) || len(trailer.Get(mux.WrongNodeTrailer)) == 0 {
		t.Errorf("%s with %q: %v, trailer %v; want unavailable with %q and the trailer of a wrong node", what, headers, err, trailer, refusal)
	}
}

// A founder does not know its cluster's ID until the table has it.
func TestNodeWithoutAClusterIsNotOfAnother(t *testing.T) {
	r := serve(t, Config{Self: func() (node, cluster string) { return "n2", "" }})
	ctx := metadata.AppendToOutgoingContext(t.Context(), mux.ClusterHeader, "c1")
	if _, err := r.client(t).Status(ctx, &apiv1.StatusRequest{}); err != nil {
		t.Error(err)
	}
}

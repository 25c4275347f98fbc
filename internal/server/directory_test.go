package server

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// directory returns one with members given as pairs of an ID and an address.
func directory(index uint64, pairs ...string) *apiv1.Directory {
	d := &apiv1.Directory{ClusterId: "c", Index: index}
	for i := 0; i < len(pairs); i += 2 {
		d.Members = append(d.Members, &apiv1.Place{Id: pairs[i], ApiAddress: pairs[i+1]})
	}
	return d
}

// directories opens a stream and passes on the directories that it receives, and the IDs
// of the answers.
func directories(t *testing.T, r *running, ctx context.Context) (ask func(id uint64), told <-chan *apiv1.Directory, answered <-chan uint64) {
	t.Helper()
	stream, err := r.client(t).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	directories, answers := make(chan *apiv1.Directory, 100), make(chan uint64, 100)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			if m.GetDirectory() != nil {
				directories <- m.GetDirectory()
			}
			for _, a := range m.GetAnswers() {
				answers <- a.GetId()
			}
		}
	}()
	return func(id uint64) {
		t.Helper()
		if err := stream.Send(&apiv1.SessionRequest{Operations: []*apiv1.Operation{getOp(id, "a")}}); err != nil {
			t.Fatal(err)
		}
	}, directories, answers
}

func TestStreamIsToldWhereTheMembersAreAndOfEachChange(t *testing.T) {
	r := serve(t, Config{})
	ask, told, answered := directories(t, r, t.Context())
	ask(1)
	receiveWithin(t, "an answer", answered)
	if len(told) > 0 {
		t.Errorf("told %v, before the node knew", <-told)
	}
	r.SetDirectory(directory(1, "n1", "a:1", "n2", ""))
	if d := receiveWithin(t, "the directory", told); len(d.GetMembers()) != 2 || d.GetIndex() != 1 {
		t.Errorf("told %v", d)
	}
	r.SetDirectory(directory(2, "n1", "a:1", "n2", "")) // nothing new
	r.SetDirectory(nil)
	ask(2)
	receiveWithin(t, "an answer", answered)
	if len(told) > 0 {
		t.Errorf("told %v, which was known", <-told)
	}
	_, late, _ := directories(t, r, t.Context())
	if d := receiveWithin(t, "the directory for a new stream", late); d.GetIndex() != 2 {
		t.Errorf("a new stream was told %v, want what is known now", d)
	}
	for i, next := range []*apiv1.Directory{
		directory(3, "n1", "a:1", "n2", "b:1"), directory(4, "n1", "a:1"), directory(5, "n3", "a:1"),
		{ClusterId: "d", Index: 6, Members: directory(6, "n3", "a:1").GetMembers()},
	} {
		r.SetDirectory(next)
		for name, ch := range map[string]<-chan *apiv1.Directory{"first": told, "second": late} {
			if d := receiveWithin(t, "a change", ch); d.GetIndex() != next.GetIndex() {
				t.Errorf("change %d: the %s stream was told %v, want %v", i, name, d, next)
			}
		}
	}
}

func TestForwardingNodeIsNotToldWhereTheMembersAre(t *testing.T) {
	r := serve(t, Config{})
	r.SetDirectory(directory(1, "n1", "a:1"))
	ask, told, answered := directories(t, r, metadata.AppendToOutgoingContext(t.Context(), mux.NoNoticesHeader, "1"))
	ask(1)
	receiveWithin(t, "an answer", answered)
	if len(told) > 0 {
		t.Errorf("told %v", <-told)
	}
}

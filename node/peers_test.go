package node

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/server"
)

// standIn is a server that answers as a node and counts its calls.
type standIn struct {
	server.Backend
	id    string
	asked atomic.Int32
}

func (s *standIn) Term(context.Context) (*peerapi.TermResponse, error) {
	s.asked.Add(1)
	return &peerapi.TermResponse{NodeId: s.id}, nil
}

func (s *standIn) Start(call *mux.Call) {
	s.asked.Add(1)
	call.Done(&apiv1.Answer{})
}

func (s *standIn) Watch([16]byte, func(*apiv1.Notice)) (stop func()) { return func() {} }

// listen serves until the test ends, and returns the address.
func (s *standIn) listen(t *testing.T) (api string) { return listenAs(t, s, s.id) }

// listenAs serves a backend as the node with an ID.
func listenAs(t *testing.T, b server.Backend, id string) (api string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Backend: b, Self: func() (node, cluster string) { return id, "c1" }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeGRPC(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Close(ctx)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A node is called at its own address, whatever process is at the other addresses that are
// known for it, and no other process answers for it.
func TestPeerIsAskedWhereItIs(t *testing.T) {
	t.Parallel()
	n1, n2 := &standIn{id: "n1"}, &standIn{id: "n2"}
	at1, at2 := n1.listen(t), n2.listen(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	const own = "127.0.0.1:1"
	hints := map[string][]string{"n1": {own, nobody.Addr().String(), at2, at1}, "n2": {at1, at2}}
	p := newPeers(peersConfig{
		self: place{"n3", own}, addresses: func(id string) []string { return hints[id] },
		cluster: func() string { return "c1" },
	})
	defer p.close()
	ask := func(id string) bool {
		peer, err := p.peer(id)
		if err != nil {
			return false
		}
		res, err := peer.Term(t.Context(), &peerapi.TermRequest{})
		return err == nil && res.GetNodeId() == id
	}
	for _, id := range []string{"n1", "n2"} {
		deadline := time.Now().Add(10 * time.Second)
		for !ask(id) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not found at any of %q", id, hints[id])
			}
		}
		for range 10 {
			if !ask(id) {
				t.Errorf("%s was found, and is called at another address", id)
			}
		}
	}
	if a, b := n1.asked.Load(), n2.asked.Load(); a != 11 || b != 11 {
		t.Errorf("n1 was called %d times and n2 %d times, want 11 each", a, b)
	}
	// The refusal of a stream is seen when it ends.
	hints["n1"] = []string{at2, at1}
	for range 2 {
		cc, err := p.conn("n1", p.find("n1").api)
		if err != nil {
			t.Fatal(err)
		}
		_ = drainSession(t, cc)
	}
	if at := p.find("n1"); at.api != at1 {
		t.Errorf("n1 is looked for at %s, want %s", at.api, at1)
	}
	if err := drainSession(t, mustConn(t, p, "n1", at1)); err != nil {
		t.Errorf("a stream to n1: %v", err)
	}
}

func mustConn(t *testing.T, p *peers, id, api string) *grpc.ClientConn {
	t.Helper()
	cc, err := p.conn(id, api)
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

// drainSession sends a request on a stream and returns how the stream ends.
func drainSession(t *testing.T, cc *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := apiv1.NewLocksClient(cc).Session(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&apiv1.SessionRequest{Operations: []*apiv1.Operation{{Id: 1, Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "x"}}}}})
	_, err = stream.Recv()
	return err
}

// silent accepts calls and answers none.
type silent struct{ standIn }

func (s *silent) Term(ctx context.Context) (*peerapi.TermResponse, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (s *silent) Start(*mux.Call) {}

// A node that has moved while the network was cut leaves a connection that seems to work and
// carries nothing.
func TestPeerIsLookedForElsewhereWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	moved, here := &silent{standIn{id: "n1"}}, &standIn{id: "n1"}
	before, now := listenAs(t, moved, "n1"), here.listen(t)
	p := newPeers(peersConfig{self: place{"n3", "127.0.0.1:1"}, addresses: func(string) []string { return []string{before, now} }})
	defer p.close()
	peer, err := p.peer("n1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if res, err := peer.Term(ctx, &peerapi.TermRequest{}); err == nil {
		t.Fatalf("Term = %v of a node that does not answer", res)
	}
	if at := p.find("n1"); at.api != now {
		t.Errorf("after a call without an answer it is looked for at %s, want %s", at.api, now)
	}
}

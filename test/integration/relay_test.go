//go:build unix

package integration

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proc"
)

// relay stands between the Go client and a node, and loses the answers that a
// test wants lost and no others. A TCP proxy cannot do that to a client that has
// yet to connect: it would lose the connection's beginning, too.
type relay struct {
	apiv1.UnimplementedLocksServer
	node    apiv1.LocksClient
	address string
	losing  atomic.Bool
	lost    atomic.Int64
}

// startRelay starts a relay to a node; it ends with the test.
func startRelay(t *testing.T, n *proc.Node) *relay {
	t.Helper()
	conn, err := n.Conn()
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{node: apiv1.NewLocksClient(conn), address: l.Addr().String()}
	server := grpc.NewServer()
	apiv1.RegisterLocksServer(server, r)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return r
}

// Status is the node's, so that the client finds its leader here.
func (r *relay) Status(ctx context.Context, req *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	return r.node.Status(ctx, req)
}

// Session passes everything on but the answers to what takes or gives locks.
func (r *relay) Session(down grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionResponse]) error {
	up, err := r.node.Session(down.Context())
	if err != nil {
		return err
	}
	go func() {
		for {
			req, err := down.Recv()
			if err != nil {
				_ = up.CloseSend() // fails if the stream has ended
				return
			}
			if up.Send(req) != nil {
				return
			}
		}
	}()
	for {
		res, err := up.Recv()
		if err != nil {
			return err
		}
		if r.losing.Load() {
			before := len(res.GetAnswers())
			res.Answers = slices.DeleteFunc(res.GetAnswers(), func(a *apiv1.Answer) bool {
				return a.GetAcquire() != nil || a.GetRelease() != nil
			})
			r.lost.Add(int64(before - len(res.GetAnswers())))
		}
		if err := down.Send(res); err != nil {
			return err
		}
	}
}

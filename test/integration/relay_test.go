//go:build unix

package integration

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proof/proc"
)

// relay is between the Go client and a node, and loses only the answers that a test names. A
// TCP proxy cannot do that to a client that has not connected yet: it would lose the beginning
// of the connection, too.
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

// Session passes everything on except the answers to acquires and releases. A connection that
// loses an answer does not go on, so the stream breaks when no more answers are to be lost.
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
	lossy := false
	for {
		res, err := up.Recv() // the client sends pings as long as it waits
		if err != nil {
			return err
		}
		losing := r.losing.Load()
		if lossy && !losing {
			return grpcstatus.Error(codes.Unavailable, "the connection that has lost answers breaks")
		}
		if losing {
			before := len(res.GetAnswers())
			res.Answers = slices.DeleteFunc(res.GetAnswers(), func(a *apiv1.Answer) bool {
				return a.GetAcquire() != nil || a.GetRelease() != nil
			})
			gone := before - len(res.GetAnswers())
			r.lost.Add(int64(gone))
			lossy = lossy || gone > 0
		}
		if err := down.Send(res); err != nil {
			return err
		}
	}
}

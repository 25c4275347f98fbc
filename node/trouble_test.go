package node

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

// refuser answers each request for a read index with an error.
type refuser struct{ standIn }

func (r *refuser) ReadIndex(context.Context) (*peerapi.ReadIndexResponse, error) {
	return nil, apiv1.NewError(apiv1.CodeNotLeader, "node %q does not lead", r.id)
}

// TestCallsToOtherNodesFailInPlainWords, as status and logs show them, on real sockets.
func TestCallsToOtherNodesFailInPlainWords(t *testing.T) {
	t.Parallel()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	nobody, silent := listen(), listen()
	_ = nobody.Close()
	leader := &refuser{standIn{id: "n1"}}
	cut := listen()
	go func() {
		for {
			conn, err := cut.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for name, c := range map[string]struct {
		api  string
		want string
		code apiv1.Code
	}{
		"it answers":     {listenAs(t, leader, "n1"), `node "n1" does not lead`, apiv1.CodeNotLeader},
		"nobody listens": {nobody.Addr().String(), "connection refused: nothing listens there", apiv1.CodeUnavailable},
		"it is stopped":  {silent.Addr().String(), "it does not answer", apiv1.CodeUnknownOutcome},
		"it hangs up":    {cut.Addr().String(), "the connection was cut", apiv1.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeers(peersConfig{self: place{"n3", "127.0.0.1:1"}, addresses: func(string) []string { return []string{c.api} }})
			defer p.close()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			peer, err := p.peer("n1")
			if err != nil {
				t.Fatal(err)
			}
			want := c.want
			if name != "it answers" {
				want = `node "n1" at ` + c.api + ": " + c.want
			}
			_, err = peer.ReadIndex(ctx, &peerapi.ReadIndexRequest{})
			if err == nil || err.Error() != want {
				t.Errorf("ReadIndex: got %v, want %q", err, want)
			}
			// The code and the text reach clients.
			if e := apiv1.AsError(err); apiv1.Code(e.GetCode()) != c.code || e.GetMessage() != want {
				t.Errorf("as an answer: got %v, want code %v and %q", e, c.code, want)
			}
			if status.Code(err) == codes.Unknown {
				t.Errorf("got no code of grpc: %v", err)
			}
			if name == "it answers" {
				return
			}
			short, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer stop()
			_, err = mux.Open(short, mustConn(t, p, "n1", c.api), mux.Config{})
			if err == nil || strings.Contains(err.Error(), "rpc error") || strings.Contains(err.Error(), "desc =") {
				t.Errorf("a stream: got %v, want it in plain words", err)
			}
		})
	}
}

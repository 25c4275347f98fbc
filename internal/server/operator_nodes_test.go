package server

import (
	"context"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

// from is a connection in plain text from an address.
type from struct {
	net.Conn
	at net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.at }

// calledFrom is the context of a call in plain text from an address.
func calledFrom(t *testing.T, at string) context.Context {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	c := &limitedConn{Conn: from{at: addr}, ip: ipOf(addr)}
	return peer.NewContext(t.Context(), &peer.Peer{Addr: connAddr{addr, c}})
}

func TestAGossipKeyIsNotTakenInPlainTextFromElsewhere(t *testing.T) {
	r := serve(t, Config{})
	l := &locks{server: r.Server}
	install := &apiv1.ChangeGossipKeysRequest{Install: make([]byte, 32)}
	for at, ok := range map[string]bool{"127.0.0.1:99": true, "[::1]:99": true, "[::ffff:127.0.0.1]:99": true, "10.0.0.7:99": false, "[fd00::1]:99": false} {
		_, err := l.ChangeGossipKeys(calledFrom(t, at), install)
		if want := map[bool]apiv1.Code{true: apiv1.CodeOK, false: apiv1.CodeDenied}[ok]; apiv1.CodeOf(err) != want {
			t.Errorf("from %s: %v, want %v", at, err, want)
		}
		if _, err := l.ChangeGossipKeys(calledFrom(t, at), &apiv1.ChangeGossipKeysRequest{Use: "3f2a9c0d11e5b7a4"}); err != nil {
			t.Errorf("use from %s, which has no key in it: %v", at, err)
		}
	}
}

func TestOnlyPeersChangeTheGossipKeysOfANode(t *testing.T) {
	r := serve(t, Config{Peer: func(key string) bool { return key == "right" }})
	p := peerapi.NewPeersClient(r.dial(t))
	q := &peerapi.ChangeGossipKeysRequest{Use: "3f2a9c0d11e5b7a4"}
	for key, want := range map[string]apiv1.Code{"": apiv1.CodeDenied, "wrong": apiv1.CodeDenied, "right": apiv1.CodeOK} {
		ctx := t.Context()
		if key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, mux.PeerHeader, key)
		}
		if _, err := p.ChangeGossipKeys(ctx, q); apiv1.CodeOf(err) != want {
			t.Errorf("with the key %q: %v, want %v", key, err, want)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(r.node.asked), func(m any) bool { _, is := m.(*peerapi.ChangeGossipKeysRequest); return !is })); n != 1 {
		t.Errorf("the node was asked %d times, want once", n)
	}
}

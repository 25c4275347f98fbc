package simnet

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/proof/racedetector"
)

func TestMain(m *testing.M) {
	racedetector.OneThread()
	goleak.VerifyTestMain(m)
}

// bubble runs f with a network in virtual time.
func bubble(t *testing.T, o Options, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(1, o)
		defer n.Close()
		f(t, n)
	})
}

func mustListen(t testing.TB, h *Host, addr string) net.Listener {
	t.Helper()
	l, err := h.Listen(addr)
	if err != nil {
		t.Fatalf("Listen(%q): %v", addr, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustDial(t testing.TB, h *Host, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, addr)
	if err != nil {
		t.Fatalf("Dial(%q): %v", addr, err)
	}
	return c
}

// connected returns the two ends of a connection from host a to host b.
func connected(t testing.TB, n *Network) (a, b net.Conn) {
	t.Helper()
	l := mustListen(t, n.Host("b"), ":0")
	a = mustDial(t, n.Host("a"), l.Addr().String())
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

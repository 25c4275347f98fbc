package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echo is a service with a unary call and a stream in both directions.
var echo = grpc.ServiceDesc{
	ServiceName: "Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Once", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		m := &wrapperspb.BytesValue{}
		return m, decode(m)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		for {
			m := &wrapperspb.BytesValue{}
			if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	}}},
}

// serveEcho starts a server on a host; the function that it returns stops it.
func serveEcho(t *testing.T, h *Host) (stop func()) {
	t.Helper()
	s := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Second, Timeout: 2 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second}))
	s.RegisterService(&echo, nil)
	l := mustListen(t, h, ":9000")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	return func() {
		s.Stop()
		<-done
	}
}

func newClient(t *testing.T, h *Host, target string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return h.Dial(ctx, addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func once(t *testing.T, c *grpc.ClientConn, text string, limit time.Duration, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	answer := &wrapperspb.BytesValue{}
	if err := c.Invoke(ctx, "/Echo/Once", wrapperspb.Bytes([]byte(text)), answer, opts...); err != nil {
		return err
	}
	if string(answer.Value) != text {
		return fmt.Errorf("answer %q, want %q", answer.Value, text)
	}
	return nil
}

// withEcho runs f with a server on b and a client on a.
func withEcho(t *testing.T, f func(t *testing.T, n *Network, c *grpc.ClientConn)) {
	t.Helper()
	bubble(t, Options{Latency: delay, Jitter: delay}, func(t *testing.T, n *Network) {
		a := n.Host("a")
		defer serveEcho(t, n.Host("b"))()
		c := newClient(t, a, "10.1.0.2:9000")
		defer c.Close()
		f(t, n, c)
	})
}

func TestGRPCCallsAndStreams(t *testing.T) {
	withEcho(t, func(t *testing.T, _ *Network, c *grpc.ClientConn) {
		for i := range 50 {
			if err := once(t, c, fmt.Sprint(i), time.Second); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		s, err := c.NewStream(t.Context(), &echo.Streams[0], "/Echo/Stream")
		if err != nil {
			t.Fatal(err)
		}
		big := bytes.Repeat([]byte("0123456789"), 300_000) // more than any window
		go func() {                                        // who only sends, waits for ever for an echo that nobody reads
			for i := range 5 {
				if err := s.SendMsg(wrapperspb.Bytes(big[i:])); err != nil {
					t.Error(err)
				}
			}
			_ = s.CloseSend()
		}()
		for i := range 5 {
			m := &wrapperspb.BytesValue{}
			if err := s.RecvMsg(m); err != nil || !bytes.Equal(m.Value, big[i:]) {
				t.Fatalf("message %d: %d bytes, %v", i, len(m.Value), err)
			}
		}
		if err := s.RecvMsg(&wrapperspb.BytesValue{}); !errors.Is(err, io.EOF) {
			t.Errorf("end of the stream: %v, want EOF", err)
		}
	})
}

func TestGRPCWaitsOutACut(t *testing.T) {
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		withEcho(t, func(t *testing.T, n *Network, c *grpc.ClientConn) {
			if err := once(t, c, "before", time.Second); err != nil {
				t.Fatal(err)
			}
			n.Cut(way[0], way[1])
			if err := once(t, c, "during", time.Second); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("call into the cut: %v, want DeadlineExceeded", err)
			}
			answered := make(chan error, 1)
			go func() { answered <- once(t, c, "across", 10*time.Second) }()
			time.Sleep(500 * time.Millisecond)
			n.Mend(way[0], way[1])
			if err := <-answered; err != nil {
				t.Errorf("call across a short cut: %v", err)
			}
		})
	}
}

func TestGRPCFindsALongCutByKeepalive(t *testing.T) {
	withEcho(t, func(t *testing.T, n *Network, c *grpc.ClientConn) {
		s, err := c.NewStream(t.Context(), &echo.Streams[0], "/Echo/Stream")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(wrapperspb.Bytes(nil)); err != nil {
			t.Fatal(err)
		}
		m := &wrapperspb.BytesValue{}
		if err := s.RecvMsg(m); err != nil {
			t.Fatal(err)
		}
		n.Isolate("b")
		start := time.Now()
		if err := s.RecvMsg(m); status.Code(err) != codes.Unavailable || time.Since(start) > 15*time.Second {
			t.Errorf("stream into a cut: %v after %v, want Unavailable within 15s", err, time.Since(start))
		}
		n.HealAll()
		if err := once(t, c, "after", 5*time.Second, grpc.WaitForReady(true)); err != nil {
			t.Errorf("call after the cut: %v", err)
		}
	})
}

func TestGRPCConnectsAgainAfterAReset(t *testing.T) {
	withEcho(t, func(t *testing.T, n *Network, c *grpc.ClientConn) {
		s, err := c.NewStream(t.Context(), &echo.Streams[0], "/Echo/Stream", grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		n.Reset("a", "b")
		if err := s.RecvMsg(&wrapperspb.BytesValue{}); status.Code(err) != codes.Unavailable {
			t.Errorf("stream over a reset: %v, want Unavailable", err)
		}
		if err := once(t, c, "after", 5*time.Second, grpc.WaitForReady(true)); err != nil {
			t.Errorf("call after a reset: %v", err)
		}
	})
}

func TestGRPCFindsAServerThatWasKilledAgain(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a := n.Host("a")
		stop := serveEcho(t, n.Host("b"))
		c := newClient(t, a, "10.1.0.2:9000")
		defer c.Close()
		if err := once(t, c, "before", time.Second); err != nil {
			t.Fatal(err)
		}
		n.Kill("b")
		stop()
		if err := once(t, c, "while it is down", time.Second); status.Code(err) != codes.Unavailable {
			t.Errorf("call to a dead server: %v, want Unavailable", err)
		}
		defer serveEcho(t, n.Revive("b"))()
		if err := once(t, c, "after", 5*time.Second, grpc.WaitForReady(true)); err != nil {
			t.Errorf("call after the restart: %v", err)
		}
	})
}

package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// foreign are words of libraries, which do not say what to do.
var foreign = []string{"http2", "frame", "preface", "rpc error", "desc =", "transport", "closed network connection", "become ready", "unknown_outcome"}

func wantPlain(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want %q in it", what, err, want)
		return
	}
	for _, word := range foreign {
		if strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v: %q is a word of a library", what, err, word)
		}
	}
}

// answering listens and answers the first bytes of every connection; with an empty answer it
// closes the connection.
func answering(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
			_, _ = conn.Read(make([]byte, 1))
			if answer == "" {
				_ = conn.Close()
			}
			_, _ = io.WriteString(conn, answer)
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// TestTroubleIsReportedInPlainWords: for each thing that may be at an address instead of a
// node, on real sockets.
func TestTroubleIsReportedInPlainWords(t *testing.T) {
	t.Parallel()
	web := &http.Server{ReadHeaderTimeout: time.Minute}
	l := silent(t)
	go func() { _ = web.Serve(l) }()
	t.Cleanup(func() { _ = web.Close() })
	closed := silent(t)
	_ = closed.Close()
	for name, c := range map[string]struct {
		addr string
		want trouble
	}{
		"no listener":          {closed.Addr().String(), refused},
		"HTTP":                 {l.Addr().String(), speaksH1},
		"a stopped process":    {silent(t).Addr().String(), noHello},
		"TLS":                  {answering(t, "\x15\x03\x03\x00\x02\x02\x28"), speaksTLS},
		"another protocol":     {answering(t, "+OK hello\r\n"), otherWord},
		"closes at once":       {answering(t, ""), noWord},
		"half a frame, no end": {answering(t, "\x00"), noHello},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := Dial(t.Context(), []string{c.addr})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			want := c.addr + ": " + string(c.want)
			// ask makes a call that ends with its context. A busy machine may need more time
			// than the first one to find out what is there.
			ask := func(call func(context.Context) error) (err error) {
				for limit := 1500 * time.Millisecond; limit <= 6*time.Second; limit *= 4 {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					err = call(ctx)
					cancel()
					if err == nil || strings.Contains(err.Error(), want) {
						break
					}
				}
				return err
			}
			err = ask(func(ctx context.Context) error { _, err := client.Members(ctx); return err })
			wantPlain(t, "Members", err, want)
			wantErr(t, "Members", err, ErrUnavailable)
			err = ask(func(ctx context.Context) error { _, err := client.TransferLeadership(ctx, ""); return err })
			wantPlain(t, "TransferLeadership", err, want)
			wantErr(t, "TransferLeadership", err, ErrUnavailable)
			err = ask(func(ctx context.Context) error { _, err := client.IsLocked(ctx, "a"); return err })
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("IsLocked: got %v, want %q in it", err, want)
			}
		})
	}
}

// TestEndOfAConnectionIsReportedInPlainWords: the node has answered, and then ends.
func TestEndOfAConnectionIsReportedInPlainWords(t *testing.T) {
	// Not parallel: a node of another test could listen where this one did.
	r := newRing(t, 1)
	n := r.nodes[0]
	c := r.dial(r.nodes, ConnectTimeout(time.Second))
	mustUnlock(t, mustLock(t, c, "a"))
	n.setMute(true)
	_, err := c.Members(t.Context()) // the survey fails: Status is not answered
	wantPlain(t, "Members of a node that hangs", err, "it does not answer")
	n.setMute(false)
	eventually(t, "it answers again", func() bool { _, err := c.Members(t.Context()); return err == nil })
	n.stop()
	_, err = c.Members(t.Context())
	wantPlain(t, "Members after its end", err, n.addr+": ")
	_, err = c.IsLocked(t.Context(), "a")
	wantPlain(t, "IsLocked after its end", err, n.addr+": "+string(refused))
}

// A request that was sent on a connection that then broke may have been carried out.
func TestRequestOnABrokenConnectionHasAnUnknownOutcome(t *testing.T) {
	r := newRing(t, 2)
	c := r.dial(r.nodes)
	r.nodes[0].exits = true
	_, err := c.TransferLeadership(t.Context(), "")
	if apiv1.CodeOf(err) != apiv1.CodeUnknownOutcome {
		t.Errorf("TransferLeadership: got %v (code %v), want unknown_outcome", err, apiv1.CodeOf(err))
	}
	if n := r.nodes[1].transferCount(); n != 0 {
		t.Errorf("the other node was asked as well, %d times", n)
	}
}

func TestFailedDialsAreReportedInPlainWords(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want trouble
	}{
		{t.Context(), dial(syscall.ECONNREFUSED), refused},
		{t.Context(), dial(syscall.EHOSTUNREACH), noRoute},
		{t.Context(), dial(syscall.ENETUNREACH), noRoute},
		{t.Context(), dial(syscall.ETIMEDOUT), noAnswer},
		{t.Context(), dial(syscall.EMFILE), noFiles},
		{t.Context(), fmt.Errorf("dial: %w", context.DeadlineExceeded), noAnswer},
		{over, dial(syscall.EINTR), noAnswer},
		{t.Context(), dial(syscall.EACCES), "no connection came about: connect: permission denied"},
		{t.Context(), &net.DNSError{Name: "n1.example", IsNotFound: true}, `the name "n1.example" is not known to this host's resolver`},
		{t.Context(), &net.DNSError{Name: "n1.example", Err: "server misbehaving"}, `the name "n1.example" could not be looked up: server misbehaving`},
		{t.Context(), io.ErrShortWrite, "no connection came about: short write"},
	} {
		if got := dialTrouble(c.ctx, c.err); got != c.want {
			t.Errorf("dialTrouble(%v): got %q, want %q", c.err, got, c.want)
		}
	}
}

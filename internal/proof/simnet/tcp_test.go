package simnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outcome names what a caller can tell from an error.
func outcome(err error) string {
	var op *net.OpError
	name := "bare "
	if errors.As(err, &op) {
		name = op.Op + " "
	}
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "EOF"
	case errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &timeout) && timeout.Timeout():
		return name + "deadline"
	case errors.Is(err, net.ErrClosed):
		return name + "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return name + "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return name + "refused"
	case errors.Is(err, context.Canceled), err.Error() == "operation was canceled":
		return name + "cancelled"
	}
	return fmt.Sprintf("%s%T %v", name, err, err)
}

// script is a story of one connection; it notes what the two ends see.
type script struct {
	name string
	play func(s *stage)
}

type stage struct {
	a, b  net.Conn // a dialled
	l     net.Listener
	dial  func(ctx context.Context, addr string) (net.Conn, error)
	notes []string
}

func (s *stage) note(what string, n int, err error) {
	s.notes = append(s.notes, fmt.Sprintf("%s: %d %s", what, n, outcome(err)))
}

func (s *stage) write(what string, c net.Conn, n int) {
	n, err := c.Write(make([]byte, n))
	s.note(what, n, err)
}

// read reads once; what arrives late is late for both kinds of network.
func (s *stage) read(what string, c net.Conn, room int) {
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Read(make([]byte, room))
	s.note(what, n, err)
}

// settle lets everything arrive.
func (s *stage) settle() { time.Sleep(50 * time.Millisecond) }

type halfCloser interface{ CloseWrite() error }

var scripts = []script{
	{"close after a write", func(s *stage) {
		s.write("a writes", s.a, 5)
		s.note("a closes", 0, s.a.Close())
		s.settle()
		s.read("b reads", s.b, 9)
		s.read("b reads on", s.b, 9)
		s.read("b reads at the end", s.b, 9)
		s.write("b writes", s.b, 1)
		s.settle()
		s.write("b writes again", s.b, 1)
		s.write("a writes", s.a, 1)
		s.read("a reads", s.a, 1)
		s.note("a closes again", 0, s.a.Close())
		s.note("a sets a deadline", 0, s.a.SetDeadline(time.Time{}))
	}},
	{"close with unread bytes", func(s *stage) {
		s.write("a writes", s.a, 5)
		s.settle()
		s.note("b closes", 0, s.b.Close())
		s.settle()
		s.read("a reads", s.a, 9)
		s.write("a writes", s.a, 1)
	}},
	{"half close", func(s *stage) {
		s.write("a writes", s.a, 5)
		s.note("a half closes", 0, s.a.(halfCloser).CloseWrite())
		s.write("a writes on", s.a, 1)
		s.settle()
		s.read("b reads", s.b, 9)
		s.read("b reads the end", s.b, 9)
		s.write("b writes", s.b, 7)
		s.settle()
		s.read("a reads", s.a, 9)
		s.note("b closes", 0, s.b.Close())
		s.settle()
		s.read("a reads the end", s.a, 9)
	}},
	{"deadlines", func(s *stage) {
		s.write("a writes", s.a, 5)
		s.settle()
		_ = s.b.SetDeadline(time.Unix(1, 0))
		n, err := s.b.Read(make([]byte, 9))
		s.note("b reads late, with bytes there", n, err)
		s.write("b writes late", s.b, 1)
		_ = s.b.SetDeadline(time.Time{})
		s.read("b reads in time", s.b, 3)
		s.read("b reads the rest", s.b, 9)
		_ = s.b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err = s.b.Read(make([]byte, 9))
		s.note("b waits", n, err)
	}},
	{"nothing", func(s *stage) {
		n, err := s.a.Write(nil)
		s.note("a writes nothing", n, err)
		n, err = s.a.Read(nil)
		s.note("a reads nothing", n, err)
	}},
	{"a reader is ended by its own close", func(s *stage) {
		done := make(chan error)
		go func() {
			_, err := s.a.Read(make([]byte, 1))
			done <- err
		}()
		s.settle()
		_ = s.a.Close()
		s.note("a reads", 0, <-done)
	}},
	{"listeners", func(s *stage) {
		_, err := s.l.(*listenerOnStage).other.Accept()
		s.note("accept on a closed listener", 0, err)
		s.note("close it again", 0, s.l.(*listenerOnStage).other.Close())
		_, err = s.dial(context.Background(), s.l.(*listenerOnStage).other.Addr().String())
		s.note("dial it", 0, err)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = s.dial(ctx, s.l.Addr().String())
		s.note("dial when cancelled", 0, err)
	}},
}

// listenerOnStage has a closed listener beside it.
type listenerOnStage struct {
	net.Listener
	other net.Listener
}

func play(t *testing.T, play func(*stage), listen func() (net.Listener, error), dial func(context.Context, string) (net.Conn, error)) []string {
	t.Helper()
	open := func() net.Listener {
		l, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	s := &stage{l: &listenerOnStage{open(), open()}, dial: dial}
	defer s.l.Close()
	_ = s.l.(*listenerOnStage).other.Close()
	var err error
	if s.a, err = dial(t.Context(), s.l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	defer s.a.Close()
	if s.b, err = s.l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer s.b.Close()
	play(s)
	return s.notes
}

// The same stories are played over TCP on loopback, in real time, and here.
func TestConnectionsBehaveLikeTCP(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			want := play(t, sc.play, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
				func(ctx context.Context, addr string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, "tcp", addr)
				})
			bubble(t, Options{Latency: time.Millisecond}, func(t *testing.T, n *Network) {
				a, b := n.Host("a"), n.Host("b")
				got := play(t, sc.play, func() (net.Listener, error) { return b.Listen(":0") }, a.Dial)
				if !slices.Equal(got, want) {
					t.Errorf("here:\n  %s\nTCP:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
				}
			})
		})
	}
}

func TestHTTPWorks(t *testing.T) {
	bubble(t, Options{Latency: time.Millisecond}, func(t *testing.T, n *Network) {
		l := mustListen(t, n.Host("b"), ":80")
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Second):
				_, _ = io.Copy(w, r.Body)
			case <-r.Context().Done(): // the client is gone, found by a read in the background
			}
		})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Host("a").Dial(ctx, addr) }}
		client := &http.Client{Transport: transport}
		for range 3 {
			r, err := client.Post("http://"+l.Addr().String(), "", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if string(b) != "hello" || err != nil {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://b/", nil)
		if r, err := client.Do(request); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request that is given up: %v, %v", r, err)
		}
		transport.CloseIdleConnections()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

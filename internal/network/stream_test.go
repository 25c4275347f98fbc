package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// members numbers the nodes of tests that do not name theirs.
var members atomic.Int64

// listen starts a Stream on loopback whose log goes to the returned buffer.
func listen(t *testing.T, o StreamOptions) (*Stream, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	o.Logger = rafttest.Logger(log)
	if o.Member == "" {
		o.Member = fmt.Sprintf("n%d", members.Add(1))
	}
	s, err := ListenTCP("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (s *Stream) server() raft.ServerAddress { return MemberAddress(s.o.Member, s.Addr().String()) }

func TestStreamCarriesRaft(t *testing.T) {
	of := func() ClusterIdentity { return ClusterIdentity{ID: "c1"} }
	sa, _ := listen(t, StreamOptions{Cluster: of})
	sb, _ := listen(t, StreamOptions{Member: "b", Cluster: of})
	a := NewTransport(sa, TransportOptions{})
	defer a.Close()
	b := NewTransport(sb, TransportOptions{})
	serve(t, b, accept)
	for range 3 {
		if err := appendTo(a, sb.server(), rafttest.Entries(1, MaxEntries, 1)...); err != nil {
			t.Fatal(err)
		}
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if n := len(sb.conns); n != 1 {
		t.Errorf("%d connections for three RPCs in a row, want 1", n)
	}
}

// A Stream needs no socket: with a listener and a dialer of its caller's it works
// in virtual time.
func TestStreamTakesAnyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		on := func(addr raft.ServerAddress) *Stream {
			layer := network.listen(addr)
			dial := func(ctx context.Context, to string) (net.Conn, error) {
				until, _ := ctx.Deadline()
				return layer.Dial(raft.ServerAddress(to), time.Until(until))
			}
			return NewStream(layer, StreamOptions{Member: string(addr), Dial: dial})
		}
		sa, sb := on("a"), on("b")
		a := NewTransport(sa, TransportOptions{})
		defer a.Close()
		b := NewTransport(sb, TransportOptions{})
		serve(t, b, accept)
		if err := appendTo(a, sb.server(), rafttest.Entries(1, MaxEntries, 1)...); err != nil {
			t.Error(err)
		}
	})
}

// A dialer of the caller's is told when to give up.
func TestStreamEndsADialInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStream(newMemNet().listen("a"), StreamOptions{Member: "a", Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer s.Close()
		start := time.Now()
		_, err := s.Dial("b@b:1", 3*time.Second)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 3*time.Second {
			t.Errorf("Dial returned %v after %v, want the deadline after 3s", err, took)
		}
	})
}

// TestStreamCloseEndsDials: to a host that does not answer, or to one that takes
// the connection and says nothing.
func TestStreamCloseEndsDials(t *testing.T) {
	for name, dial := range map[string]func(context.Context) (net.Conn, error){
		"no answer": func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"says nothing": func(context.Context) (net.Conn, error) {
			ours, _ := net.Pipe()
			return ours, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := NewStream(newMemNet().listen("a"), StreamOptions{Member: "a", Dial: func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }})
			start := time.Now()
			ended := make(chan error)
			go func() {
				_, err := s.Dial("b@b:1", time.Minute)
				ended <- err
			}()
			time.Sleep(time.Second)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err == nil || time.Since(start) != time.Second {
				t.Errorf("%s: Dial returned %v after %v, want an error as the stream is closed after 1s", name, err, time.Since(start))
			}
			if _, err := s.Dial("b@b:1", time.Minute); err == nil || time.Since(start) != time.Second {
				t.Errorf("%s: Dial after Close: %v after %v, want an error at once", name, err, time.Since(start))
			}
		})
	}
}

func TestTwoClustersStayApart(t *testing.T) {
	var (
		nobody  = ClusterIdentity{}
		joined  = ClusterIdentity{ID: "c1"}
		founder = ClusterIdentity{ID: "c1", Founders: "f1"}
		early   = ClusterIdentity{Founders: "f1"} // a founder who does not know the ID yet
		other   = ClusterIdentity{ID: "c2", Founders: "f2"}
		apart   = ClusterIdentity{ID: "c2"} // joined the other one
		named   = ClusterIdentity{Founders: "f1", Name: "staging"}
		renamed = ClusterIdentity{ID: "c1", Name: "staging"}
	)
	for _, c := range []struct {
		ours, theirs ClusterIdentity
		ok           bool
	}{
		{nobody, nobody, true}, {joined, joined, true}, {joined, founder, true}, {founder, early, true}, {early, early, true},
		{joined, apart, false}, {founder, other, false}, {early, other, false}, {early, apart, false}, {early, joined, false},
		{nobody, joined, false}, {nobody, founder, false}, {nobody, early, false},
		{named, named, true}, {named, early, false}, {named, founder, false}, {renamed, joined, true},
	} {
		for _, turned := range []bool{false, true} {
			if turned {
				c.ours, c.theirs = c.theirs, c.ours
			}
			stayApart(t, c.ours, c.theirs, c.ok)
		}
	}
}

// stayApart dials from one node to another, which does not do unless they are of one cluster.
func stayApart(t *testing.T, a, b ClusterIdentity, one bool) {
	t.Helper()
	ours, _ := listen(t, StreamOptions{Cluster: func() ClusterIdentity { return a }})
	theirs, log := listen(t, StreamOptions{Cluster: func() ClusterIdentity { return b }})
	conn, err := ours.Dial(theirs.server(), time.Second)
	if (err == nil) != one {
		t.Errorf("Dial from %v to %v: %v", a, b, err)
	}
	if err == nil {
		_ = conn.Close()
		return
	}
	if !strings.Contains(err.Error(), "cluster") {
		t.Errorf("Dial = %v, want it to speak of the cluster", err)
	}
	rafttest.WaitFor(t, "the other side logs it", time.Second, func() bool { return strings.Contains(log.String(), "cluster") })
}

func TestStrangerGetsASentence(t *testing.T) {
	s, log := listen(t, StreamOptions{})
	resp, err := http.Get("http://" + s.Addr().String() + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusBadRequest || err != nil || !strings.Contains(string(body), "raft port") {
		t.Errorf("GET = %d %q, %v; want 400 with a sentence", resp.StatusCode, body, err)
	}
	rafttest.WaitFor(t, "it is logged", time.Second, func() bool { return strings.Contains(log.String(), "HTTP") })
}

func TestDialOfAWrongPortSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = web.Serve(l) })
	defer wg.Wait()
	defer web.Close()
	s, _ := listen(t, StreamOptions{})
	_, err = s.Dial(MemberAddress("b", l.Addr().String()), 2*time.Second)
	if !errors.Is(err, errStranger) || !strings.Contains(err.Error(), "not a locknode raft port") {
		t.Errorf("Dial of an HTTP port = %v, want a clear sentence", err)
	}
}

func TestSilentConnectionIsCut(t *testing.T) {
	s, log := listen(t, StreamOptions{HandshakeTimeout: 50 * time.Millisecond})
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v, want the other side to close", err)
	}
	rafttest.WaitFor(t, "it is logged", time.Second, func() bool { return strings.Contains(log.String(), "preface") })
}

// A place is given back when the connection ends.
func TestClosedConnectionMakesRoom(t *testing.T) {
	s, _ := listen(t, StreamOptions{MaxHandshakes: 1, MaxPerMember: 1})
	b := NewTransport(s, TransportOptions{})
	serve(t, b, accept)
	for i := range 5 {
		client, _ := listen(t, StreamOptions{})
		var c net.Conn
		rafttest.WaitFor(t, fmt.Sprintf("connection %d", i), 2*time.Second, func() (ok bool) {
			var err error
			c, err = client.Dial(s.server(), time.Second)
			return err == nil
		})
		_ = c.Close()
	}
}

func TestAdvertisedAddressIsNotTheListeners(t *testing.T) {
	s, _ := listen(t, StreamOptions{Advertise: "node-1.example:7402"})
	trans := NewTransport(s, TransportOptions{})
	defer trans.Close()
	if got := trans.LocalAddr(); got != "node-1.example:7402" {
		t.Errorf("LocalAddr = %s", got)
	}
	if s.ListenAddr().String() == s.Addr().String() {
		t.Error("ListenAddr is the advertised one")
	}
}

func TestTransportCloseEndsEveryConnection(t *testing.T) {
	sa, _ := listen(t, StreamOptions{})
	sb, _ := listen(t, StreamOptions{Member: "b"})
	a, b := NewTransport(sa, TransportOptions{}), NewTransport(sb, TransportOptions{})
	serve(t, b, accept)
	if err := appendTo(a, sb.server()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	rafttest.WaitFor(t, "b sees it", 2*time.Second, func() bool {
		sb.mu.Lock()
		defer sb.mu.Unlock()
		return len(sb.conns) == 0
	})
	if err := appendTo(a, sb.server()); err == nil {
		t.Error("a closed transport carries RPCs")
	}
}

func FuzzPreface(f *testing.F) {
	f.Add([]byte(preface{say: sayHello, cluster: ClusterIdentity{ID: "c1"}, from: "n1", to: "n2", api: "10.0.0.1:7400", nonce: "1"}.line()))
	f.Add([]byte(preface{say: sayAsk, cluster: ClusterIdentity{ID: "c1", Founders: "f1", Name: "two words"}, from: "n 1", to: "-", raft: "x:1", nonce: "1"}.line()))
	f.Add([]byte("locknode raft 3 hello - - - n1 %zz - - 1\n"))
	f.Add([]byte(preface{say: sayYes}.line()))
	f.Add([]byte(preface{say: sayNo, reason: "it is another one"}.line()))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{0x16, 3, 1})
	f.Add([]byte("locknode raft 3 " + strings.Repeat("x", 3000) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = theirs.Write(b)
			_ = theirs.Close()
		})
		said, err := readPreface(ours)
		_ = ours.Close()
		wg.Wait()
		if err == nil && !strings.HasPrefix(string(b), said.line()) {
			t.Errorf("readPreface(%q) = %+v", b, said)
		}
	})
}

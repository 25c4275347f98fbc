package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long something is waited for that has to happen; quiet is how
// long nothing has to happen.
const (
	patience = time.Minute
	quiet    = 100 * time.Millisecond
)

var client, server = []string{""}, []string{"server"}

// line is a connection through a proxy to a server that tells what it hears and
// answers each line with itself.
type line struct {
	t     *testing.T
	conn  net.Conn
	in    *bufio.Reader
	links *Links
	proxy *Proxy
	heard chan string
}

// startServer starts one, which ends with the test.
func startServer(t *testing.T) (address string, heard chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard = make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewScanner(conn); in.Scan(); {
				heard <- in.Text()
				if _, err := fmt.Fprintln(conn, in.Text()); err != nil {
					break
				}
			}
			_ = conn.Close() // the proxy has ended it
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String(), heard
}

func startLine(t *testing.T) *line {
	t.Helper()
	address, heard := startServer(t)
	l := &line{t: t, links: NewLinks(), heard: heard}
	var err error
	if l.proxy, err = Listen("127.0.0.1:0", address, "server", l.links, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Close)
	l.dial()
	return l
}

func (l *line) dial() {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.proxy.Address())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	l.conn, l.in = conn, bufio.NewReader(conn)
}

func (l *line) say(text string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.conn, text); err != nil {
		l.t.Fatal(err)
	}
}

// hears waits for what the server hears next; an empty text is nothing.
func (l *line) hears(want string) {
	l.t.Helper()
	limit := patience
	if want == "" {
		limit = quiet
	}
	got := ""
	select {
	case got = <-l.heard:
	case <-time.After(limit):
	}
	if got != want {
		l.t.Errorf("the server heard %q, want %q", got, want)
	}
}

// answered waits for the next answer; an empty text is none.
func (l *line) answered(want string) {
	l.t.Helper()
	limit := patience
	if want == "" {
		limit = quiet
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(limit))
	got, err := l.in.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) && want == "" {
		return
	}
	if err != nil || got != want+"\n" {
		l.t.Errorf("answer: got %q, %v, want %q", got, err, want)
	}
}

// broken waits until the connection is ended, with nothing more to read.
func (l *line) broken() {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := l.in.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Errorf("read %d bytes, %v: want the connection ended", n, err)
	}
}

func TestWhatIsCutArrivesWhenTheWayIsOpenAgain(t *testing.T) {
	l := startLine(t)
	l.say("a")
	l.hears("a")
	l.answered("a")

	l.links.Cut(client, server)
	l.say("b")
	l.hears("")
	l.links.Heal()
	l.hears("b")
	l.answered("b")

	l.links.Cut(server, client)
	l.say("c")
	l.hears("c")
	l.answered("")
	l.links.Heal()
	l.answered("c")
}

func TestConnectionIsNotMadeThroughACut(t *testing.T) {
	for _, cut := range [][2][]string{{client, server}, {server, client}} {
		l := startLine(t)
		_ = l.conn.Close()
		l.links.Cut(cut[0], cut[1])
		l.dial()
		l.say("a")
		l.hears("")
		l.links.Heal()
		l.hears("a")
		l.answered("a")
	}
}

// TestConnectionThatLostSomethingIsNeverUsedAgain: it would be a stream with a hole.
func TestConnectionThatLostSomethingIsNeverUsedAgain(t *testing.T) {
	l := startLine(t)
	l.links.Set(server, client, Rule{Lose: true})
	l.say("a")
	l.hears("a")
	l.answered("")
	l.links.Heal()
	l.say("b")
	l.hears("b")
	l.broken()
}

func TestAnswersAreLostOnNewConnectionsToo(t *testing.T) {
	l := startLine(t)
	_ = l.conn.Close()
	l.links.Set(server, client, Rule{Lose: true})
	l.dial()
	l.say("a")
	l.hears("a")
	l.answered("")
	l.proxy.Reset(func(string) bool { return true })
	l.links.Heal()
	l.broken()
}

func TestDelayTakesTimeAndKeepsTheOrder(t *testing.T) {
	l := startLine(t)
	const delay = 50 * time.Millisecond
	l.links.Set(client, server, Rule{Delay: delay})
	began := time.Now()
	const lines = 20 // at a delay each it would take a second
	for i := range lines {
		l.say(fmt.Sprint(i))
	}
	for i := range lines {
		l.hears(fmt.Sprint(i))
	}
	if took := time.Since(began); took < delay {
		t.Errorf("it took %v, want %v at least", took, delay)
	}
	l.links.Heal()
	l.say("after")
	l.hears("after")
}

func TestResetEndsTheConnectionsThatAreMeant(t *testing.T) {
	l := startLine(t)
	l.say("a")
	l.answered("a")
	l.proxy.Reset(func(who string) bool { return who == "nobody" })
	l.say("b")
	l.answered("b")
	l.proxy.Reset(func(who string) bool { return who == "" })
	l.broken()
}

func TestEndOfAConnectionIsHeardThroughASoundNetworkOnly(t *testing.T) {
	l := startLine(t)
	l.say("a")
	l.answered("a")
	_ = l.conn.Close()
	eventually(t, "the connection is gone", func() bool { return l.proxy.count() == 0 })
	l.dial()
	l.say("b")
	l.answered("b")
	l.links.Set(client, server, Rule{Lose: true})
	_ = l.conn.Close()
	time.Sleep(quiet)
	if l.proxy.count() != 1 {
		t.Error("the end of a connection was heard through a network that loses everything")
	}
	l.links.Heal()
	eventually(t, "the connection is gone", func() bool { return l.proxy.count() == 0 })
}

func (p *Proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func TestMuchIsCarriedWhole(t *testing.T) {
	l := startLine(t)
	const size = 20 << 20 // much more than is under way at a time
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	p, err := Listen("127.0.0.1:0", target.Addr().String(), "server", l.links, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make(chan int64, 1)
	go func() {
		conn, err := target.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, conn)
		_ = conn.Close()
		got <- n
	}()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if n := <-got; n != size {
		t.Errorf("%d bytes arrived, want %d: what was sent before the end comes before the end", n, size)
	}
}

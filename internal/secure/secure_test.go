package secure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/proof/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what is bound to come.
const patience = 30 * time.Second

func source(t *testing.T, a *pki.Authority, id string) *certs.Source {
	t.Helper()
	cert, key, err := a.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	s, err := certs.Open(certs.Files{CA: a.CAFile(), Cert: cert, Key: key}, certs.Options{Node: true, Cluster: a.Cluster, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.New(t.TempDir(), "bank")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// echo is a port whose connections get back what they have sent.
type echo struct {
	addr string
	port *Port

	plain   atomic.Int64 // connections in plain text that are open
	mu      sync.Mutex
	refused []error
}

func serve(t *testing.T, o PortOptions) *echo {
	t.Helper()
	e := &echo{}
	o.OnPlain = func(_ net.Addr, delta int) { e.plain.Add(int64(delta)) }
	o.OnRefused = func(_ net.Addr, err error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.refused = append(e.refused, err)
	}
	e.port = NewPort(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = l.Addr().String()
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			c := e.port.Server(raw)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return e
}

func (e *echo) refusals() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.refused...)
}

func (e *echo) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// comesBack sends text and compares what comes back.
func comesBack(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.WriteString(c, text); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Errorf("read: %d bytes of %d are the same, %v", matching(got, text), len(text), err)
	}
	sending.Wait()
}

func matching(got []byte, want string) (n int) {
	for n < len(got) && got[n] == want[n] {
		n++
	}
	return n
}

func tcp(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func TestAPermissivePortTakesBothAndLosesNoByte(t *testing.T) {
	a := authority(t)
	e := serve(t, PortOptions{Mode: Permissive, Config: source(t, a, "n1").ServePeers(nil)})
	long := strings.Repeat("0123456789", 100_000)
	comesBack(t, e.dial(t), long)
	d := &Dialer{Mode: Required, Config: source(t, a, "n2").DialPeer}
	c, err := d.Dial(t.Context(), e.addr, "n1", tcp)
	if err != nil {
		t.Fatal(err)
	}
	comesBack(t, c, long)
	if who, ok := c.(*Conn).Identity(); !ok || who.Name != "n1" || who.Role != certs.Node {
		t.Errorf("the other end is %v, %v, want node n1", who, ok)
	}
	_ = c.Close()
	if got := e.plain.Load(); got != 1 {
		t.Errorf("%d connections in plain text are counted, want 1", got)
	}
}

func TestPlainTextIsCountedUntilItIsClosed(t *testing.T) {
	e := serve(t, PortOptions{Mode: Permissive, Config: source(t, authority(t), "n1").ServePeers(nil)})
	c := e.dial(t)
	comesBack(t, c, "hello")
	_ = c.Close()
	await(t, "no connection in plain text is counted", func() bool { return e.plain.Load() == 0 })
}

func TestARequiredPortAnswersPlainTextAndClosesIt(t *testing.T) {
	e := serve(t, PortOptions{Mode: Required, Config: source(t, authority(t), "n1").ServePeers(nil),
		Answer: func(first []byte) []byte { return fmt.Appendf(nil, "TLS only, not %q", first) }})
	c := e.dial(t)
	if _, err := io.WriteString(c, "GET /"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := `TLS only, not "GET /"`; string(got) != want || err != nil {
		t.Fatalf("answered %q, %v, want %q", got, err, want)
	}
	await(t, "the port reports why", func() bool { r := e.refusals(); return len(r) == 1 && errors.Is(r[0], errPlain) })
}

// A client that sends nothing costs no handshake, and is closed by the deadline of the port.
func TestDeadlinesHoldBeforeTheFirstByte(t *testing.T) {
	p := NewPort(PortOptions{Mode: Required, Config: source(t, authority(t), "n1").ServePeers(nil)})
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := p.Server(ours)
	defer c.Close()
	for range 2 { // the second time as well: nothing is decided yet
		if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want the deadline", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.shaking) != 0 {
		t.Errorf("%d handshakes are under way, want none", len(p.shaking))
	}
}

// Whoever answers with no TLS does not speak it. Whoever answers nothing may.
func TestADialerFallsBackOnlyIfNoTLSIsSpokenThere(t *testing.T) {
	a := authority(t)
	other := source(t, a, "n3")
	stranger := source(t, authority(t), "n1")
	for name, c := range map[string]struct {
		answer func(net.Conn)
		plain  bool // a permissive dialer falls back
	}{
		"HTTP":         {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, true},
		"HTTP/2":       {func(c net.Conn) { _, _ = c.Write([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0}) }, true},
		"hangs up":     {func(c net.Conn) { _ = c.Close() }, false},
		"says little":  {func(c net.Conn) { _, _ = c.Write([]byte{0}); _ = c.Close() }, false},
		"an alert":     {func(c net.Conn) { _, _ = c.Write(TLSAlert) }, false},
		"another node": {func(c net.Conn) { _ = tls.Server(c, other.ServePeers(nil)).Handshake() }, false},
		"another CA":   {func(c net.Conn) { _ = tls.Server(c, stranger.ServePeers(nil)).Handshake() }, false},
	} {
		for _, mode := range []Mode{Permissive, Required} {
			t.Run(name+", "+string(mode), func(t *testing.T) {
				addr, accepted := answering(t, c.answer)
				d := &Dialer{Mode: mode, Config: source(t, a, "n2").DialPeer}
				conn, err := d.Dial(t.Context(), addr, "n1", tcp)
				if err == nil {
					defer conn.Close()
				}
				falls := c.plain && mode == Permissive
				if falls != (err == nil) || falls && !conn.(*Conn).Plain() {
					t.Errorf("dialled: %v, falls back to plain text: %v, want %v", err, err == nil, falls)
				}
				if got, want := accepted.Load(), int64(1); !falls && got != want {
					t.Errorf("%d connections were made, want %d", got, want)
				}
			})
		}
	}
}

// answering is a listener whose first connection is answered after something has come, and then
// closed.
func answering(t *testing.T, answer func(net.Conn)) (addr string, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = &atomic.Int64{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			first := accepted.Add(1) == 1
			running.Go(func() {
				defer c.Close()
				if first {
					peeked := &wire{Conn: c, first: make([]byte, 1)}
					if _, err := io.ReadFull(c, peeked.first); err == nil {
						answer(peeked)
					}
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = io.Copy(io.Discard, c) // closing with unread bytes could drop the answer
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().String(), accepted
}

func TestAHandshakeThatGetsNowhereEnds(t *testing.T) {
	p := NewPort(PortOptions{Mode: Required, Config: source(t, authority(t), "n1").ServePeers(nil)})
	for name, begin := range map[string][]byte{"one byte": {0x16}, "half a record": {0x16, 3, 1, 2, 0, 1}} {
		ours, theirs := net.Pipe()
		c := p.Server(ours)
		ended := make(chan error, 1)
		go func() { ended <- c.Handshake() }()
		if _, err := theirs.Write(begin); err != nil {
			t.Fatal(err)
		}
		await(t, name+": the handshake is under way", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.shaking) == 1
		})
		_ = c.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s: the handshake has succeeded", name)
			}
		case <-time.After(patience):
			t.Fatalf("%s: Close does not end the handshake", name)
		}
		_ = theirs.Close()
	}
}

// A stranger may send as much as it likes, and gets a bounded place. crypto/tls itself takes
// a list of certificates of 256 KiB.
func TestAHandshakeIsBoundedInBytes(t *testing.T) {
	a := authority(t)
	e := serve(t, PortOptions{Mode: Required, Config: source(t, a, "n1").ServePeers(nil)})
	config := source(t, a, "n2").DialPeer(nil)
	own, err := config.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	long := tls.Certificate{PrivateKey: own.PrivateKey, Certificate: own.Certificate}
	for range 2 * handshakeBytes / len(a.CA.Cert.Raw) {
		long.Certificate = append(long.Certificate, a.CA.Cert.Raw)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &long, nil }
	c := tls.Client(e.dial(t), config)
	defer c.Close()
	_, err = c.Read(make([]byte, 1)) // the handshake, and what comes of it
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is open: %v", err)
	}
	await(t, "the port refuses it", func() bool { r := e.refusals(); return len(r) == 1 && errors.Is(r[0], errTooLong) })
}

// Strangers that wait in their handshakes keep no member out.
func TestAMemberGetsThroughBesideAnyNumberOfHandshakes(t *testing.T) {
	a := authority(t)
	e := serve(t, PortOptions{Mode: Required, Config: source(t, a, "n1").ServePeers(nil)})
	var strangers []net.Conn
	for range maxHandshakes {
		c := e.dial(t)
		if _, err := c.Write([]byte{0x16}); err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, c)
	}
	await(t, "all strangers are in their handshakes", func() bool {
		e.port.mu.Lock()
		defer e.port.mu.Unlock()
		return len(e.port.shaking) == maxHandshakes
	})
	d := &Dialer{Mode: Required, Config: source(t, a, "n2").DialPeer}
	c, err := d.Dial(t.Context(), e.addr, "n1", tcp)
	if err != nil {
		t.Fatalf("beside %d strangers: %v", len(strangers), err)
	}
	defer c.Close()
	comesBack(t, c, "hello")
	e.port.mu.Lock()
	defer e.port.mu.Unlock()
	if got := len(e.port.shaking); got >= maxHandshakes {
		t.Errorf("%d handshakes are under way, want less than %d", got, maxHandshakes)
	}
}

// Close does not wait for an end that does not read.
func TestCloseDoesNotWaitForTheOtherEnd(t *testing.T) {
	a := authority(t)
	ours, theirs := net.Pipe()
	c := NewPort(PortOptions{Mode: Required, Config: source(t, a, "n1").ServePeers(nil)}).Server(ours)
	shaken := make(chan error, 1)
	go func() { shaken <- c.Handshake() }()
	other := tls.Client(theirs, source(t, a, "n2").DialPeer(nil))
	if err := errors.Join(other.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	writing := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 1<<20)) // nobody reads it
		writing <- err
	}()
	closed := make(chan struct{})
	go func() { _ = c.Close(); close(closed) }()
	for range 2 {
		select {
		case <-closed:
			closed = nil
		case err := <-writing:
			if err == nil {
				t.Error("what nobody has read was written")
			}
		case <-time.After(patience):
			t.Fatal("Close, or the write that it is to end, waits for the other end")
		}
	}
	_ = theirs.Close()
}

// In TLS 1.3 the end that dials learns from a Read that its certificate is refused.
func TestARefusedCertificateIsReportedToItsOwner(t *testing.T) {
	a := authority(t)
	e := serve(t, PortOptions{Mode: Required, Config: source(t, a, "n1").ServePeers(func(certs.Identity) error { return errors.New("not today") })})
	d := &Dialer{Mode: Required, Config: source(t, a, "n2").DialPeer}
	c, err := d.Dial(t.Context(), e.addr, "n1", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	const want = "the certificate of this end is refused there"
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("read: %v, want %q", err, want)
	}
	if err := c.(*Conn).Refusal(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("refusal: %v, want %q", err, want)
	}
}

// curl without the CA ends its handshake in this way.
func TestWhatCannotBeDecryptedIsReportedInPlainWords(t *testing.T) {
	cause := &net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}
	if got := Explained(cause); !strings.Contains(got.Error(), "do they have the CA of the cluster?") || !errors.Is(got, cause) {
		t.Errorf("got %v, want a question for the CA that wraps %v", got, cause)
	}
}

func TestModesHaveNames(t *testing.T) {
	for name, want := range map[string]Mode{"": Off, "off": Off, "permissive": Permissive, "required": Required} {
		if got, err := ParseMode(name); got != want || err != nil {
			t.Errorf("ParseMode(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"on", "Required", "true", "permissive "} {
		if got, err := ParseMode(name); err == nil {
			t.Errorf("ParseMode(%q) = %q, want an error", name, got)
		}
	}
}

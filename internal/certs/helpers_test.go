package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// start is the time at which the tests' certificates are made.
var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const aDay = 24 * time.Hour

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

// logs are the lines that a source has logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func newCA(t testing.TB, name string) *CA {
	t.Helper()
	ca, err := NewCA(name, 3650*aDay, start)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t testing.TB, ca *CA, id Identity, hosts ...string) Pair {
	t.Helper()
	p, err := ca.Issue(Request{Identity: id, Hosts: hosts, Lifetime: 365 * aDay, Now: start})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nodeID(name string) Identity   { return Identity{"prod", Node, name} }
func clientID(name string) Identity { return Identity{"prod", Client, name} }

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func caPEM(t testing.TB, cas ...*CA) (b []byte) {
	t.Helper()
	for _, ca := range cas {
		p, err := ca.Pair()
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, p.Cert...)
	}
	return b
}

// put writes the files of a source into dir.
func put(t testing.TB, dir string, p Pair, cas ...*CA) Files {
	t.Helper()
	return Files{
		CA:   write(t, filepath.Join(dir, "ca.crt"), caPEM(t, cas...)),
		Cert: write(t, filepath.Join(dir, "tls.crt"), p.Cert), Key: write(t, filepath.Join(dir, "tls.key"), p.Key),
	}
}

func open(t testing.TB, f Files, o Options) *Source {
	t.Helper()
	if o.Clock == nil {
		o.Clock = newClock().now
	}
	s, err := Open(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nodeSource is the source of a node whose certificate is from ca, and that trusts trusted as well.
func nodeSource(t testing.TB, name string, ca *CA, trusted ...*CA) *Source {
	t.Helper()
	f := put(t, t.TempDir(), issue(t, ca, nodeID(name), "localhost", "127.0.0.1"), append([]*CA{ca}, trusted...)...)
	return open(t, f, Options{Node: true, Cluster: "prod", ID: name})
}

// connected returns both ends of a connection. It has buffers, unlike net.Pipe: in a handshake
// that fails both ends may write at the same time.
func connected() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = l.Close() }()
	if b, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if a, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	end := time.Now().Add(30 * time.Second) // a test that hangs fails
	return a, b, errors.Join(a.SetDeadline(end), b.SetDeadline(end))
}

// shake does a handshake, and a byte in each direction: in TLS 1.3 the client has finished before the
// server has seen its certificate.
func shake(server, client *tls.Config) (state tls.ConnectionState, errServer, errClient error) {
	a, b, err := connected()
	if err != nil {
		return state, err, err
	}
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = a.Close() }()
		one := make([]byte, 1)
		if errServer = s.Handshake(); errServer == nil {
			_, err1 := s.Write(one)
			_, err2 := s.Read(one)
			errServer = errors.Join(err1, err2)
		}
		state = s.ConnectionState()
	}()
	one := make([]byte, 1)
	if errClient = c.Handshake(); errClient == nil {
		_, err1 := c.Read(one)
		_, err2 := c.Write(one)
		errClient = errors.Join(err1, err2)
	}
	_ = b.Close()
	<-done
	return state, errServer, errClient
}

// accepts fails the test unless both ends accept each other. It returns whom the server sees.
func accepts(t *testing.T, server, client *tls.Config) (Identity, bool) {
	t.Helper()
	state, errServer, errClient := shake(server, client)
	if errServer != nil || errClient != nil {
		t.Fatalf("handshake: server %v, client %v, want success", errServer, errClient)
	}
	if state.Version != tls.VersionTLS13 {
		t.Fatalf("version is %x, want TLS 1.3", state.Version)
	}
	return IdentityOf(state)
}

// serverRefuses fails the test unless the server refuses the client with this text.
func serverRefuses(t *testing.T, server, client *tls.Config, want string) {
	t.Helper()
	_, errServer, errClient := shake(server, client)
	wantError(t, "server", errServer, want)
	if errClient == nil {
		t.Error("the client was not told")
	}
}

// clientRefuses fails the test unless the client refuses the server with this text.
func clientRefuses(t *testing.T, server, client *tls.Config, want string) {
	t.Helper()
	_, errServer, errClient := shake(server, client)
	wantError(t, "client", errClient, want)
	if errServer == nil {
		t.Error("the server was not told")
	}
}

func wantError(t *testing.T, who string, err error, want ...string) {
	t.Helper()
	for _, text := range want {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error is %v, want one with %q", who, err, text)
		}
	}
}

// raw is the configuration of somebody who presents a certificate and checks nothing.
func raw(t testing.TB, p Pair) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		InsecureSkipVerify: true, Time: func() time.Time { return start }, Certificates: []tls.Certificate{cert},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	}
}

// custom signs a certificate that Issue would not make.
func custom(t testing.TB, ca *CA, template *x509.Certificate) Pair {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = start.Add(-time.Hour), start.Add(365*aDay)
	}
	cert, err := sign(template, ca.Cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := encode(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t testing.TB, p Pair) *x509.Certificate {
	t.Helper()
	f, err := parsePEM(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	return f.certs[0]
}

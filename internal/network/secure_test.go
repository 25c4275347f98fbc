package network

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/rafttest"
	"github.com/locknode/locknode/internal/secure"
)

// sourceOf are the certificates of one node of the authority's cluster.
func sourceOf(t *testing.T, a *pki.Authority, as certs.Identity) *certs.Source {
	t.Helper()
	cert, key, err := a.Issue(string(as.Role)+"-"+as.Name+"-of-"+as.Cluster, as, hostsOf(as)...)
	if err != nil {
		t.Fatal(err)
	}
	// The options are those of a node that has got a certificate which it should not have.
	s, err := certs.Open(certs.Files{CA: a.CAFile(), Cert: cert, Key: key}, certs.Options{Cluster: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hostsOf(as certs.Identity) []string {
	if as.Role == certs.Node {
		return []string{"127.0.0.1"}
	}
	return nil
}

func nodeOf(cluster, id string) certs.Identity {
	return certs.Identity{Cluster: cluster, Role: certs.Node, Name: id}
}

// securely are the options of a member that has the certificate of an identity.
func securely(t *testing.T, a *pki.Authority, member string, as certs.Identity, mode secure.Mode) StreamOptions {
	t.Helper()
	s := sourceOf(t, a, as)
	return StreamOptions{
		Member: member, Cluster: func() ClusterIdentity { return ClusterIdentity{ID: "c"} }, HandshakeTimeout: 30 * time.Second,
		Secure: secure.NewPort(secure.PortOptions{Mode: mode, Config: s.ServePeers(nil), Answer: RefusePlain}),
		Dialer: &secure.Dialer{Mode: mode, Config: s.DialPeer},
	}
}

func testAuthority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.New(t.TempDir(), "bank")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOnlyTheCertificateOfTheNodeThatIsMeantPasses(t *testing.T) {
	a := testAuthority(t)
	for name, c := range map[string]struct {
		serves, dials certs.Identity
		says          string // the ID in the preface of who dials
		want          string // in the error; empty: it passes
	}{
		"both":                         {nodeOf("bank", "n1"), nodeOf("bank", "n2"), "n2", ""},
		"another node answers":         {nodeOf("bank", "n3"), nodeOf("bank", "n2"), "n2", `"n3" by its certificate, not "n1"`},
		"another node dials":           {nodeOf("bank", "n1"), nodeOf("bank", "n3"), "n2", `it says that it is node "n2", and its certificate is that of "locknode://bank/node/n3"`},
		"of another cluster, it dials": {nodeOf("bank", "n1"), nodeOf("shop", "n2"), "n2", "the certificate of this end is refused there"},
		"of another cluster, answers":  {nodeOf("shop", "n1"), nodeOf("bank", "n2"), "n2", `must be of cluster "bank"`},
		"a client dials":               {nodeOf("bank", "n1"), certs.Identity{Cluster: "bank", Role: certs.Client, Name: "n2"}, "n2", "the certificate of this end is refused there"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := listen(t, securely(t, a, "n1", c.serves, secure.Required))
			client, _ := listen(t, securely(t, a, c.says, c.dials, secure.Required))
			got, err := client.Dial(MemberAddress("n1", server.Addr().String()), 30*time.Second)
			if err == nil {
				_ = got.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// Also on a port that lets clients in.
func TestAClientDoesNotGreetAsANode(t *testing.T) {
	a := testAuthority(t)
	o := securely(t, a, "n1", nodeOf("bank", "n1"), secure.Required)
	o.Secure = secure.NewPort(secure.PortOptions{Mode: secure.Required, Config: sourceOf(t, a, nodeOf("bank", "n1")).ServeClients(true)})
	server, _ := listen(t, o)
	client, _ := listen(t, securely(t, a, "n2", certs.Identity{Cluster: "bank", Role: certs.Client, Name: "n2"}, secure.Required))
	c, err := client.Dial(MemberAddress("n1", server.Addr().String()), 30*time.Second)
	if err == nil {
		_ = c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), `its certificate is that of "locknode://bank/client/n2"`) {
		t.Errorf("got %v, want that the certificate is that of a client", err)
	}
}

// The question of a call back is answered to nobody but the node that it names.
func TestAQuestionIsAnsweredToTheNodeOfTheCertificate(t *testing.T) {
	a := testAuthority(t)
	asked, _ := listen(t, securely(t, a, "n1", nodeOf("bank", "n1"), secure.Required))
	defer asked.dials("a nonce", "n2")()
	for dials, want := range map[string]string{"n2": sayYes, "n3": sayNo} {
		d := &secure.Dialer{Mode: secure.Required, Config: sourceOf(t, a, nodeOf("bank", dials)).DialPeer}
		c, err := d.Dial(t.Context(), asked.Addr().String(), "n1", func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		})
		if err != nil {
			t.Fatal(err)
		}
		own := ClusterIdentity{ID: "c"}
		question := preface{say: sayAsk, cluster: own.hashed("a nonce"), from: "n2", to: "n1", nonce: "a nonce"}
		if _, err := c.Write([]byte(question.line())); err != nil {
			t.Fatal(err)
		}
		if answer, err := readPreface(c); err != nil || answer.say != want {
			t.Errorf("%s asks in the name of n2: got %v, %v, want %q", dials, answer, err, want)
		}
		_ = c.Close()
	}
}

func TestPlainTextIsRefusedWithAReasonOnBothSides(t *testing.T) {
	a := testAuthority(t)
	o := securely(t, a, "n1", nodeOf("bank", "n1"), secure.Required)
	server, log := listen(t, o)
	client, _ := listen(t, StreamOptions{Member: "n2", Cluster: o.Cluster})
	to := MemberAddress("n1", server.Addr().String())
	if c, err := client.Dial(to, 30*time.Second); err == nil || !strings.Contains(err.Error(), "takes only TLS") {
		if err == nil {
			_ = c.Close()
		}
		t.Errorf("plain text is answered %v, want that only TLS is taken", err)
	}
	rafttest.WaitFor(t, "who refuses logs why", time.Minute, func() bool {
		got := log.String()
		return strings.Contains(got, "no TLS came about") && strings.Contains(got, "it speaks plain text")
	})
	// And the other way round: who requires TLS does not use plain text.
	plain, _ := listen(t, StreamOptions{Member: "n2", Cluster: o.Cluster})
	if c, err := server.Dial(MemberAddress("n2", plain.Addr().String()), 30*time.Second); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		if err == nil {
			_ = c.Close()
		}
		t.Errorf("a node without TLS is dialled: %v, want an error that says so", err)
	}
}

func TestPermissiveNodesTalkToBothKinds(t *testing.T) {
	a := testAuthority(t)
	both, _ := listen(t, securely(t, a, "n1", nodeOf("bank", "n1"), secure.Permissive))
	strict, _ := listen(t, securely(t, a, "n2", nodeOf("bank", "n2"), secure.Required))
	plain, _ := listen(t, StreamOptions{Member: "n3", Cluster: both.o.Cluster})
	for _, c := range []struct {
		from, to *Stream
		tls      bool
	}{{both, strict, true}, {strict, both, true}, {both, plain, false}, {plain, both, false}} {
		accepted := make(chan net.Conn, 1)
		go func() {
			got, err := c.to.Accept()
			if err == nil {
				accepted <- got
			}
		}()
		conn, err := c.from.Dial(MemberAddress(c.to.o.Member, c.to.Addr().String()), 30*time.Second)
		if err != nil {
			t.Errorf("%s to %s: %v", c.from.o.Member, c.to.o.Member, err)
			continue
		}
		other := <-accepted
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(other, got); err != nil || string(got) != "hello" {
			t.Errorf("%s to %s: got %q, %v", c.from.o.Member, c.to.o.Member, got, err)
		}
		_ = conn.Close()
		_ = other.Close()
	}
}

// A question in plain text is counted as long as its connection is open, and no longer.
func TestQuestionsInPlainTextAreCountedNoMore(t *testing.T) {
	a := testAuthority(t)
	var open atomic.Int64
	o := securely(t, a, "n1", nodeOf("bank", "n1"), secure.Permissive)
	o.Secure = secure.NewPort(secure.PortOptions{
		Mode: secure.Permissive, Config: sourceOf(t, a, nodeOf("bank", "n1")).ServePeers(nil),
		OnPlain: func(_ net.Addr, delta int) { open.Add(int64(delta)) },
	})
	asked, _ := listen(t, o)
	c, err := net.Dial("tcp", asked.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own := ClusterIdentity{ID: "c"}
	question := preface{say: sayAsk, cluster: own.hashed("a nonce"), from: "n2", to: "n1", nonce: "a nonce"}
	if _, err := c.Write([]byte(question.line())); err != nil {
		t.Fatal(err)
	}
	if _, err := readPreface(c); err != nil {
		t.Fatal(err)
	}
	rafttest.WaitFor(t, "no connection is counted", time.Minute, func() bool { return open.Load() == 0 })
}

func TestOlderTLSIsRefused(t *testing.T) {
	a := testAuthority(t)
	server, _ := listen(t, securely(t, a, "n1", nodeOf("bank", "n1"), secure.Required))
	c, err := tls.Dial("tcp", server.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) //nolint:gosec // the point
	if err == nil {
		_ = c.Close()
		t.Fatal("TLS 1.2 was accepted")
	}
	if !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v, want an alert about the version", err)
	}
}

// Close ends handshakes that have got nowhere.
func TestCloseEndsHandshakesUnderWay(t *testing.T) {
	a := testAuthority(t)
	server, _ := listen(t, securely(t, a, "n1", nodeOf("bank", "n1"), secure.Required))
	var open []net.Conn
	for _, begin := range [][]byte{nil, {0x16}, {0x16, 3, 1, 2, 0, 1}} {
		c, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(begin); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	rafttest.WaitFor(t, "all are in their handshakes", time.Minute, func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.room.shaking) == len(open)
	})
	if err := server.Close(); err != nil { // joins them
		t.Error(err)
	}
	for _, c := range open {
		_ = c.Close()
	}
}

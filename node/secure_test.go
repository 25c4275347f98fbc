package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/secure"
)

// authority is a CA whose files last as long as the test.
func authority(t *testing.T, cluster string) *pki.Authority {
	t.Helper()
	a, err := pki.New(t.TempDir(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var testGossipKey = bytes.Repeat([]byte{7}, 32)

// inTLS returns what gives each node of a cluster TLS in a mode.
func inTLS(t *testing.T, a *pki.Authority, mode string) func(*Config) {
	return func(c *Config) {
		cert, key, err := a.Node(c.ID)
		if err != nil {
			t.Fatal(err)
		}
		c.GossipKey, c.ClusterName = testGossipKey, a.Cluster
		c.TLS = TLS{Mode: mode, CAFile: a.CAFile(), CertFile: cert, KeyFile: key}
	}
}

// dialled returns a client over the network.
func dialled(t *testing.T, n *Node, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), []string{n.APIAddr()}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestAClusterThatRequiresTLSServesClientsInTLSOnly(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	g, err := c.client(c.follower()).Lock(c.ctx(), "orders/1") // forwarded from node to node
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		g, err := dialled(t, n, client.TLSFiles(a.CAFile(), "", "")).Lock(c.ctx(), "orders/2")
		if err != nil {
			t.Fatalf("in TLS through %s: %v", n.ID(), err)
		}
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		_, err = dialled(t, n, client.ConnectTimeout(time.Second)).Status(c.ctx())
		if err == nil || !strings.Contains(err.Error(), "TLS is spoken there") {
			t.Errorf("in plain text through %s: %v, want an error that says that TLS is spoken there", n.ID(), err)
		}
	}
	members, err := c.leader().Members()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.TLS != "required" {
			t.Errorf("member %s is shown with TLS %q, want required", m.ID, m.TLS)
		}
	}
}

// peersWith calls the nodes' own service with a certificate.
func peersWith(t *testing.T, n *Node, a *pki.Authority, who certs.Identity) peerapi.PeersClient {
	t.Helper()
	var hosts []string
	if who.Role == certs.Node {
		hosts = []string{"127.0.0.1"}
	}
	cert, key, err := a.Issue("caller-"+string(who.Role)+who.Name, who, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	source, err := certs.Open(certs.Files{CA: a.CAFile(), Cert: cert, Key: key}, certs.Options{Cluster: a.Cluster})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+n.APIAddr(), grpc.WithTransportCredentials(credentials.NewTLS(source.DialServer(""))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return peerapi.NewPeersClient(cc)
}

func TestTheNodesOwnServiceIsForMembers(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	leader := c.leader()
	denied := func(what string, err error) {
		t.Helper()
		if apiv1.CodeOf(err) != apiv1.CodeDenied {
			t.Errorf("%s: %v, want denied", what, err)
		}
	}
	passed := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	byClient := peersWith(t, leader, a, certs.Identity{Cluster: "bank", Role: certs.Client, Name: "n2"})
	_, err := byClient.Self(c.ctx(), &peerapi.SelfRequest{})
	denied("Self with a client's certificate", err)
	_, err = byClient.Join(c.ctx(), &peerapi.JoinRequest{NodeId: "n9"})
	denied("Join with a client's certificate", err)

	member := c.follower().ID()
	byMember := peersWith(t, leader, a, certs.Identity{Cluster: "bank", Role: certs.Node, Name: member})
	_, err = byMember.Term(c.ctx(), &peerapi.TermRequest{})
	passed("Term by a member", err)

	byStranger := peersWith(t, leader, a, certs.Identity{Cluster: "bank", Role: certs.Node, Name: "n9"})
	_, err = byStranger.Self(c.ctx(), &peerapi.SelfRequest{})
	passed("Self by a node that is no member", err)
	_, err = byStranger.Term(c.ctx(), &peerapi.TermRequest{})
	denied("Term by a node that is no member", err)
	_, err = byStranger.Digests(c.ctx(), &peerapi.DigestsRequest{})
	denied("Digests by a node that is no member", err)
	_, err = byStranger.Join(c.ctx(), &peerapi.JoinRequest{NodeId: "n8"})
	denied("Join for another node", err)
}

func TestRaftRefusesACertificateThatIsNoMembers(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	leader := c.leader()
	var others []string
	for _, n := range c.nodes {
		if n != leader {
			others = append(others, n.ID())
		}
	}
	member, other := others[0], others[1]
	for _, forged := range []struct {
		name string
		who  certs.Identity // of the certificate
		says string         // the ID in the preface
		want string
	}{
		{"a client's", certs.Identity{Cluster: "bank", Role: certs.Client, Name: member}, member, "the certificate of this end is refused there"},
		{"a node's of another cluster", certs.Identity{Cluster: "shop", Role: certs.Node, Name: member}, member, "the certificate of this end is refused there"},
		{"another member's", certs.Identity{Cluster: "bank", Role: certs.Node, Name: other}, member, "it says that it is node"},
		{"a node's that is no member", certs.Identity{Cluster: "bank", Role: certs.Node, Name: "n9"}, "n9", "is not in its configuration"},
	} {
		var hosts []string
		if forged.who.Role == certs.Node {
			hosts = []string{"127.0.0.1"}
		}
		cert, key, err := a.Issue("false", forged.who, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		source, err := certs.Open(certs.Files{CA: a.CAFile(), Cert: cert, Key: key}, certs.Options{Cluster: "bank"})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := network.ListenTCP("127.0.0.1:0", network.StreamOptions{
			Member: forged.says, Cluster: leader.clusterIdentity,
			Secure: secure.NewPort(secure.PortOptions{Mode: secure.Required, Config: source.ServePeers(nil)}),
			Dialer: &secure.Dialer{Mode: secure.Required, Config: source.DialPeer},
		})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := stream.Dial(network.MemberAddress(leader.ID(), leader.RaftAddr()), patience)
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), forged.want) {
			t.Errorf("%s certificate: %v, want %q", forged.name, err, forged.want)
		}
		_ = stream.Close()
	}
}

// get is a request over HTTPS.
func get(t *testing.T, ctx context.Context, config *tls.Config, url string) (status int, body string, err error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func rootsOf(t *testing.T, a *pki.Authority) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(a.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return pool
}

func TestClientsNeedCertificatesWithAClientCA(t *testing.T) {
	a, clients := authority(t, "bank"), authority(t, "bank")
	c := startClusterWith(t, 1, func(cfg *Config) {
		inTLS(t, a, "required")(cfg)
		cfg.TLS.ClientCAFile = clients.CAFile()
	})
	n := c.nodes[0]
	cert, key, err := clients.Client("billing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialled(t, n, client.TLSFiles(a.CAFile(), cert, key)).Status(c.ctx()); err != nil {
		t.Errorf("gRPC with a client's certificate: %v", err)
	}
	if _, err := dialled(t, n, client.TLSFiles(a.CAFile(), "", ""), client.ConnectTimeout(time.Second)).Status(c.ctx()); err == nil || !strings.Contains(err.Error(), "a certificate is needed") {
		t.Errorf("gRPC without a certificate: %v, want that one is needed", err)
	}
	// The CA of clients must not make nodes.
	forged, falseKey, err := clients.Node("n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialled(t, n, client.TLSFiles(a.CAFile(), forged, falseKey), client.ConnectTimeout(time.Second)).Status(c.ctx()); err == nil {
		t.Error("gRPC with a node's certificate of the clients' CA is accepted")
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/v1/status": 403, "/metrics": 403} {
		status, body, err := get(t, c.ctx(), &tls.Config{RootCAs: rootsOf(t, a)}, "https://"+n.HTTPAddr()+path)
		if err != nil || status != want {
			t.Errorf("GET %s without a certificate: %d, %v, want %d: %s", path, status, err, want, body)
		}
		status, _, err = get(t, c.ctx(), &tls.Config{RootCAs: rootsOf(t, a), Certificates: []tls.Certificate{own}}, "https://"+n.HTTPAddr()+path)
		if err != nil || status != 200 {
			t.Errorf("GET %s with a certificate: %d, %v, want 200", path, status, err)
		}
	}
}

func TestHTTPAnswersPlainTextWithWhatToDo(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 1, inTLS(t, a, "required"))
	status, body, err := get(t, c.ctx(), nil, "http://"+c.nodes[0].HTTPAddr()+"/v1/status")
	if err != nil || status != http.StatusBadRequest || !strings.Contains(body, "use https://") {
		t.Errorf("got %d, %q, %v, want 400 that says to use https", status, body, err)
	}
	if _, _, err := get(t, c.ctx(), &tls.Config{MaxVersion: tls.VersionTLS12, RootCAs: rootsOf(t, a)}, "https://"+c.nodes[0].HTTPAddr()); err == nil { //nolint:gosec // the point
		t.Error("TLS 1.2 is accepted")
	}
}

func TestAPermissiveClusterTakesBothAndCountsPlainText(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 1, inTLS(t, a, "permissive"))
	n := c.nodes[0]
	if _, err := dialled(t, n, client.TLSFiles(a.CAFile(), "", "")).Status(c.ctx()); err != nil {
		t.Errorf("in TLS: %v", err)
	}
	if got := n.security.plain["grpc"].Load(); got != 0 {
		t.Errorf("%d connections in plain text are counted after one in TLS", got)
	}
	plain := dialled(t, n)
	if _, err := plain.Status(c.ctx()); err != nil {
		t.Errorf("in plain text: %v", err)
	}
	if got := n.security.plain["grpc"].Load(); got != 1 {
		t.Errorf("%d connections in plain text are counted, want 1", got)
	}
	_ = plain.Close()
	c.eventually("none is counted any more", func() bool { return n.security.plain["grpc"].Load() == 0 })
}

// A client that connects again and again is one cause, and its line names the host, which is what has
// to be found.
func TestConnectionsInPlainTextAreLoggedByTheirHost(t *testing.T) {
	a := authority(t, "bank")
	var log logBuffer
	set := inTLS(t, a, "permissive")
	c := startClusterWith(t, 1, func(cfg *Config) {
		set(cfg)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 4 {
		plain := dialled(t, c.nodes[0])
		if _, err := plain.Status(c.ctx()); err != nil {
			t.Fatal(err)
		}
		_ = plain.Close()
	}
	if lines, hosts := log.count("a connection in plain text"), log.count("listener=grpc from=127.0.0.1\n"); lines != 1 || hosts != 1 {
		t.Errorf("%d lines about connections in plain text, %d with the host alone, want 1 and 1", lines, hosts)
	}
}

// A new CA and new certificates come into use while the cluster runs, without a break.
func TestCertificatesAndTheirCAAreReplacedWhileTheClusterRuns(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	work := dialled(t, c.nodes[0], client.TLSFiles(a.CAFile(), "", ""))
	lock := func() {
		t.Helper()
		g, err := work.Lock(c.ctx(), "orders/1")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	reload := func() {
		t.Helper()
		for _, n := range c.nodes {
			if err := n.ReloadCertificates(); err != nil {
				t.Fatal(err)
			}
		}
		lock()
	}
	lock()
	old, err := os.ReadFile(a.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(); err != nil {
		t.Fatal(err)
	}
	next, err := os.ReadFile(a.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.CAFile(), append(old, next...), 0o600); err != nil {
		t.Fatal(err)
	}
	reload() // both CAs, the old certificates
	for _, n := range c.nodes {
		if _, _, err := a.Node(n.ID()); err != nil {
			t.Fatal(err)
		}
		if err := n.ReloadCertificates(); err != nil { // one after the other
			t.Fatal(err)
		}
		lock()
	}
	if err := os.WriteFile(a.CAFile(), next, 0o600); err != nil {
		t.Fatal(err)
	}
	reload() // the new CA alone
	// All connections that are made anew use the new certificates.
	leader := c.leader()
	if _, err := c.client(leader).TransferLeadership(c.ctx(), c.follower().ID()); err != nil {
		t.Fatal(err)
	}
	g, err := dialled(t, c.follower(), client.TLSFiles(a.CAFile(), "", "")).Lock(c.ctx(), "orders/2")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	// A broken file changes nothing, and the error says which.
	if err := os.WriteFile(c.nodes[0].cfg.TLS.CertFile, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[0].ReloadCertificates(); err == nil || !strings.Contains(err.Error(), c.nodes[0].cfg.TLS.CertFile) {
		t.Errorf("reloading a broken file: %v, want an error that names it", err)
	}
	if _, err := dialled(t, c.nodes[0], client.TLSFiles(a.CAFile(), "", "")).Status(c.ctx()); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
}

// An embedded node may get its certificates from its program; beside it runs one with files.
func TestAConfigurationTakesThePlaceOfFiles(t *testing.T) {
	a := authority(t, "bank")
	set, given := inTLS(t, a, "required"), false
	var asked atomic.Int64
	c := startClusterWith(t, 3, func(cfg *Config) {
		if set(cfg); given { // the first node has files
			files := cfg.TLS
			cfg.TLS = TLS{Mode: files.Mode, Config: &tls.Config{RootCAs: rootsOf(t, a), GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				asked.Add(1)
				pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
				return &pair, err
			}}}
		}
		cfg.GossipKey, given = nil, true
	})
	g, err := dialled(t, c.nodes[1], client.TLSFiles(a.CAFile(), "", "")).Lock(c.ctx(), "orders/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	if err := c.nodes[1].ReloadCertificates(); err != nil || asked.Load() == before {
		t.Errorf("reload: %v, the certificate was asked for %d times, want more than %d", err, asked.Load(), before)
	}
	stranger := authority(t, "bank")
	cert, key, err := stranger.Node("n2")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{ID: "n2", DataDir: t.TempDir(), Listen: "127.0.0.1:0", ClusterName: "bank",
		TLS: TLS{Mode: "required", Config: &tls.Config{RootCAs: rootsOf(t, a), Certificates: []tls.Certificate{pair}}}}
	if n, err := Open(t.Context(), cfg); err == nil {
		_ = n.Close()
		t.Error("a node is opened whose certificate its own CAs have not signed")
	}
}

func TestANodeThatJoinsInTLSIsAdmittedUnderItsOwnID(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	cfg := Config{ID: "n4", DataDir: t.TempDir(), Listen: "127.0.0.1:0", Join: []string{c.nodes[0].GossipAddr()}, Fast: true}
	inTLS(t, a, "required")(&cfg)
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	t.Cleanup(func() { _ = n.Close() })
	c.awaitReady()
	c.eventually("n4 votes", func() bool {
		s, ok := c.nodes[0].voter(c.nodes[0].raft.Load(), "n4")
		return ok && s.Suffrage == raft.Voter
	})
}

func TestFaultsOfTheSettingsOfTLS(t *testing.T) {
	files := TLS{Mode: "required", CAFile: "ca", CertFile: "cert", KeyFile: "key"}
	with := func(change func(*Config)) Config {
		c := Config{DataDir: "d", TLS: files, GossipKey: testGossipKey}
		change(&c)
		return c
	}
	for want, c := range map[string]Config{
		"":                         with(func(*Config) {}),
		`tls mode: is "on", must`:  with(func(c *Config) { c.TLS.Mode = "on" }),
		"tls key file: is missing": with(func(c *Config) { c.TLS.KeyFile = "" }),
		"tls ca file: is missing":  with(func(c *Config) { c.TLS.CAFile = "" }),
		`tls cert file: is "cert", must be empty as long as tls.mode is off`: with(func(c *Config) { c.TLS.Mode = "" }),
		"insecure: is true, must be false":                                   with(func(c *Config) { c.Insecure = true }),
		"gossip key: is missing":                                             with(func(c *Config) { c.TLS.Mode, c.GossipKey = "permissive", nil }),
		"permissive also takes plain text":                                   with(func(c *Config) { c.TLS.Mode, c.Listen = "permissive", "10.0.0.1:7400" }),
		"tls config: is set, must be nil":                                    with(func(c *Config) { c.TLS = TLS{Config: &tls.Config{}} }), //nolint:gosec // never used
		"because there is a tls config":                                      with(func(c *Config) { c.TLS.Config = &tls.Config{} }),       //nolint:gosec // likewise
		`cluster name: is "a..b"`:                                            with(func(c *Config) { c.ClusterName = "a..b" }),
	} {
		if err := c.Validate(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	beyond := with(func(c *Config) { c.Listen = "10.0.0.1:7400" })
	if err := beyond.Validate(); err != nil {
		t.Errorf("TLS beyond loopback: %v", err)
	}
	if beyond.GossipKey = nil; beyond.Validate() != nil {
		t.Errorf("TLS beyond loopback, and no gossip key: %v", beyond.Validate())
	}
}

func TestTheCertificateMustBeThatOfTheNode(t *testing.T) {
	a := authority(t, "bank")
	dir := t.TempDir()
	cfg := Config{ID: "n1", DataDir: dir, Listen: "127.0.0.1:0"}
	inTLS(t, a, "required")(&cfg)
	cfg.ID = "n2"
	if n, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "n1") {
		if err == nil {
			_ = n.Close()
		}
		t.Errorf("with the certificate of n1, n2 is opened: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the data directory is new no more: %v, %v", left, err)
	}
	cfg.ID = "" // that of the certificate
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n.ID() != "n1" {
		t.Errorf("the node is %q, want n1", n.ID())
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

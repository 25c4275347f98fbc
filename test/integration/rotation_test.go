//go:build unix

package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/proc"
)

// secretMount is a directory with the files of one node or client, as Kubernetes mounts a secret: each file
// is a link into a directory that is itself a link, and that link is exchanged.
type secretMount struct {
	dir     string
	version int
}

var mounted = []string{"ca.crt", "tls.crt", "tls.key"}

func newMount(t *testing.T) *secretMount {
	t.Helper()
	m := &secretMount{dir: t.TempDir()}
	for _, name := range mounted {
		must(t, os.Symlink(filepath.Join("..data", name), m.path(name)))
	}
	return m
}

func (m *secretMount) path(name string) string { return filepath.Join(m.dir, name) }

// fill replaces all files at once.
func (m *secretMount) fill(t *testing.T, files map[string][]byte) {
	t.Helper()
	m.version++
	dir := fmt.Sprintf("..version-%d", m.version)
	must(t, os.Mkdir(m.path(dir), 0o700))
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(m.path(dir), name), data, 0o600))
	}
	must(t, os.Symlink(dir, m.path("..new")))
	must(t, os.Rename(m.path("..new"), m.path("..data")))
	if m.version > 1 { // as Kubernetes does
		must(t, os.RemoveAll(m.path(fmt.Sprintf("..version-%d", m.version-1))))
	}
}

// holdings are the mounts of nodes and clients, and who is in them.
type holdings struct {
	of map[*secretMount]certs.Identity
}

func (h *holdings) add(t *testing.T, who certs.Identity) *secretMount {
	t.Helper()
	m := newMount(t)
	h.of[m] = who
	return m
}

// fill gives everybody these CAs, and a certificate that a CA has signed.
func (h *holdings) fill(t *testing.T, signer *pki.Authority, cas ...*pki.Authority) {
	t.Helper()
	for m, who := range h.of {
		m.fill(t, h.files(t, who, signer, cas...))
	}
}

func (h *holdings) files(t *testing.T, who certs.Identity, signer *pki.Authority, cas ...*pki.Authority) map[string][]byte {
	t.Helper()
	var ca []byte
	for _, a := range cas {
		b, err := os.ReadFile(a.CAFile())
		must(t, err)
		ca = append(ca, b...)
	}
	var hosts []string
	if who.Role == certs.Node {
		hosts = []string{"127.0.0.1", "localhost"}
	}
	certFile, keyFile, err := signer.Issue(string(who.Role)+"-"+who.Name, who, hosts...)
	must(t, err)
	cert, err := os.ReadFile(certFile)
	must(t, err)
	key, err := os.ReadFile(keyFile)
	must(t, err)
	return map[string][]byte{"ca.crt": ca, "tls.crt": cert, "tls.key": key}
}

// lines is a log that counts.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// signedBy reports whether a node shows a certificate that a CA has signed.
func signedBy(t *testing.T, n *proc.Node, a *pki.Authority) bool {
	t.Helper()
	b, err := os.ReadFile(a.CAFile())
	must(t, err)
	block, _ := pem.Decode(b)
	ca, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	conn, err := tls.Dial("tcp", n.API(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // it is verified below
	if err != nil {
		return false // clients need a certificate there, and this connection has none
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].CheckSignatureFrom(ca) == nil
}

// The CA of all nodes and clients is replaced under load, in the three steps of docs/tls.md, each with
// its own files that are exchanged as Kubernetes does. Then each node is restarted, so that
// nothing rests on connections from before. No operation fails and no lock is lost.
func TestTheCAIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	old, next := authority(t), authority(t)
	all := &holdings{of: map[*secretMount]certs.Identity{}}
	nodes := map[string]*secretMount{}
	for _, id := range []string{"n1", "n2", "n3"} {
		nodes[id] = all.add(t, certs.Identity{Cluster: testCluster, Role: certs.Node, Name: id})
	}
	theirs := all.add(t, certs.Identity{Cluster: testCluster, Role: certs.Client, Name: "load"})
	tool := all.add(t, certs.Identity{Cluster: testCluster, Role: certs.Client, Name: "operator"})
	all.fill(t, old, old)

	both := trusting(t, old) // the harness itself trusts both, and has a certificate of each
	b, err := os.ReadFile(next.CAFile())
	must(t, err)
	both.RootCAs.AppendCertsFromPEM(b)
	both.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(tool.path("tls.crt"), tool.path("tls.key"))
		return &pair, err
	}
	arguments := func(id string) []string {
		m := nodes[id]
		return []string{"--tls.mode", "required", "--tls.ca-file", m.path("ca.crt"), "--tls.client-ca-file", m.path("ca.crt"), "--tls.cert-file", m.path("tls.crt"), "--tls.key-file", m.path("tls.key")}
	}
	c := startBankOf(t, options(t.TempDir(), 3, "--cluster-name", testCluster), func(n *proc.Node) error {
		n.Secure(credentials.NewTLS(both))
		n.AddArgs(arguments(n.ID)...)
		return nil
	})
	var log lines
	l := startLoad(t, c, patience, client.TLSFiles(theirs.path("ca.crt"), theirs.path("tls.crt"), theirs.path("tls.key")),
		client.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	l.progress(t, 10)
	connect := []string{"--endpoints=" + strings.Join(c.Endpoints(), ","), "--tls-ca", tool.path("ca.crt"), "--tls-cert", tool.path("tls.crt"), "--tls-key", tool.path("tls.key")}

	clients := len(l.others) + 1
	step := func(i int, reload bool, signer *pki.Authority, cas ...*pki.Authority) {
		t.Helper()
		all.fill(t, signer, cas...)
		if reload {
			out, err := printed(t, append([]string{"reload", "--all-nodes"}, connect...)...)
			if err != nil || strings.Count(out, "changed") != 3 {
				t.Errorf("step %d: reload --all-nodes: %v, want that all have changed\n%s", i, err, out)
			}
		}
		// The clients, and without reload the nodes, notice it by themselves.
		eventually(t, fmt.Sprintf("step %d: all clients have their new files", i), func() bool { return log.count("certificates loaded") >= i*clients })
		eventually(t, fmt.Sprintf("step %d: all nodes have their new files", i), func() bool {
			return !slices.ContainsFunc(c.Nodes(), func(n *proc.Node) bool { return strings.Count(n.Logs(), "certificates loaded") < i })
		})
		l.progress(t, 20)
	}
	step(1, true, old, old, next)
	step(2, false, next, old, next)
	step(3, true, next, next)

	for _, n := range c.Nodes() {
		stop(t, n)
		must(t, n.Start(arguments(n.ID)...))
		must(t, n.WaitReady(within(t, patience)))
		eventually(t, "all nodes vote", func() bool {
			return !slices.ContainsFunc(c.Nodes(), func(n *proc.Node) bool { return !status(t, n).GetVoterReady() })
		})
		if !signedBy(t, n, next) {
			t.Errorf("%s does not show a certificate of the new CA", n.ID)
		}
		l.progress(t, 20)
	}
	// Nothing that the old CA has signed is accepted any more.
	stale := newMount(t)
	stale.fill(t, all.files(t, certs.Identity{Cluster: testCluster, Role: certs.Client, Name: "stale"}, old, next))
	if out, err := printed(t, "status", connect[0], "--connect-timeout", "2s", "--tls-ca", stale.path("ca.crt"), "--tls-cert", stale.path("tls.crt"), "--tls-key", stale.path("tls.key")); err == nil {
		t.Errorf("a client with a certificate of the old CA gets in:\n%s", out)
	}
	l.finish(t)
	agree(t, c)
}

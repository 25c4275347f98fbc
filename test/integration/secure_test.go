//go:build unix

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/proc"
)

const testCluster = "bank"

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.New(t.TempDir(), testCluster)
	must(t, err)
	return a
}

// tlsArguments are those of a node in a mode.
func tlsArguments(t *testing.T, a *pki.Authority, id, mode string) []string {
	t.Helper()
	cert, key := filepath.Join(a.Dir, id+".pem"), filepath.Join(a.Dir, id+"-key.pem")
	if _, err := os.Stat(cert); err != nil {
		cert, key, err = a.Node(id)
		must(t, err)
	}
	return []string{"--tls.mode", mode, "--tls.ca-file", a.CAFile(), "--tls.cert-file", cert, "--tls.key-file", key}
}

// trusting is the configuration of a client that trusts the CA.
func trusting(t *testing.T, a *pki.Authority) *tls.Config {
	t.Helper()
	b, err := os.ReadFile(a.CAFile())
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// startBank starts three nodes that have a name and a gossip key, without TLS.
func startBank(t *testing.T, prepare func(*proc.Node) error, env ...string) *proc.Cluster {
	t.Helper()
	o := options(t.TempDir(), 3, "--cluster-name", testCluster)
	o.Env = append(o.Env, "LOCKNODE_GOSSIP_KEY=MDEyMzQ1Njc4OWFiY2RlZg==")
	o.Env = append(o.Env, env...)
	return startBankOf(t, o, prepare)
}

// startBankOf starts the nodes of these options.
func startBankOf(t *testing.T, o proc.Options, prepare func(*proc.Node) error) *proc.Cluster {
	t.Helper()
	o.Prepare = prepare
	c, err := proc.Start(within(t, patience), o)
	must(t, err)
	t.Cleanup(func() {
		must(t, c.Close())
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("the end of what %s printed:\n%s", n.ID, tail(n.Logs(), 60))
			}
		}
	})
	return c
}

// rollTo restarts one node after the other in a mode, each when the cluster can do without it.
func rollTo(t *testing.T, c *proc.Cluster, a *pki.Authority, mode string, l *load) {
	t.Helper()
	for _, n := range c.Nodes() {
		stop(t, n)
		must(t, n.Start(tlsArguments(t, a, n.ID, mode)...))
		n.Secure(credentials.NewTLS(trusting(t, a)))
		must(t, n.WaitReady(within(t, patience)))
		eventually(t, "all nodes vote", func() bool {
			return !slices.ContainsFunc(c.Nodes(), func(n *proc.Node) bool { return !status(t, n).GetVoterReady() })
		})
		l.progress(t, 10)
	}
}

var plainMetric = regexp.MustCompile(`(?m)^locknode_plaintext_connections\{listener="([a-z]+)"\} ([0-9]+)$`)

// plainText is what a node counts of connections in plain text.
func plainText(t *testing.T, n *proc.Node, config *tls.Config) map[string]string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("https://" + n.HTTP() + "/metrics")
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	counts := map[string]string{}
	for _, m := range plainMetric.FindAllStringSubmatch(string(b), -1) {
		counts[m[1]] = m[2]
	}
	return counts
}

// A cluster without TLS is moved to it node by node, under load: first of clients in plain
// text, then of clients in TLS. No operation fails and no lock is lost.
func TestARunningClusterIsMovedToTLS(t *testing.T) {
	t.Parallel()
	a := authority(t)
	c := startBank(t, nil)
	plain := startLoad(t, c, patience)
	plain.progress(t, 10)
	rollTo(t, c, a, "permissive", plain)
	counted := 0
	for _, n := range c.Nodes() {
		if got := plainText(t, n, trusting(t, a)); got["grpc"] != "0" {
			counted++
		}
	}
	if counted == 0 {
		t.Error("no node counts the clients in plain text")
	}
	plain.finish(t)
	plain.leave(t)

	secured := startLoad(t, c, patience, client.TLSFiles(a.CAFile(), "", ""))
	secured.progress(t, 10)
	eventually(t, "nobody speaks plain text any more", func() bool {
		for _, n := range c.Nodes() {
			got := plainText(t, n, trusting(t, a))
			if len(got) != 4 || got["grpc"] != "0" || got["http"] != "0" || got["raft"] != "0" || got["dialled"] != "0" {
				return false
			}
		}
		return true
	})
	rollTo(t, c, a, "required", secured)
	secured.finish(t)
	eventually(t, "all members are shown as such that require TLS", func() bool {
		all, err := secured.watch.Members(within(t, patience))
		return err == nil && len(all) == 3 && !slices.ContainsFunc(all, func(m client.Member) bool { return m.TLS != "required" })
	})
	agree(t, c)
}

// startSecureBank starts three nodes that require TLS from the start.
func startSecureBank(t *testing.T, a *pki.Authority) *proc.Cluster {
	t.Helper()
	config := trusting(t, a)
	return startBank(t, func(n *proc.Node) error {
		n.Secure(credentials.NewTLS(config))
		n.AddArgs(tlsArguments(t, a, n.ID, "required")...)
		return nil
	})
}

// printed runs a command and returns all that it prints.
func printed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = cleanEnvironment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCommandsAndCurlTrustTheCA(t *testing.T) {
	t.Parallel()
	a := authority(t)
	c := startSecureBank(t, a)
	at := "--endpoints=" + strings.Join(c.Endpoints(), ",")
	if out, err := printed(t, "acquire", "orders/1", "--ttl", "1m", at, "--tls-ca", a.CAFile()); err != nil {
		t.Errorf("acquire with the CA: %v\n%s", err, out)
	}
	if out, err := printed(t, "status", "--check", at, "--tls-ca", a.CAFile()); err != nil {
		t.Errorf("status with the CA: %v\n%s", err, out)
	}
	if out, err := printed(t, "status", at, "--connect-timeout", "1s"); err == nil || !strings.Contains(out, "TLS is spoken there") {
		t.Errorf("status without the CA: %v, want that TLS is spoken there\n%s", err, out)
	}
	stranger := authority(t)
	if out, err := printed(t, "status", at, "--connect-timeout", "1s", "--tls-ca", stranger.CAFile()); err == nil || !strings.Contains(out, "must be signed by a CA") {
		t.Errorf("status with another CA: %v, want that the certificate is signed by another one\n%s", err, out)
	}

	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl on this machine: the rest of the test was not run")
	}
	url := fmt.Sprintf("https://%s/v1/locks/orders/1", c.Nodes()[0].HTTP())
	out, err := exec.CommandContext(t.Context(), curl, "-sS", "--cacert", a.CAFile(), url).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"orders/1"`) {
		t.Errorf("curl with the CA: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), curl, "-sS", url).CombinedOutput(); err == nil {
		t.Errorf("curl without the CA gets an answer:\n%s", out)
	}
	if out, err := exec.CommandContext(t.Context(), curl, "-sS", "--tls-max", "1.2", "--cacert", a.CAFile(), url).CombinedOutput(); err == nil {
		t.Errorf("curl with TLS 1.2 gets an answer:\n%s", out)
	}
}

// New certificates come into use at SIGHUP, and by themselves, under load.
func TestCertificatesAreReadAgain(t *testing.T) {
	t.Parallel()
	a := authority(t)
	c := startSecureBank(t, a)
	l := startLoad(t, c, patience, client.TLSFiles(a.CAFile(), "", ""))
	shown := func(n *proc.Node) string {
		t.Helper()
		conn, err := tls.Dial("tcp", n.API(), trusting(t, a))
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	for i, n := range c.Nodes() {
		before := shown(n)
		_, _, err := a.Node(n.ID) // replaces it
		must(t, err)
		if i == 0 { // the others notice it by themselves
			must(t, syscall.Kill(n.PID(), syscall.SIGHUP))
		}
		eventually(t, "the new certificate of "+n.ID+" is in use", func() bool { return shown(n) != before })
	}
	l.progress(t, 10)
	// A file that is broken is refused by name, on the node that has it alone.
	n2 := c.Nodes()[1]
	before := shown(n2)
	broken := filepath.Join(a.Dir, n2.ID+".pem")
	must(t, os.WriteFile(broken, []byte("no certificate"), 0o600))
	out, err := printed(t, "reload", "--all-nodes", "--endpoints="+c.Nodes()[0].API(), "--tls-ca", a.CAFile())
	if err == nil || strings.Count(out, "refused  ") != 1 || !strings.Contains(out, broken) {
		t.Errorf("reload with a broken file of %s: %v, want one refusal that names it\n%s", n2.ID, err, out)
	}
	if shown(n2) != before {
		t.Error("what was in use before does not stay in use")
	}
	l.progress(t, 10)
	l.finish(t)
}

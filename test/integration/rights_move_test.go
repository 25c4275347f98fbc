//go:build unix

package integration

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// loadPolicy gives the clients of a load what they need.
const loadPolicy = `name: load
for: [token:load]
rules:
  - {allow: [read, lock], prefix: own/}
  - {allow: [read, lock], prefix: kept/}
  - {allow: [read, lock], name: shared}
`

// place puts a file in the place of another one, as a program does that replaces certificates.
func place(t *testing.T, path string, texts ...[]byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", slices.Concat(texts...), 0o600))
	must(t, os.Rename(path+".new", path))
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// roll restarts one node after the other with these arguments, each when the cluster can do
// without it, under a load.
func (g *guarded) roll(t *testing.T, l *load, args func(n *proc.Node) []string) {
	t.Helper()
	for _, n := range g.Nodes() {
		stop(t, n)
		must(t, n.Start(args(n)...))
		n.Secure(credentials.NewTLS(trusting(t, g.pki)))
		if g.root != "" {
			n.Identify(shown(secretIn(t, g.root)))
		}
		must(t, n.WaitReady(within(t, patience)))
		eventually(t, "all nodes vote", func() bool {
			return !slices.ContainsFunc(g.Nodes(), func(n *proc.Node) bool {
				s, err := n.Status(t.Context())
				return err != nil || !s.GetVoterReady()
			})
		})
		l.progress(t, 10)
	}
}

// A cluster in plain text, with clients that lock all the time, becomes one that requires TLS and
// rights, and then gets another CA, other certificates and other access tokens. No operation
// fails and no lock is lost.
func TestARunningClusterGetsRights(t *testing.T) {
	t.Parallel()
	g := &guarded{pki: authority(t), dir: t.TempDir()}
	g.Cluster = startBank(t, nil)
	plain := startLoad(t, g.Cluster, patience)
	plain.progress(t, 10)
	with := func(tlsMode, authMode string) func(n *proc.Node) []string {
		return func(n *proc.Node) []string {
			return append(tlsArguments(t, g.pki, n.ID, tlsMode), "--auth.mode", authMode)
		}
	}
	g.roll(t, plain, with("permissive", "log"))

	// Access tokens exist, and nobody needs one yet.
	g.root = g.bootstrap(t, g.Nodes()[0], "root.token")
	g.policy(t, loadPolicy)
	token, accessor := g.token(t, "load", "load.token")
	plain.finish(t)
	plain.leave(t)
	asked := &atomic.Int64{}
	loaded := startLoad(t, g.Cluster, patience, client.TLSFiles(g.pki.CAFile(), "", ""), client.Token(func() string {
		asked.Add(1)
		b, err := os.ReadFile(token)
		if err != nil {
			return ""
		}
		return string(b)
	}))
	loaded.progress(t, 10)
	g.roll(t, loaded, with("required", "required"))
	if out := g.run(t, "", "acquire", "own/x").ends(t, exitDenied).stderr.String(); !strings.Contains(out, "not authenticated") {
		t.Errorf("without an access token: %s", out)
	}

	rotateToken(t, g, token, accessor, loaded)
	rotateCA(t, g, loaded)
	loaded.finish(t)
	t.Logf("the access token was asked for %d times", asked.Load())
}

// rotateToken replaces the access token of a load: the new one is there before the old one is
// revoked.
func rotateToken(t *testing.T, g *guarded, path, accessor string, l *load) {
	t.Helper()
	next, _ := g.token(t, "load", "next.token")
	place(t, path, contents(t, next))
	g.run(t, g.root, "token", "revoke", accessor).ends(t, 0)
	l.progress(t, 50)
}

// rotateCA replaces the CA and all certificates, without a restart of a node.
func rotateCA(t *testing.T, g *guarded, l *load) {
	t.Helper()
	reload := func() {
		for _, n := range g.Nodes() {
			must(t, syscall.Kill(n.PID(), syscall.SIGHUP))
		}
	}
	ca := g.pki.CAFile()
	old := contents(t, ca)
	config := trusting(t, g.pki) // of before
	must(t, g.pki.Renew())       // the new one alone is in the file for a moment, which nobody reads
	fresh := contents(t, ca)
	place(t, ca, old, fresh)
	reload()
	both := trusting(t, g.pki)
	l.progress(t, 10)
	issuer := func(n *proc.Node, config *tls.Config) (string, error) {
		conn, err := tls.Dial("tcp", n.API(), config)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return fmt.Sprintf("%x", conn.ConnectionState().PeerCertificates[0].AuthorityKeyId), nil
	}
	for _, n := range g.Nodes() {
		before, err := issuer(n, both)
		must(t, err)
		_, _, err = g.pki.Node(n.ID)
		must(t, err)
		must(t, syscall.Kill(n.PID(), syscall.SIGHUP))
		eventually(t, n.ID+" has a certificate of the new CA", func() bool {
			now, err := issuer(n, both)
			must(t, err)
			return now != before
		})
		l.progress(t, 10)
	}
	place(t, ca, fresh)
	reload()
	for _, n := range g.Nodes() {
		if _, err := issuer(n, config); err == nil {
			t.Errorf("%s is trusted by who trusts only the old CA", n.ID)
		}
	}
	// Restarted, a node has nothing but new connections.
	g.roll(t, l, func(n *proc.Node) []string {
		return append(tlsArguments(t, g.pki, n.ID, "required"), "--auth.mode", "required")
	})
}

// secretsOf returns the secrets of a cluster, in all the forms in which they could be shown.
func (g *guarded) secretsOf(t *testing.T, tokens ...string) map[string][]byte {
	t.Helper()
	secrets := map[string][]byte{"the gossip key": []byte("MDEyMzQ1Njc4OWFiY2RlZg==")}
	for _, path := range tokens {
		secrets["the access token in "+filepath.Base(path)] = []byte(secretIn(t, path)[4:40])
	}
	for _, n := range g.Nodes() {
		secrets["the proof of "+n.ID] = []byte(strings.TrimSpace(string(contents(t, filepath.Join(n.Dir, "operator.key"))))[:32])
		lines := strings.Split(string(contents(t, filepath.Join(g.pki.Dir, n.ID+"-key.pem"))), "\n")
		secrets["the private key of "+n.ID] = []byte(lines[1])
	}
	return secrets
}

// Secrets are in the files that are for them, and nowhere else: not in logs, the printed
// configuration, the list of processes, errors, what commands print, metrics, nor in the data
// directories with all that is in a log and a snapshot.
func TestSecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, "--log-level", "debug")
	g.policy(t, shopPolicy)
	shop, accessor := g.token(t, "shop", "shop.token")
	other, _ := g.token(t, "other", "other.token")
	secrets := g.secretsOf(t, g.root, shop, other)
	secret := secretIn(t, shop)
	seen := map[string][]byte{}
	note := func(where string, text []byte) { seen[where] = append(seen[where], text...) }

	// A command that holds a lock with the token, while the processes are listed.
	run := g.run(t, shop, "run", "orders/1", "--", "cat")
	eventually(t, "the lock is held", func() bool {
		return strings.Contains(g.run(t, shop, "get", "orders/1").ends(t, 0).stdout.String(), "token")
	})
	variable := g.runIn(t, []string{"LOCKNODE_TOKEN=" + secret}, "run", "orders/2", "--", "cat")
	eventually(t, "the other lock is held", func() bool {
		return strings.Contains(g.run(t, shop, "get", "orders/2").ends(t, 0).stdout.String(), "token")
	})
	commandLines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range commandLines {
		b, _ := os.ReadFile(path) // it may be gone
		note("the list of processes", b)
	}
	must(t, run.stdin.Close())
	must(t, variable.stdin.Close())
	run.ends(t, 0)
	variable.ends(t, 0)

	for _, args := range [][]string{
		{"auth", "whoami"}, {"auth", "whoami", "-o", "json"}, {"token", "ls", "-o", "json"}, {"token", "info", accessor}, {"acquire", "billing/1"}, {"status", "-o", "json"},
		{"sessions", "ls"}, {"token", "create", "x", "--out", shop}, {"members"}, {"policy", "ls", "-o", "json"}, {"get", "orders/1", "--endpoints", "127.0.0.1:1", "--connect-timeout", "100ms"},
	} {
		for _, token := range []string{shop, g.root} {
			c := g.run(t, token, args...)
			c.wait(t)
			note(fmt.Sprintf("what %q prints", args), []byte(c.stdout.String()+c.stderr.String()))
		}
	}
	n := g.Nodes()[0]
	for _, proof := range []string{secret, secret + "x", secret[:30]} { // shown wrongly, or in the wrong place
		for _, path := range []string{"/v1/locks/a", "/v1/status"} {
			_, body := g.web(t, n, proof, "GET", path, "")
			note("an answer over HTTP", []byte(body))
		}
	}
	_, metrics := g.web(t, n, secretIn(t, g.root), "GET", "/metrics", "")
	note("the metrics", []byte(metrics))
	for _, format := range []string{"text", "json"} {
		config := g.runIn(t, []string{"LOCKNODE_GOSSIP_KEY=MDEyMzQ1Njc4OWFiY2RlZg==", "LOCKNODE_TOKEN=" + secret}, "serve", "--print-config", "-o", format)
		config.ends(t, 0)
		note("--print-config", []byte(config.stdout.String()+config.stderr.String()))
	}

	g.run(t, g.root, "token", "revoke", accessor, "--end-sessions").ends(t, 0)
	stop(t, g.Nodes()...)
	for _, n := range g.Nodes() {
		must(t, filepath.WalkDir(n.Dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !slices.Contains([]string{"operator.key", "gossip-keys.json"}, d.Name()) { // which are secrets
				note("the data directories", contents(t, path))
			}
			return err
		}))
	}
	for _, n := range g.Nodes() {
		note("the log of "+n.ID, []byte(n.Logs()))
	}
	for where, text := range seen {
		for what, secret := range secrets {
			if at := strings.Index(string(text), string(secret)); at >= 0 {
				t.Errorf("%s shows %s: …%q…", where, what, text[max(0, at-200):min(at+100, len(text))])
			}
		}
		if len(text) == 0 {
			t.Errorf("%s is empty: the test looks in the wrong place", where)
		}
	}
}

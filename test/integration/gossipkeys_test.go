//go:build unix

package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/proc"
)

// startAgreeingBank starts three nodes that require TLS and have no gossip key in their settings.
func startAgreeingBank(t *testing.T, a *pki.Authority) *proc.Cluster {
	t.Helper()
	config := trusting(t, a)
	return startBankOf(t, options(t.TempDir(), 3, "--cluster-name", testCluster), func(n *proc.Node) error {
		n.Secure(credentials.NewTLS(config))
		n.AddArgs(tlsArguments(t, a, n.ID, "required")...)
		return nil
	})
}

type gossipKey struct {
	Fingerprint      string
	Members, Primary []string
}

// gossipKeys is what gossip-key ls prints.
type gossipKeys struct {
	Keys    []gossipKey
	Members int
	Silent  []struct{ ID, Fault string }
}

// without returns the first key that is not the one of a fingerprint.
func (k gossipKeys) without(fingerprint string) gossipKey {
	i := slices.IndexFunc(k.Keys, func(k gossipKey) bool { return k.Fingerprint != fingerprint })
	if i < 0 {
		return gossipKey{}
	}
	return k.Keys[i]
}

func listGossipKeys(t *testing.T, connect []string) (keys gossipKeys) {
	t.Helper()
	out, err := printed(t, append([]string{"gossip-key", "ls", "-o", "json"}, connect...)...)
	if err != nil {
		t.Fatalf("gossip-key ls: %v\n%s", err, out)
	}
	must(t, json.Unmarshal([]byte(out), &keys))
	return keys
}

// allAlive checks that every member sees every member alive.
func allAlive(t *testing.T, l *load, c *proc.Cluster) {
	t.Helper()
	for _, n := range c.Nodes() {
		all, err := dial(t, []string{n.API()}, l.opts...).Members(within(t, patience))
		must(t, err)
		if slices.ContainsFunc(all, func(m client.Member) bool { return m.Health != "alive" }) || len(all) != len(c.Nodes()) {
			t.Errorf("%s sees %+v, want all alive", n.ID, all)
		}
	}
}

// Nodes without a gossip key agree on one, and it is rotated under load: no operation fails, no lock
// is lost, and no member is missed by another one. A node that was away meanwhile comes back.
func TestTheGossipKeyIsRotatedUnderLoad(t *testing.T) {
	t.Parallel()
	a := authority(t)
	c := startAgreeingBank(t, a)
	l := startLoad(t, c, patience, client.TLSFiles(a.CAFile(), "", ""))
	l.progress(t, 10)
	connect := []string{"--endpoints=" + strings.Join(c.Endpoints(), ","), "--tls-ca", a.CAFile()}
	first := listGossipKeys(t, connect)
	if len(first.Keys) != 1 || len(first.Keys[0].Primary) != 3 || first.Members != 3 {
		t.Fatalf("the keys are %+v, want one on three nodes", first)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := printed(t, append(append([]string{"gossip-key"}, args...), connect...)...)
		if err != nil {
			t.Fatalf("gossip-key %v: %v\n%s", args, err, out)
		}
		return out
	}
	old := first.Keys[0].Fingerprint
	for range 2 {
		if out, err := printed(t, append([]string{"gossip-key", "remove", old}, connect...)...); err == nil || !strings.Contains(out, "must not be removed") {
			t.Errorf("removing the key that is in use: %v\n%s", err, out)
		}
		installed := strings.SplitN(run("install"), ":", 2)[0]
		l.progress(t, 10)
		run("use", installed)
		l.progress(t, 10)
		run("remove", old)
		l.progress(t, 10)
		if got := listGossipKeys(t, connect); len(got.Keys) != 1 || got.Keys[0].Fingerprint != installed || len(got.Keys[0].Primary) != 3 {
			t.Fatalf("the keys are %+v, want %s alone on three nodes", got, installed)
		}
		old = installed
		allAlive(t, l, c)
	}

	// A node that is away while the key is rotated gets it when it is back.
	away := c.Nodes()[2]
	stop(t, away)
	if out, err := printed(t, append([]string{"gossip-key", "install"}, connect...)...); err == nil || !strings.Contains(out, away.ID) {
		t.Errorf("install while %s is down: %v, want a fault that names it\n%s", away.ID, err, out)
	}
	next := listGossipKeys(t, connect).without(old).Fingerprint
	if out, err := printed(t, append([]string{"gossip-key", "use", next}, connect...)...); err == nil || !strings.Contains(out, away.ID) {
		t.Errorf("use while %s is down: %v, want a refusal that names it\n%s", away.ID, err, out)
	}
	run("use", next, "--without-silent")
	run("remove", old, "--without-silent")
	must(t, away.Start(tlsArguments(t, a, away.ID, "required")...))
	must(t, away.WaitReady(within(t, patience)))
	eventually(t, "the node that was away has the new key", func() bool {
		got := listGossipKeys(t, connect)
		return len(got.Keys) == 1 && got.Keys[0].Fingerprint == next && len(got.Keys[0].Primary) == 3
	})
	eventually(t, "all see it alive", func() bool {
		all, err := l.watch.Members(within(t, patience))
		return err == nil && !slices.ContainsFunc(all, func(m client.Member) bool { return m.Health != "alive" })
	})
	l.finish(t)
	agree(t, c)
}

// Without tls.mode required the key comes from files: locknode reload installs a changed one.
func TestReloadInstallsAChangedGossipKeyFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gossip.key")
	must(t, os.WriteFile(file, []byte("MDEyMzQ1Njc4OWFiY2RlZg==\n"), 0o600))
	c := startBankOf(t, options(t.TempDir(), 3, "--cluster-name", testCluster, "--gossip-key-file", file), nil)
	l := startLoad(t, c, patience)
	connect := []string{"--endpoints=" + strings.Join(c.Endpoints(), ",")}
	old := listGossipKeys(t, connect).Keys[0].Fingerprint
	key, err := printed(t, "gossip-key", "generate")
	must(t, err)
	must(t, os.WriteFile(file, []byte(key), 0o600))
	out, err := printed(t, append([]string{"reload", "n2"}, connect...)...)
	if err != nil || !strings.Contains(out, "gossip_key") || !strings.Contains(out, "changed") || strings.Contains(out, strings.TrimSpace(key)) {
		t.Fatalf("reload n2: %v\n%s", err, out)
	}
	got := listGossipKeys(t, connect)
	next := got.without(old).Fingerprint
	if len(got.Keys) != 2 || !slices.Equal(got.without(old).Members, []string{"n2"}) {
		t.Fatalf("the keys are %+v, want the new one on n2 alone", got)
	}
	if out, err := printed(t, append([]string{"gossip-key", "use", next}, connect...)...); err == nil || !strings.Contains(out, "n1") || !strings.Contains(out, "n3") {
		t.Errorf("use while two nodes lack the key: %v, want a refusal that names them\n%s", err, out)
	}
	if out, err := printed(t, append([]string{"reload", "--all-nodes", "-o", "json"}, connect...)...); err != nil || strings.Count(out, `"gossip_key"`) != 3 {
		t.Fatalf("reload --all-nodes: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"use", next}, {"remove", old}} {
		if out, err := printed(t, append(append([]string{"gossip-key"}, args...), connect...)...); err != nil {
			t.Fatalf("gossip-key %v: %v\n%s", args, err, out)
		}
		l.progress(t, 10)
	}
	allAlive(t, l, c)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	must(t, err)
	for _, n := range c.Nodes() {
		for _, secret := range []string{strings.TrimSpace(key), hex.EncodeToString(raw), string(raw), "MDEyMzQ1Njc4OWFiY2RlZg"} {
			if strings.Contains(n.Logs(), secret) {
				t.Errorf("%s has logged a gossip key", n.ID)
			}
		}
	}
	// A file that is broken is refused, and what was in use stays.
	must(t, os.WriteFile(file, []byte("no key\n"), 0o600))
	if out, err := printed(t, append([]string{"reload", "n1"}, connect...)...); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("reload with a broken file: %v, want that it is refused\n%s", err, out)
	}
	l.finish(t)
}

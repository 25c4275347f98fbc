package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/gossipkeys"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/secure"
)

// agreeing is inTLS with no gossip key: the nodes agree on one.
func agreeing(t *testing.T, a *pki.Authority) func(*Config) {
	set := inTLS(t, a, "required")
	return func(c *Config) {
		set(c)
		c.GossipKey = nil
	}
}

// join adds a node to a cluster.
func (c *testCluster) join(id string, change func(*Config)) *Node {
	c.t.Helper()
	cfg := Config{ID: id, DataDir: c.t.TempDir(), Listen: "127.0.0.1:0", Join: []string{c.nodes[0].GossipAddr()}, Fast: true}
	change(&cfg)
	n, err := Open(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	c.t.Cleanup(func() { _ = n.Close() })
	c.awaitReady()
	return n
}

// keysAgree waits until all nodes have the same keys, and returns their fingerprints.
func (c *testCluster) keysAgree(count int) []gossipkeys.Fingerprint {
	c.t.Helper()
	c.eventually("all nodes have the same gossip keys", func() bool {
		first := c.nodes[0].gossipKeys.Ring()
		return len(first.Keys) == count && !slices.ContainsFunc(c.nodes, func(n *Node) bool { return !n.gossipKeys.Ring().Equal(first) })
	})
	return c.nodes[0].gossipKeys.Ring().Fingerprints()
}

// allAlive waits until gossip on each node sees all the others.
func (c *testCluster) allAlive() {
	c.t.Helper()
	c.eventually("gossip sees all nodes", func() bool {
		for _, n := range c.nodes {
			alive := 0
			for _, p := range n.cluster.Peers() {
				if p.State.String() == "alive" {
					alive++
				}
			}
			if alive != len(c.nodes)-1 {
				return false
			}
		}
		return true
	})
}

func TestNodesThatRequireTLSAgreeOnAGossipKey(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, agreeing(t, a))
	f := c.keysAgree(1)
	c.join("n4", agreeing(t, a))
	if got := c.keysAgree(1); got[0] != f[0] {
		t.Errorf("the key is %s after a node has joined, want %s", got[0], f[0])
	}
	c.allAlive()
	for i, n := range c.nodes {
		if ring := n.gossipKeys.Ring(); ring.Version == 0 {
			t.Errorf("node %s has version 0 of the keys in a cluster", n.ID())
		}
		if i == 3 {
			break
		}
		info, err := os.Stat(filepath.Join(c.dirs[i], gossipkeys.FileName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file of the keys: %v, %v, want mode 0600", info, err)
		}
	}
}

func TestAGossipKeyIsRotatedInOrder(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, agreeing(t, a))
	old := string(c.keysAgree(1)[0])
	op := c.client(c.follower())
	installed, err := op.InstallGossipKey(c.ctx(), nil)
	if err != nil || len(installed.Members) != 3 || len(installed.Faults) != 0 {
		t.Fatalf("install: %+v, %v, want it on 3 members", installed, err)
	}
	if got := c.keysAgree(2); string(got[0]) != old {
		t.Errorf("after install %s encrypts, want the old key %s", got[0], old)
	}
	if _, err := op.RemoveGossipKey(c.ctx(), old, false); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "encrypts gossip on [n1 n2 n3]") {
		t.Errorf("removing the key that encrypts: %v, want a refusal that names the members", err)
	}
	if used, err := op.UseGossipKey(c.ctx(), installed.Fingerprint, false); err != nil || len(used.Members) != 3 {
		t.Fatalf("use: %+v, %v", used, err)
	}
	c.keysAgree(2)
	keys, members, silent, err := op.GossipKeys(c.ctx())
	if err != nil || members != 3 || len(silent) != 0 || len(keys) != 2 || keys[0].Fingerprint != installed.Fingerprint || len(keys[0].Primary) != 3 ||
		len(keys[1].Members) != 3 || len(keys[1].Primary) != 0 {
		t.Errorf("the keys are %+v of %d members, silent %v, %v", keys, members, silent, err)
	}
	if _, err := op.RemoveGossipKey(c.ctx(), old, false); err != nil {
		t.Fatalf("remove: %v", err)
	}
	if got := c.keysAgree(1); string(got[0]) != installed.Fingerprint {
		t.Errorf("%s is left, want %s", got[0], installed.Fingerprint)
	}
	for what, f := range map[string]string{"an unknown key": old, "nonsense": "x"} {
		if _, err := op.UseGossipKey(c.ctx(), f, false); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("use of %s: %v, want ErrInvalid", what, err)
		}
	}
	c.allAlive()
}

func TestAKeyIsNotUsedWhileAMemberLacksIt(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "permissive")) // keys are installed on each node by itself
	key := bytes.Repeat([]byte{9}, 32)
	for _, n := range c.nodes[:2] {
		if fresh, err := n.TakeGossipKey(c.ctx(), key); !fresh || err != nil {
			t.Fatalf("take on %s: %v, %v", n.ID(), fresh, err)
		}
	}
	op := c.client(c.leader())
	if _, err := op.InstallGossipKey(c.ctx(), nil); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "gossip_key_file") {
		t.Errorf("install without tls.mode required: %v, want what to do instead", err)
	}
	f := string(gossipkeys.FingerprintOf(key))
	// n3 learns the key from the leader if that has it, in TLS: so it is made a node that cannot.
	n3 := c.nodes[2]
	ring, err := n3.gossipKeys.Encrypt(n3.gossipKeys.Ring().Fingerprints()[0], 99) // a newer ring without the key
	if err != nil || ring.Version != 99 {
		t.Fatalf("%+v, %v", ring, err)
	}
	if _, err := op.UseGossipKey(c.ctx(), f, false); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("use of a key that a member lacks: %v, want ErrInvalid", err)
	}
	for _, n := range c.nodes {
		if got := n.gossipKeys.Ring().Fingerprints()[0]; got != gossipkeys.FingerprintOf(testGossipKey) {
			t.Errorf("%s encrypts with %s, want the key of the settings", n.ID(), got)
		}
	}
}

// A member that does not answer may lack the key.
func TestAKeyIsNotUsedWhileAMemberIsSilent(t *testing.T) {
	addressesChange(t)
	a := authority(t, "bank")
	c := startClusterWith(t, 3, agreeing(t, a))
	old := string(c.keysAgree(1)[0])
	down := c.follower()
	i := slices.Index(c.nodes, down)
	cfg := down.cfg
	if err := down.Close(); err != nil {
		t.Fatal(err)
	}
	op := c.client(c.leader())
	installed, err := op.InstallGossipKey(c.ctx(), nil)
	if err != nil || len(installed.Faults) != 1 || installed.Faults[0].ID != down.ID() {
		t.Fatalf("install: %+v, %v, want a fault of %s", installed, err, down.ID())
	}
	if _, err := op.UseGossipKey(c.ctx(), installed.Fingerprint, false); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), down.ID()) {
		t.Errorf("use while %s is down: %v, want a refusal that names it", down.ID(), err)
	}
	for _, do := range []func() error{
		func() error { _, err := op.UseGossipKey(c.ctx(), installed.Fingerprint, true); return err },
		func() error { _, err := op.RemoveGossipKey(c.ctx(), old, true); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	// Back with the old key alone on its disk, it gets the new one from the others.
	cfg.Listen, cfg.APIAddr, cfg.HTTPAddr, cfg.RaftAddr, cfg.GossipAddr = "127.0.0.1:0", "", "", "", ""
	cfg.Join = []string{c.leader().GossipAddr()} // it may not have had the time to remember the others
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	c.nodes[i] = n
	c.awaitReady()
	if got := c.keysAgree(1); string(got[0]) != installed.Fingerprint {
		t.Errorf("the key is %s, want %s", got[0], installed.Fingerprint)
	}
	c.allAlive()
}

// askKeysAs asks a node for its gossip keys with a certificate.
func askKeysAs(t *testing.T, n *Node, certFile, keyFile, caFile string, who certs.Options, o gossipkeys.Offer) (gossipkeys.Offer, error) {
	t.Helper()
	source, err := certs.Open(certs.Files{CA: caFile, Cert: certFile, Key: keyFile}, who)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp", n.GossipAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c, err := secure.Client(t.Context(), raw, source.DialPeer(nil))
	if err != nil {
		return gossipkeys.Offer{}, err
	}
	return gossipkeys.Ask(c, o)
}

func TestOnlyNodesOfTheClusterGetTheGossipKeys(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 1, agreeing(t, a))
	n, own := c.nodes[0], gossipkeys.Offer{Ring: gossipkeys.MadeUp()}
	had := n.gossipKeys.Ring()
	elsewhere := authority(t, "bank")
	for what, who := range map[string]struct {
		a   *pki.Authority
		who certs.Identity
		ok  bool
	}{
		"a node of the cluster":  {a, certs.Identity{Cluster: "bank", Role: certs.Node, Name: "n9"}, true},
		"a client":               {a, certs.Identity{Cluster: "bank", Role: certs.Client, Name: "billing"}, false},
		"a node of another one":  {a, certs.Identity{Cluster: "shop", Role: certs.Node, Name: "n9"}, false},
		"a node of another CA":   {elsewhere, certs.Identity{Cluster: "bank", Role: certs.Node, Name: "n9"}, false},
		"a client of another CA": {elsewhere, certs.Identity{Cluster: "bank", Role: certs.Client, Name: "billing"}, false},
	} {
		var hosts []string
		if who.who.Role == certs.Node {
			hosts = []string{"127.0.0.1"}
		}
		cert, key, err := who.a.Issue("caller", who.who, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := askKeysAs(t, n, cert, key, a.CAFile(), certs.Options{Cluster: "bank"}, own)
		if (err == nil) != who.ok {
			t.Errorf("%s asks for the keys: %v, want success %v", what, err, who.ok)
		}
		if who.ok && !got.Ring.Equal(had) {
			t.Errorf("%s gets %v, want %v", what, got.Ring.Fingerprints(), had.Fingerprints())
		}
	}
}

// A node that is no member gets the keys and cannot replace them.
func TestKeysOfANodeThatIsNoMemberAreNotTaken(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 1, agreeing(t, a))
	n := c.nodes[0]
	had := n.gossipKeys.Ring()
	cert, key, err := a.Node("n9")
	if err != nil {
		t.Fatal(err)
	}
	newer := gossipkeys.Ring{Version: 1000, Given: true, Keys: [][]byte{gossipkeys.NewKey()}}
	got, err := askKeysAs(t, n, cert, key, a.CAFile(), certs.Options{Cluster: "bank"}, gossipkeys.Offer{Ring: newer})
	if err != nil || !got.Ring.Equal(had) || !n.gossipKeys.Ring().Equal(had) {
		t.Errorf("a stranger with a newer ring: answered %v, %v, the node has %v, want %v", got.Ring.Fingerprints(), err, n.gossipKeys.Ring().Fingerprints(), had.Fingerprints())
	}
	_, err = askKeysAs(t, n, cert, key, a.CAFile(), certs.Options{Cluster: "bank"}, gossipkeys.Offer{Cluster: "another", Ring: newer})
	if err == nil {
		t.Error("a node of a cluster with another ID gets the keys")
	}
}

func TestTheKeyOfTheSettingsIsInstalledOnce(t *testing.T) {
	a := authority(t, "bank")
	c := startClusterWith(t, 3, inTLS(t, a, "required"))
	c.keysAgree(1)
	n, key := c.nodes[1], bytes.Repeat([]byte{8}, 16)
	for _, want := range []bool{true, false} {
		if fresh, err := n.TakeGossipKey(c.ctx(), key); fresh != want || err != nil {
			t.Fatalf("take: %v, %v, want %v", fresh, err, want)
		}
		c.keysAgree(2)
	}
	if _, err := n.TakeGossipKey(c.ctx(), []byte("short")); err == nil {
		t.Error("a key of 5 bytes is taken")
	}
}

func TestAClusterInPlainTextHasNoGossipKeys(t *testing.T) {
	c := startClusterWith(t, 1, func(*Config) {})
	if _, _, _, err := c.client(c.nodes[0]).GossipKeys(c.ctx()); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "in plain text") {
		t.Errorf("ls: %v, want that gossip is in plain text", err)
	}
	if _, err := c.nodes[0].TakeGossipKey(context.Background(), testGossipKey); err == nil {
		t.Error("a key is taken though gossip is in plain text")
	}
}

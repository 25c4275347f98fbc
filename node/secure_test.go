package node

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/pki"
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

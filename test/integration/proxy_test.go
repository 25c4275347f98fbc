//go:build unix

package integration

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
	network "github.com/locknode/locknode/internal/proof/proxy"
)

// proxy is a TCP proxy in front of one address, between a client and its server.
type proxy struct {
	*network.Proxy
	links *network.Links
}

var theClient, theServer = []string{""}, []string{"server"}

// startProxy starts one on a free port; it ends with the test.
func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	links := network.NewLinks()
	p, err := network.Listen("127.0.0.1:0", target, theServer[0], links, nil)
	must(t, err)
	t.Cleanup(p.Close)
	return &proxy{p, links}
}

func (p *proxy) address() string { return p.Address() }

// loseAnswers drops what the target sends from now on, and what it sends on
// new connections: requests arrive and take effect, and their answers are lost.
func (p *proxy) loseAnswers() { p.links.Set(theServer, theClient, network.Rule{Lose: true}) }

// breakAll ends all connections and stops losing; what was lost stays lost.
func (p *proxy) breakAll() {
	p.Reset(func(string) bool { return true })
	p.links.Heal()
}

// clientNetwork is a network between some clients and a cluster.
type clientNetwork struct {
	links   *network.Links
	proxies map[string]*network.Proxy // API address of a node → the proxy before it
}

// newClientNetwork puts proxies between clients and all nodes of a cluster: a client is
// told of every node's address and reaches it there if it can.
func newClientNetwork(t *testing.T, c *proc.Cluster) *clientNetwork {
	t.Helper()
	n := &clientNetwork{links: network.NewLinks(), proxies: map[string]*network.Proxy{}}
	for _, node := range c.Nodes() {
		p, err := network.Listen("127.0.0.1:0", node.API(), theServer[0], n.links, nil)
		must(t, err)
		t.Cleanup(p.Close)
		n.proxies[node.API()] = p
	}
	return n
}

// option makes a client dial the proxies and nothing else.
func (n *clientNetwork) option() client.Option {
	return client.GRPC(grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		if p := n.proxies[address]; p != nil {
			address = p.Address()
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}))
}

// stall passes nothing on in either direction; what arrives is kept.
func (n *clientNetwork) stall() {
	n.links.Cut(theClient, theServer)
	n.links.Cut(theServer, theClient)
}

// mend passes everything on again, and delivers what was kept.
func (n *clientNetwork) mend() { n.links.Heal() }

// loseAnswers drops what the nodes send from now on: requests arrive and take
// effect, and their answers are lost.
func (n *clientNetwork) loseAnswers() { n.links.Set(theServer, theClient, network.Rule{Lose: true}) }

// breakAll ends all connections and stops losing; what was lost stays lost.
func (n *clientNetwork) breakAll() {
	for _, p := range n.proxies {
		p.Reset(func(string) bool { return true })
	}
	n.mend()
}

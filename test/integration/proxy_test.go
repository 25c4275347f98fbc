//go:build unix

package integration

import (
	"testing"

	network "github.com/locknode/locknode/internal/proxy"
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

// loseAnswers throws away what the target sends from now on, and what it sends on
// new connections: requests arrive and take effect, and nobody hears of it.
func (p *proxy) loseAnswers() { p.links.Set(theServer, theClient, network.Rule{Lose: true}) }

// stall lets nothing through in either direction; what arrives is kept.
func (p *proxy) stall() {
	p.links.Cut(theClient, theServer)
	p.links.Cut(theServer, theClient)
}

// mend lets everything through again, and delivers what was kept.
func (p *proxy) mend() { p.links.Heal() }

// breakAll ends all connections, and mends: what was lost stays lost.
func (p *proxy) breakAll() {
	p.Reset(func(string) bool { return true })
	p.mend()
}

package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
)

// addresses are the bound addresses of a node. The node binds them, unless the
// configuration has listeners. They are bound before the node's ID is written to a new data
// directory: a first start that fails because a port is in use can be corrected and tried
// again, even under another ID.
type addresses struct {
	done      bool // all of them are bound
	api, http net.Listener
	raft      net.Listener         // nil once raftStream has it
	gossip    *cluster.Listener    // nil once n.cluster has it
	simulated memberlist.Transport // in place of gossip
}

// bind binds all addresses, once. Its error names every address that it cannot bind.
func (n *Node) bind(ctx context.Context) error {
	if n.bound.done {
		return nil
	}
	if n.cfg.seams.Network != nil {
		return n.bindSimulated()
	}
	a, errs := &n.bound, []error(nil)
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s%w", what, err))
		}
	}
	var lc net.ListenConfig
	var err error
	if a.api == nil {
		a.api, err = lc.Listen(ctx, "tcp", n.cfg.APIAddr)
		add("listen for the API: ", err)
	}
	if a.http == nil && n.cfg.HTTPAddr != "off" {
		a.http, err = lc.Listen(ctx, "tcp", n.cfg.HTTPAddr)
		add("listen for HTTP: ", err)
	}
	if a.raft == nil {
		a.raft, err = network.Listen(ctx, n.cfg.RaftAddr)
		add("", err)
	}
	a.gossip, err = cluster.Listen(n.cfg.GossipAddr, n.log)
	add("", err)
	a.done = len(errs) == 0
	return errors.Join(errs...)
}

func (n *Node) bindSimulated() (err error) {
	a, network := &n.bound, n.cfg.seams.Network
	if a.api, err = network.Listen(n.cfg.APIAddr); err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	if n.cfg.HTTPAddr != "off" {
		if a.http, err = network.Listen(n.cfg.HTTPAddr); err != nil {
			return fmt.Errorf("listen for HTTP: %w", err)
		}
	}
	if a.raft, err = network.Listen(n.cfg.RaftAddr); err != nil {
		return fmt.Errorf("listen for raft on %s: %w", n.cfg.RaftAddr, err)
	}
	if a.simulated, err = network.Gossip(n.cfg.GossipAddr); err != nil {
		return fmt.Errorf("listen for gossip on %s: %w", n.cfg.GossipAddr, err)
	}
	a.done = true
	return nil
}

// listen takes over the bound addresses of the API, HTTP and Raft.
func (n *Node) listen() {
	n.apiListener, n.httpListener = n.bound.api, n.bound.http
	n.apiAddr = n.cfg.advertised(n.apiListener.Addr().String())
	if n.httpListener != nil {
		n.httpAddr = n.cfg.advertised(n.httpListener.Addr().String())
	}
	options := network.StreamOptions{Member: n.id, API: n.apiAddr, Logger: n.raftLog, Cluster: n.clusterIdentity, Admit: leaveToDisk, CallBack: true,
		Secure: n.security.raft, Dialer: n.security.dialer}
	if n.cfg.AdvertiseHost != "" {
		options.Advertise = n.cfg.advertised(n.cfg.RaftAddr)
	}
	if network := n.cfg.seams.Network; network != nil {
		options.Dial = network.Dial
	}
	n.raftStream, n.bound.raft = network.NewStream(n.bound.raft, options), nil
	n.raftAddr = n.raftStream.Addr().String()
	n.warnLoopback()
}

// close closes the addresses that nothing else closes.
func (a *addresses) close() {
	for _, l := range []net.Listener{a.api, a.http, a.raft} {
		if l != nil {
			_ = l.Close() // the server may have closed it
		}
	}
	if a.gossip != nil {
		_ = a.gossip.Close()
	}
}

// loopbackOnly returns why other machines cannot reach a node that seems to be meant for
// them, and what to do; "" if nothing is wrong. bound maps the addresses as they are
// configured to those that were bound.
func (c *Config) loopbackOnly(bound map[string]net.Addr) string {
	const elsewhere = ": other machines cannot reach it"
	for _, asked := range slices.Sorted(maps.Keys(bound)) {
		host, _, _ := net.SplitHostPort(asked)
		at, _, _ := net.SplitHostPort(bound[asked].String())
		if ip := net.ParseIP(at); ip == nil || !ip.IsLoopback() {
			continue
		}
		if net.ParseIP(host) == nil && host != "localhost" {
			return fmt.Sprintf("%s is %s on this machine (/etc/hosts?), so the node listens on loopback%s; "+
				"listen on an address of the machine, or on 0.0.0.0 with advertise_host", host, at, elsewhere)
		}
		if c.AdvertiseHost != "" && !isLoopback(net.JoinHostPort(c.AdvertiseHost, "0")) {
			return fmt.Sprintf("others dial %s, and the node listens on %s%s, unless something forwards to it; "+
				"listen on an address of the machine, or on 0.0.0.0", c.AdvertiseHost, asked, elsewhere)
		}
		for _, seed := range c.Join {
			if host, _, _ := net.SplitHostPort(seed); net.ParseIP(host) != nil && !isLoopback(seed) {
				return fmt.Sprintf("the node is to join %s, and listens on %s%s; listen on an address of the machine", seed, asked, elsewhere)
			}
		}
	}
	if c.AdvertiseHost != "" && isLoopback(net.JoinHostPort(c.AdvertiseHost, "0")) {
		for asked, addr := range bound {
			if !isLoopback(addr.String()) {
				return fmt.Sprintf("others dial %s, which is each machine itself, and the node listens on %s%s; "+
					"set advertise_host to an address of the machine", c.AdvertiseHost, asked, elsewhere)
			}
		}
	}
	return ""
}

// warnLoopback logs what loopbackOnly finds.
func (n *Node) warnLoopback() {
	bound := map[string]net.Addr{n.cfg.APIAddr: n.apiListener.Addr(), n.cfg.RaftAddr: n.raftStream.ListenAddr()}
	if n.httpListener != nil {
		bound[n.cfg.HTTPAddr] = n.httpListener.Addr()
	}
	if why := n.cfg.loopbackOnly(bound); why != "" {
		n.log.Warn("the node listens where other machines cannot reach it", "reason", why)
	}
}

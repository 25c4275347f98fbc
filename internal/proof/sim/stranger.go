package sim

import (
	"context"
	"math"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/proof/simnet"
)

const raftPort = "7402"

// Intrude lets a stranger send requests to the Raft port of every node, in intervals of every,
// until the cluster is closed. The stranger knows the protocol, the cluster's ID, all names
// and the present term. In the name of another node it claims what would end a cluster that
// accepts it: that it leads the next term, or the highest possible one. It may be called once.
func (c *Cluster) Intrude(every time.Duration) {
	c.startStranger(func(ctx context.Context, host *simnet.Host) {
		for i, m := range c.nodes {
			as := c.nodes[(i+1)%len(c.nodes)].name
			c.strangers.Go(func() { c.bother(ctx, host, m.name, as, every) })
		}
	})
}

// startStranger calls start with the stranger's host and a context that ends with the
// cluster, unless that is closed.
func (c *Cluster) startStranger(start func(ctx context.Context, host *simnet.Host)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.endStranger = cancel
	start(ctx, c.net.Host("stranger"))
}

// bother sends requests to one node in the name of another, again and again.
func (c *Cluster) bother(ctx context.Context, host *simnet.Host, to, as string, every time.Duration) {
	layer := &strangerLayer{c: c, ctx: ctx, host: host, as: as, done: make(chan struct{})}
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 1, Timeout: time.Second, Logger: hclog.NewNullLogger(),
	})
	defer func() {
		trans.CloseStreams()
		_ = trans.Close()
	}()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(as), Addr: []byte(as)}
	at := raft.ServerAddress(to)
	for ctx.Err() == nil {
		next := c.term() + 1
		for _, term := range []uint64{next, math.MaxUint64} {
			beat := &raft.AppendEntriesRequest{RPCHeader: header, Term: term}
			_ = trans.AppendEntries("", at, beat, &raft.AppendEntriesResponse{})
			vote := &raft.RequestVoteRequest{RPCHeader: header, Term: term, LastLogIndex: math.MaxUint64, LastLogTerm: term - 1, LeadershipTransfer: true}
			_ = trans.RequestVote("", at, vote, &raft.RequestVoteResponse{})
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// term returns the latest term of all nodes.
func (c *Cluster) term() (latest uint64) {
	for _, m := range c.nodes {
		if n := m.running(); n != nil {
			latest = max(latest, n.Status().Term)
		}
	}
	return latest
}

// identity returns the identity of the cluster as the nodes have it.
func (c *Cluster) identity() (own network.ClusterIdentity) {
	for _, m := range c.nodes {
		if n := m.running(); n != nil && own.ID == "" {
			own.ID = n.Status().ClusterID
		}
	}
	return own
}

// strangerLayer dials in the name of another node, and accepts nobody.
type strangerLayer struct {
	c    *Cluster
	ctx  context.Context
	host *simnet.Host
	as   string
	done chan struct{}
}

// Dial connects to a node by its name.
func (l *strangerLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	raw, err := l.host.Dial(ctx, net.JoinHostPort(string(to), raftPort))
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })()
	c, err := network.Greet(raw, l.as, string(to), net.JoinHostPort(l.host.IP().String(), raftPort), l.c.identity())
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// Accept waits for Close.
func (l *strangerLayer) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *strangerLayer) Close() error {
	close(l.done)
	return nil
}

// Addr is not used.
func (l *strangerLayer) Addr() net.Addr { return &net.TCPAddr{} }

package node_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locknode/locknode/node"
)

// openExample opens a node that is a cluster by itself, in a temporary directory.
func openExample(ctx context.Context, cfg node.Config) (n *node.Node, stop func(), err error) {
	if cfg.DataDir, err = os.MkdirTemp("", "locknode-example-"); err != nil {
		return nil, nil, err
	}
	cfg.Listen, cfg.BootstrapExpect, cfg.Fast = "127.0.0.1:0", 1, true
	if n, err = node.Open(ctx, cfg); err != nil {
		_ = os.RemoveAll(cfg.DataDir)
		return nil, nil, err
	}
	return n, func() { _ = n.Close(); _ = os.RemoveAll(cfg.DataDir) }, nil
}

// The metrics of a node among those of the program, without a port of its own.
func ExampleConfig_metrics() {
	registry := prometheus.NewRegistry() // or prometheus.DefaultRegisterer
	n, stop, err := openExample(context.Background(), node.Config{HTTPAddr: "off", Metrics: registry})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range families {
		if f.GetName() == "locknode_leader" {
			fmt.Println(f.GetHelp())
		}
	}
	fmt.Printf("HTTP at %q\n", n.HTTPAddr())
	// Output:
	// 1 while this node serves as leader.
	// HTTP at ""
}

// A node on sockets that the program has from elsewhere, from systemd for example
// (net.FileListener). The node opens the one for gossip itself.
func ExampleConfig_listeners() {
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	raft, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = api.Close()
		fmt.Println(err)
		return
	}
	// From here on the listeners are the node's, also if Open fails.
	n, stop, err := openExample(context.Background(), node.Config{APIListener: api, RaftListener: raft, HTTPAddr: "off"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	fmt.Println(n.APIAddr() == api.Addr().String(), n.RaftAddr() == raft.Addr().String())
	// Output: true true
}

// A program says that it is ready when its node is, and that the next instance may be
// replaced when its node votes.
func ExampleNode_WaitVoter() {
	n, stop, err := openExample(context.Background(), node.Config{HTTPAddr: "off"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		fmt.Println(err) // what is still missing
		return
	}
	fmt.Println("it serves")
	if err := n.WaitVoter(ctx); err != nil {
		fmt.Println(err)
		return
	}
	s := n.Status()
	fmt.Printf("it votes, as one of %d; it is the %s\n", s.Voters, s.State)
	// Output:
	// it serves
	// it votes, as one of 1; it is the leader
}

package node_test

import (
	"errors"
	"testing"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/node"
)

// single opens a node that forms a cluster by itself, or that waits for one.
func single(t *testing.T, change func(*node.Config)) *node.Node {
	t.Helper()
	cfg := node.Config{ID: "n1", DataDir: t.TempDir(), Listen: "127.0.0.1:0", HTTPAddr: "off", Fast: true, BootstrapExpect: 1}
	change(&cfg)
	n, err := node.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestStatusIsThereInEveryStateOfANode(t *testing.T) {
	t.Parallel()
	alone := single(t, func(cfg *node.Config) { cfg.BootstrapExpect = 0 })
	if s := alone.Status(); s.NodeID != "n1" || s.State != client.StateStarting || s.Ready || s.NotReadyReason == "" || s.ClusterID != "" {
		t.Errorf("a node of no cluster: %+v", s)
	}
	if members, err := alone.Members(); !errors.Is(err, client.ErrUnavailable) || members != nil {
		t.Errorf("the members of no cluster: %v, %v; want ErrUnavailable", members, err)
	}

	n := single(t, func(*node.Config) {})
	if err := n.WaitVoter(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := n.Status()
	if s.State != client.StateLeader || !s.Ready || !s.Voter || s.Voters != 1 || s.LeaderAddress != n.APIAddr() {
		t.Errorf("a node that leads: %+v", s)
	}
	if told, err := n.Client().Status(t.Context()); err != nil || told.ClusterID != s.ClusterID {
		t.Errorf("its client got %+v, %v", told, err)
	}
	members, err := n.Members()
	if err != nil || len(members) != 1 || members[0].Role != client.RoleLeader || members[0].Health != client.HealthAlive || members[0].APIAddress != n.APIAddr() {
		t.Errorf("members: %+v, %v", members, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if s := n.Status(); s.Ready || s.NodeID != "n1" || s.NotReadyReason == "" {
		t.Errorf("a node that was closed: %+v", s)
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/simdisk"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/seam"
)

// office is a network with several clusters, in virtual time.
type office struct {
	t   *testing.T
	net *simnet.Network

	mu    sync.Mutex
	nodes []*Node
	logs  map[string]*officeLog // node ID → its log
}

// inAnOffice runs f and ends all nodes that it started.
func inAnOffice(t *testing.T, f func(t *testing.T, o *office)) {
	racedetector.OneThread()
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, net: simnet.New(1, simnet.Options{Latency: 200 * time.Microsecond, Jitter: 100 * time.Microsecond}),
			logs: map[string]*officeLog{}}
		defer o.net.Close()
		defer func() {
			var wg sync.WaitGroup
			for _, n := range o.nodes {
				wg.Go(func() { _ = n.Close() })
			}
			wg.Wait()
			time.Sleep(time.Minute) // for memberlist's last probes
		}()
		f(t, o)
	})
}

// at returns the gossip address of a host.
func (o *office) at(host string) string {
	return net.JoinHostPort(o.net.Host(host).IP().String(), "7403")
}

// start starts a node with an empty disk on a host.
func (o *office) start(id, host string, change func(*Config)) *Node {
	o.t.Helper()
	log := &officeLog{}
	cfg := Config{
		ID: id, Listen: net.JoinHostPort(o.net.Host(host).IP().String(), "7400"), HTTPAddr: "off", Insecure: true, Timing: time.Second,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	world := seam.Node{Network: o.net.Revive(host), Memory: simdisk.New(simdisk.Options{}).Memory()}
	n, err := Open(seam.With(o.t.Context(), world), cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nodes = append(o.nodes, n)
	o.logs[id] = log
	return n
}

// cluster starts one node on each host, with seeds, and waits until all can serve.
func (o *office) cluster(prefix string, hosts []string, change func(*Config)) []*Node {
	o.t.Helper()
	var nodes []*Node
	for i, host := range hosts {
		nodes = append(nodes, o.start(fmt.Sprint(prefix, i+1), host, func(cfg *Config) {
			cfg.BootstrapExpect = len(hosts)
			for _, other := range hosts {
				cfg.Join = append(cfg.Join, o.at(other)) // itself among them
			}
			if change != nil {
				change(cfg)
			}
		}))
	}
	o.ready(time.Minute, nodes...)
	return nodes
}

func (o *office) ready(within time.Duration, nodes ...*Node) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), within)
	defer cancel()
	for _, n := range nodes {
		if err := n.WaitReady(ctx); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *office) remove(through *Node, id string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	if _, err := (wire{through}).RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: id}); err != nil {
		o.t.Fatal(err)
	}
}

// kill ends a node as kill -9 does.
func (o *office) kill(host string, n *Node) {
	o.net.Kill(host)
	_ = n.Close()
}

// members returns the members of the cluster of a node.
func (o *office) members(n *Node) string {
	o.t.Helper()
	members, err := n.Members()
	if err != nil {
		o.t.Fatal(err)
	}
	var ids []string
	for _, m := range members {
		if m.Role != "none" {
			ids = append(ids, m.ID)
		}
	}
	return strings.Join(ids, " ")
}

type officeLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *officeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *officeLog) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

// An old cluster looks for a member that it has removed at the last address of that one, at
// which there is now a founder of another cluster.
func TestAFounderDoesNotJoinAClusterThatRemembersItsAddress(t *testing.T) {
	for name, seeds := range map[string]func(o *office, own string) []string{
		"the first one is given no seeds": func(o *office, own string) []string {
			if own == "h3" {
				return nil
			}
			return []string{o.at("h3")}
		},
		"each is given all": func(o *office, _ string) []string { return []string{o.at("h3"), o.at("h4"), o.at("h5")} },
	} {
		t.Run(name, func(t *testing.T) {
			inAnOffice(t, func(t *testing.T, o *office) {
				old := o.cluster("old", []string{"h1", "h2", "h3"}, func(cfg *Config) { cfg.Join = []string{o.at("h1")} })
				o.kill("h3", old[2])
				time.Sleep(20 * time.Second)
				o.remove(old[0], "old3")

				var fresh []*Node
				for i, host := range []string{"h3", "h4", "h5"} {
					fresh = append(fresh, o.start(fmt.Sprint("new", i+1), host, func(cfg *Config) {
						cfg.BootstrapExpect, cfg.Join = 3, seeds(o, host)
					}))
					time.Sleep(15 * time.Second) // so that the old ones find it
				}
				o.ready(time.Minute, fresh...)
				for _, n := range fresh {
					if got := o.members(n); got != "new1 new2 new3" {
						t.Errorf("%s is in a cluster of %s", n.ID(), got)
					}
				}
				if got := o.members(old[0]); got != "old1 old2" {
					t.Errorf("the old cluster has the members %s", got)
				}
			})
		})
	}
}

// Two clusters with the same node IDs, one of which now has an address of the other: only the
// name distinguishes them.
func TestClustersOfDifferentNamesMayHaveTheSameIDs(t *testing.T) {
	inAnOffice(t, func(t *testing.T, o *office) {
		named := func(name string) func(*Config) { return func(cfg *Config) { cfg.ClusterName = name } }
		blue := o.cluster("n", []string{"h1", "h2", "h3"}, named("blue"))
		o.kill("h3", blue[2])
		green := o.cluster("n", []string{"h3", "h4", "h5"}, named("green"))
		time.Sleep(time.Minute)
		o.ready(time.Second, green...)
		o.ready(time.Second, blue[:2]...)
		for _, p := range append(blue[0].cluster.Peers(), green[1].cluster.Peers()...) {
			switch {
			case p.Gossip == o.at("h3") && p.ClusterID == blue[0].clusterID() && p.State.String() == "alive":
				t.Errorf("blue takes green's %s for its own", p.NodeID)
			case p.ClusterID != "" && p.ClusterID != blue[0].clusterID() && p.ClusterID != green[0].clusterID():
				t.Errorf("%s is of cluster %q", p.NodeID, p.ClusterID)
			}
		}
		if a, b := blue[0].clusterID(), green[0].clusterID(); a == b {
			t.Errorf("both are cluster %s", a)
		}
		if n := o.logs["n1"].count("gossip refused: the other end has another cluster_name"); n == 0 {
			t.Error("green's n1, at the address of blue's n3, has not logged who has called")
		}
	})
}

// A founder gets the Raft address that a member of another cluster had, under the same
// ID: the leader there looks for its member and finds one that knows of no cluster yet.
func TestAFounderTakesNothingFromTheLeaderOfAnotherCluster(t *testing.T) {
	old := startCluster(t, 3)
	held, err := old.client(old.leader()).Lock(old.ctx(), "line")
	if err != nil {
		t.Fatal(err)
	}
	gone := old.follower()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := startClusterWith(t, 3, func(cfg *Config) {
		if cfg.ID == gone.ID() {
			cfg.RaftAddr = gone.raftAddr
		}
	})
	if a, b := old.leader().clusterID(), fresh.leader().clusterID(); a == b {
		t.Fatalf("both clusters have the ID %s", a)
	}
	g, err := fresh.client(fresh.leader()).TryLock(fresh.ctx(), "line")
	if err != nil {
		t.Fatalf("the lock that is held in the other cluster: %v", err)
	}
	for _, c := range []*testCluster{old, fresh} {
		for _, n := range c.nodes {
			if n != gone && n.clusterID() != c.leader().clusterID() {
				t.Errorf("%s has the state of cluster %s, want that of %s", n.ID(), n.clusterID(), c.leader().clusterID())
			}
		}
	}
	if err := errors.Join(held.Unlock(), g.Unlock()); err != nil {
		t.Error(err)
	}
}

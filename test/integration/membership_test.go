//go:build unix

package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// Which nodes belong to a cluster, and which do not.

func TestClusterGrowsToFiveAndShrinksUnderLoad(t *testing.T) {
	t.Parallel()
	slow(t, "five nodes on one machine")
	c := startCluster(t)
	l := startLoad(t, c, patience)
	n1 := c.Node("n1")
	for range 2 {
		_, err := c.Add(within(t, patience))
		must(t, err)
		l.progress(t, 30)
	}
	awaitVoters(t, n1, "n1", "n2", "n3", "n4", "n5")

	// Five nodes survive the loss of two, which three do not.
	kill(t, c.Node("n2"), c.Node("n3"))
	l.progress(t, 30)
	start(t, c.Node("n2"), c.Node("n3"))

	// One leaves by itself when it is stopped.
	leaver := c.Node("n4")
	stop(t, leaver)
	must(t, leaver.Start("--leave-on-stop"))
	must(t, leaver.WaitReady(within(t, patience)))
	stop(t, leaver)
	awaitVoters(t, n1, "n1", "n2", "n3", "n5")
	l.progress(t, 30)

	// One fails and is removed by hand: the leader, unless that is n1, which is asked.
	failed := leaderOf(t, c)
	if failed == n1 {
		failed = c.Node("n5")
	}
	kill(t, failed)
	locknode(t, c.Endpoints(), "members", "remove", failed.ID).ends(t, 0)
	voters := []string{}
	for _, n := range c.Running() {
		voters = append(voters, n.ID)
	}
	awaitVoters(t, n1, voters...)
	l.progress(t, 30)
	l.finish(t)
	agree(t, c)

	// When it comes back it is refused, and takes no part.
	must(t, failed.Start())
	refused(t, failed, "removed")
	awaitVoters(t, n1, voters...)
}

func TestNonvoterServesAndNeverVotes(t *testing.T) {
	t.Parallel()
	c := startClusterOf(t, 1)
	n, err := c.Add(within(t, patience), "--nonvoter")
	must(t, err)
	g := lock(t, dial(t, []string{n.API()}), t.Name())
	heldWith(t, dial(t, []string{c.Node("n1").API()}), t.Name(), g.Token())
	must(t, g.Unlock())
	for id, want := range map[string]string{"n1": "leader", n.ID: "nonvoter"} {
		if got := members(t, n)[id].GetRole(); got != want {
			t.Errorf("role of %s: got %q, want %q", id, got, want)
		}
	}
}

// A voter that has lost its votes must not vote again under its old ID.
func TestWipedDirectoryIsRefusedUnderItsOldID(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	watch := dial(t, c.Endpoints())
	g := lock(t, watch, t.Name())
	n := followersOf(t, c)[0]
	kill(t, n)
	must(t, os.RemoveAll(n.Dir))
	must(t, n.Start())
	remove := "locknode members remove " + n.ID
	refused(t, n, remove)
	heldWith(t, watch, t.Name(), g.Token())

	// Its error names a command, and that command is enough.
	locknode(t, c.Endpoints(), strings.Fields(remove)[1:]...).ends(t, 0)
	must(t, os.RemoveAll(n.Dir))
	start(t, n)
	awaitVoters(t, c.Node("n1"), "n1", "n2", "n3")
	heldWith(t, watch, t.Name(), g.Token())
	must(t, g.Unlock())
	agree(t, c)
}

// Two halves of a set of fresh nodes, each too few, form nothing; together they
// form one cluster.
func TestTwoHalfClustersDoNotForm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	halves := [][]*lone{
		{newLone(t, dir, "a"), newLone(t, dir, "b")},
		{newLone(t, dir, "c"), newLone(t, dir, "d")},
	}
	all := append(append([]*lone{}, halves[0]...), halves[1]...)
	for _, half := range halves {
		for _, n := range half {
			n.serve(t, "--bootstrap-expect", "4", "--join", half[0].gossip(t), "--join", half[1].gossip(t))
		}
	}
	for _, n := range all { // each has found the other one of its half, and waits for more
		eventually(t, n.id+" sees two nodes of four", func() bool { return strings.Contains(n.reason(t), "2 of 4 fresh voters") })
	}
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		for _, n := range all {
			if s := n.status(t); s.Ready || s.LeaderID != "" || s.Term != 0 {
				t.Fatalf("%s is in a cluster of half of the nodes: %v", n.id, s)
			}
		}
	}
	if a := browse(t, all[0].http(t)).do(t, "/v1/acquire", object{"name": "x"}); a.status != 503 {
		t.Errorf("acquire on half a cluster: got %d %s, want 503", a.status, a.body)
	}

	// One node that knows of the other half brings them together.
	all[0].stop(t)
	all[0].serve(t, "--bootstrap-expect", "4", "--join", halves[0][1].gossip(t), "--join", halves[1][0].gossip(t))
	ids := map[string]bool{}
	for _, n := range all {
		eventually(t, n.id+" is ready and knows the cluster", func() bool {
			s := n.status(t)
			return s.Ready && s.ClusterID != ""
		})
		ids[n.status(t).ClusterID] = true
	}
	if len(ids) != 1 || ids[""] {
		t.Errorf("cluster IDs %v, want one", ids)
	}
}

// Two clusters whose gossip meets stay two.
func TestFormedClustersDoNotMix(t *testing.T) {
	t.Parallel()
	one, two := startClusterOf(t, 1), startClusterOf(t, 1)
	a, b := one.Node("n1"), two.Node("n1")
	g := lock(t, dial(t, one.Endpoints()), t.Name())
	stop(t, b)
	must(t, b.Start("--join", a.Gossip()))
	must(t, b.WaitReady(within(t, patience)))
	if info := get(t, dial(t, two.Endpoints()), t.Name()); info.Held() {
		t.Errorf("a lock of one cluster is seen in the other: %+v", info)
	}
	for began := time.Now(); time.Since(began) < time.Second; {
		for _, c := range []*proc.Cluster{one, two} {
			if got := len(members(t, c.Node("n1"))); got != 1 {
				t.Fatalf("a cluster of one node has %d members", got)
			}
		}
	}
	if x, y := status(t, a).GetClusterId(), status(t, b).GetClusterId(); x == y {
		t.Errorf("both clusters have the ID %s", x)
	}
	must(t, g.Unlock())
}

// lone is a node that is started with a command line of its own.
type lone struct {
	id, dir, listen string
	process         *command
	watch           *client.Client
}

func newLone(t *testing.T, dir, id string) *lone {
	t.Helper()
	n := &lone{id: id, dir: fmt.Sprintf("%s/%s", dir, id), listen: freePorts(t)}
	n.watch = dial(t, []string{n.listen})
	return n
}

func (n *lone) gossip(t *testing.T) string { return offset(t, n.listen, 3) }
func (n *lone) http(t *testing.T) string   { return offset(t, n.listen, 1) }

func (n *lone) serve(t *testing.T, args ...string) {
	t.Helper()
	n.process = locknode(t, nil, append([]string{"serve", "--fast", "--node-id", n.id, "--data-dir", n.dir, "--listen", n.listen}, args...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what %s printed:\n%s", n.id, tail(n.process.stderr.String(), 30))
		}
	})
}

// status is what the node says about itself; nothing if it does not answer.
func (n *lone) status(t *testing.T) client.Status {
	t.Helper()
	s, err := n.watch.Status(within(t, time.Second))
	if err != nil {
		return client.Status{}
	}
	return s
}

func (n *lone) reason(t *testing.T) string { return n.status(t).NotReadyReason }

func (n *lone) stop(t *testing.T) {
	t.Helper()
	n.process.signal(t, syscall.SIGTERM)
	n.process.ends(t, 0)
}

// A member is often removed when it has just failed, and it may have been the leader.
func TestDeadLeaderIsRemovedAtOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	watch := dial(t, c.Endpoints())
	g := lock(t, watch, t.Name())
	dead, left := leaderOf(t, c), followersOf(t, c)
	kill(t, dead)
	locknode(t, c.Endpoints(), "members", "remove", dead.ID, "--connect-timeout", patience.String()).ends(t, 0)
	awaitVoters(t, left[0], left[0].ID, left[1].ID)
	heldWith(t, watch, t.Name(), g.Token())
	must(t, g.Unlock())
}

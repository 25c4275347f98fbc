//go:build unix

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// What is left after all nodes were down.

// remaining returns how much cluster time a lock has left. Cluster time is only as far
// as the last entry of the log, so one is written first.
func remaining(t *testing.T, c *client.Client, name string) time.Duration {
	t.Helper()
	must(t, lock(t, c, t.Name()+"/stamp").Unlock())
	return holder(t, c, name).Remaining
}

func TestLocksSurviveAKillOfAllNodes(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c := startCluster(t, "--log-store", store)
		watch := dial(t, c.Endpoints())
		const ttl, down = 5 * time.Second, time.Second

		held := lock(t, dial(t, c.Endpoints()), "held")
		arrivals := make(chan arrival, 1)
		queueUp(t, dial(t, c.Endpoints()), "held", 1, arrivals)
		detached, err := watch.Detached().Acquire(t.Context(), "long", time.Hour)
		must(t, err)
		asked := time.Now()
		brief, err := watch.Detached().Acquire(t.Context(), "brief", ttl)
		must(t, err)
		before, at := remaining(t, watch, "long"), time.Now()

		kill(t, c.Nodes()...)
		dead := time.Now()
		time.Sleep(down) // the outage is as long as that, not waiting for anything
		took := time.Since(dead)
		start(t, c.Nodes()...)

		// The TTL does not begin again, and the outage does not shorten it.
		after := remaining(t, watch, "long")
		spent, passed := before-after, time.Since(at)
		if spent < 0 || spent > passed-took+passed/100 {
			t.Errorf("%v of the TTL were spent in %v, of which the cluster was down for %v", spent, passed, took)
		}
		must(t, held.Err())
		heldWith(t, watch, "held", held.Token())
		heldWith(t, watch, "long", detached.Token)
		if now := lock(t, watch, "new").Token(); now <= brief.Token || now <= held.Token() {
			t.Errorf("a new token is %d, want more than %d", now, brief.Token)
		}
		if info := get(t, watch, "held"); info.Waiters != 1 {
			t.Errorf("%d wait for the lock that is held, want 1", info.Waiters)
		}
		must(t, held.Unlock())
		must(t, arrive(t, arrivals).grant.Unlock())
		must(t, watch.Detached().Release(t.Context(), "long", detached.Token))

		// The short one ends by its TTL, in which the outage does not count.
		var free time.Time
		eventually(t, "the lock with the short TTL is free", func() bool {
			locked, err := watch.IsLocked(within(t, patience), "brief")
			free = time.Now()
			return err == nil && !locked
		})
		if lived := free.Sub(asked) - took; lived < ttl*99/100 {
			t.Errorf("acquired for %v and free after %v without the outage", ttl, lived)
		}
		agree(t, c)
	})
}

// A cluster that starts again finds its old data, whatever its command line says about forming
// one, also after several runs, and after stop and kill.
func TestOldDataIsFoundAgain(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	watch := dial(t, c.Endpoints())
	clusterID := status(t, c.Node("n1")).GetClusterId()
	if clusterID == "" {
		t.Fatal("the cluster has no ID")
	}
	var kept []*client.Grant
	for run, end := range []func(*testing.T, ...*proc.Node){stop, kill, stop} {
		kept = append(kept, lock(t, watch, fmt.Sprintf("%s/%d", t.Name(), run), client.TTL(time.Hour)))
		end(t, c.Nodes()...)
		start(t, c.Nodes()...)
		for i, g := range kept {
			must(t, g.Err())
			heldWith(t, watch, g.Name(), g.Token())
			if i > 0 && g.Token() <= kept[i-1].Token() {
				t.Errorf("token %d of a later run, after %d", g.Token(), kept[i-1].Token())
			}
		}
		if got := status(t, c.Node("n1")).GetClusterId(); got != clusterID {
			t.Fatalf("in run %d the cluster is %s, it was %s", run+2, got, clusterID)
		}
	}
	agree(t, c)

	// A directory keeps the store with which it was created, and the error says so.
	n := c.Node("n3")
	stop(t, n)
	must(t, n.Start("--log-store", "boltdb"))
	refused(t, n, "wal")
	start(t, n)
}

// refused waits until a node has ended by itself with an error that has all these words.
func refused(t *testing.T, n *proc.Node, want ...string) {
	t.Helper()
	select {
	case <-n.Exited():
	case <-time.After(patience):
		t.Fatalf("node %s runs, want it to end", n.ID)
	}
	if n.ExitCode() == 0 {
		t.Errorf("node %s ended with 0, want an error", n.ID)
	}
	last := tail(n.Logs(), 5)
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("node %s: its error does not have %q:\n%s", n.ID, w, last)
		}
	}
}

// A node whose log was deleted must not vote as if it had never voted.
func TestNodeWhoseLogIsGoneIsRefused(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c := startCluster(t, "--log-store", store)
		watch := dial(t, c.Endpoints())
		g := lock(t, watch, t.Name())
		n := followersOf(t, c)[0]
		kill(t, n)
		entries, err := os.ReadDir(n.Dir)
		must(t, err)
		gone := 0
		for _, e := range entries { // all but the identity and its lock
			if e.IsDir() || strings.HasSuffix(e.Name(), ".db") {
				must(t, os.RemoveAll(filepath.Join(n.Dir, e.Name())))
				gone++
			}
		}
		if gone == 0 {
			t.Fatalf("nothing was deleted of %v", entries)
		}
		must(t, n.Start())
		refused(t, n, "locknode reseed --data-dir "+n.Dir)
		heldWith(t, watch, t.Name(), g.Token())
		must(t, g.Unlock())
	})
}

// freePorts returns the first of four consecutive free ports.
func freePorts(t *testing.T) string {
	t.Helper()
	claimed, err := proc.ClaimPorts(1)
	must(t, err)
	t.Cleanup(claimed[0].Release)
	return claimed[0].Address()
}

// awaitAddresses waits until Raft's configuration has the nodes at these addresses.
func awaitAddresses(t *testing.T, watch *client.Client, want map[string]string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the members are at %v", want), func() bool {
		members, err := watch.Members(within(t, patience))
		if err != nil {
			return false
		}
		right := 0
		for _, m := range members {
			if at, ok := want[m.ID]; ok && m.APIAddress == at && m.RaftAddress == offset(t, at, 2) {
				right++
			}
		}
		return right == len(want)
	})
}

// offset returns the address some ports further.
func offset(t *testing.T, address string, by int) string {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	must(t, err)
	a.Port += by
	return a.String()
}

func TestNodesThatComeBackElsewhereAreFollowed(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	g := lock(t, dial(t, c.Endpoints(), client.SessionTTL(time.Minute)), t.Name())

	// One at a time, as when machines are replaced.
	n := followersOf(t, c)[0]
	moved := map[string]string{n.ID: freePorts(t)}
	stop(t, n)
	must(t, n.Start("--listen", moved[n.ID]))
	watch := dial(t, append(c.Endpoints(), moved[n.ID]))
	awaitAddresses(t, watch, moved)
	heldWith(t, watch, t.Name(), g.Token())

	// All at once, as when they all get new addresses. Only the seeds are configured.
	kill(t, c.Nodes()...)
	args, everywhere := []string{}, []string{}
	for _, n := range c.Nodes() {
		moved[n.ID] = freePorts(t)
		args = append(args, "--join", offset(t, moved[n.ID], 3))
		everywhere = append(everywhere, moved[n.ID])
	}
	for _, n := range c.Nodes() {
		must(t, n.Start(append([]string{"--listen", moved[n.ID]}, args...)...))
	}
	watch = dial(t, everywhere)
	awaitAddresses(t, watch, moved)
	heldWith(t, watch, t.Name(), g.Token())
	if next := lock(t, watch, t.Name()+"/next"); next.Token() <= g.Token() {
		t.Errorf("token %d after %d", next.Token(), g.Token())
	}
}

//go:build unix

package integration

import (
	"flag"
	"net/http"
	"os"
	"testing"

	"github.com/locknode/locknode/internal/proof/proc"
)

// Instances are replaced one after the other, at the pace of the gate that docs/deploy.md
// names, under load: no call may fail, and the cluster works in the end.

// replacements is how many. With -replacements 30 the members are replaced ten times.
var replacements = flag.Int("replacements", 4, "how many instances to replace one after the other")

// TestInstancesWithDisksAreReplacedAtTheGate: the disk goes to the new instance, which has
// the address of the old one.
func TestInstancesWithDisksAreReplacedAtTheGate(t *testing.T) {
	t.Parallel()
	slow(t, "many restarts")
	c := startCluster(t)
	l := startLoad(t, c, patience)
	for i := range *replacements {
		n := c.Nodes()[i%3]
		stop(t, n)
		must(t, n.Start())
		throughGate(t, n)
		l.progress(t, 10)
	}
	l.finish(t)
	agree(t, c)
}

// TestInstancesWithoutDisksAreReplacedAtTheGate: each leaves when it is stopped, and its
// data are thrown away. The new one is started before that, or after it.
func TestInstancesWithoutDisksAreReplacedAtTheGate(t *testing.T) {
	t.Parallel()
	slow(t, "many new nodes")
	c := startClusterOf(t, 3, "--leave-on-stop")
	l := startLoad(t, c, patience)
	for i := range *replacements {
		old := c.Running()[0]
		replace := func() {
			n, err := c.Add(within(t, patience))
			must(t, err)
			throughGate(t, n)
		}
		if i%2 == 0 {
			replace()
		}
		stop(t, old) // with an error if it stays a member
		must(t, os.RemoveAll(old.Dir))
		if i%2 == 1 {
			replace()
		}
		l.progress(t, 10)
	}
	var want []string
	for _, n := range c.Running() {
		want = append(want, n.ID)
	}
	awaitVoters(t, c.Running()[0], want...)
	l.finish(t)
	agree(t, c)
}

// TestInstancesThatAreKilledWithoutDisksAreReplacedAtTheGate: their data are lost and they do
// not leave. The gate opens when the dead one is no longer a member.
func TestInstancesThatAreKilledWithoutDisksAreReplacedAtTheGate(t *testing.T) {
	t.Parallel()
	slow(t, "many new nodes")
	c := startClusterOf(t, 3, "--remove-replaced-after", "1s")
	l := startLoad(t, c, patience)
	for range *replacements {
		old := c.Running()[0]
		kill(t, old)
		must(t, os.RemoveAll(old.Dir))
		n, err := c.Add(within(t, patience))
		must(t, err)
		throughGate(t, n)
		if m, ok := members(t, n)[old.ID]; ok && m.GetRole() != "none" {
			t.Fatalf("the gate is open and the dead node %s is a %s", old.ID, m.GetRole())
		}
		l.progress(t, 10)
	}
	l.finish(t)
	agree(t, c)
}

// throughGate waits until the node reports over HTTP that the next one may be stopped.
func throughGate(t *testing.T, n *proc.Node) {
	t.Helper()
	eventually(t, "/readyz?voter of "+n.ID, func() bool {
		res, err := http.Get("http://" + n.HTTP() + "/readyz?voter")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

//go:build unix

package integration

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/proc"
)

// A node with damaged data names what is damaged and the command that helps, and comes back
// from the others with that command and nothing else.

// reseedCommand finds the command in the error with which a node has ended.
var reseedCommand = regexp.MustCompile(`run "locknode (reseed [^"]+)"`)

// flip changes a byte wherever a text is found in the files below a path. It
// returns the number of places.
func flip(t *testing.T, path, text string) (places int) {
	t.Helper()
	must(t, filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n := 0
		for at := bytes.Index(b, []byte(text)); at >= 0; at = bytes.Index(b, []byte(text)) {
			b[at] ^= 0x20
			n++
		}
		if places += n; n == 0 {
			return nil
		}
		return os.WriteFile(path, b, 0o600)
	}))
	return places
}

// refusesAndComesBack damages the data of a follower, runs the command that it names, and
// checks that it is a voter on which the majority depends.
func refusesAndComesBack(t *testing.T, c *proc.Cluster, n *proc.Node, damage func(), says ...string) {
	t.Helper()
	watch := dial(t, c.Endpoints())
	name := "a node with: " + says[0]
	g := lock(t, watch, name)
	eventually(t, n.ID+" has written down the addresses of the others", func() bool {
		var seeds struct {
			Members map[string]string `json:"members"`
		}
		b, err := os.ReadFile(filepath.Join(n.Dir, "seeds.json"))
		return err == nil && json.Unmarshal(b, &seeds) == nil && len(seeds.Members) == len(c.Nodes())-1
	})
	kill(t, n)
	damage()
	must(t, n.Start())
	refused(t, n, append(says, n.Dir, "locknode reseed --data-dir ")...)
	found := reseedCommand.FindStringSubmatch(tail(n.Logs(), 3))
	if found == nil {
		t.Fatalf("no command in the last lines of %s:\n%s", n.ID, tail(n.Logs(), 3))
	}
	out := locknode(t, nil, strings.Fields(found[1])...).ends(t, 0)
	if !strings.Contains(out.stdout.String(), n.ID+": removed from the cluster") {
		t.Errorf("reseed said %q", out.stdout.String())
	}
	kept, err := filepath.Glob(filepath.Join(n.Dir, "replaced-*", "node.json"))
	must(t, err)
	if len(kept) == 0 {
		t.Error("the damaged data are not kept")
	}
	start(t, n)
	var all []string
	for _, o := range c.Nodes() {
		all = append(all, o.ID)
	}
	awaitVoters(t, n, all...)
	agree(t, c)

	// Its vote counts: without it there is no majority.
	for _, o := range c.Nodes() {
		if o != n {
			kill(t, o)
			heldWith(t, watch, g.Name(), g.Token())
			if next := lock(t, watch, name+"/after"); next.Token() <= g.Token() {
				t.Errorf("token %d after %d", next.Token(), g.Token())
			}
			start(t, o)
			break
		}
	}
	agree(t, c)
}

func TestNodeWithADamagedLogComesBackWithOneCommand(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		log := map[string]string{"wal": "log", "boltdb": "log.db"}[store]
		c := startCluster(t, "--log-store", store)
		watch := dial(t, c.Endpoints())
		const marker = "a name that is found again"
		lock(t, watch, marker)
		n := followersOf(t, c)[0]
		path := filepath.Join(n.Dir, log)
		refusesAndComesBack(t, c, n, func() {
			if flip(t, path, marker) == 0 {
				t.Fatalf("%q is not found below %s", marker, path)
			}
		}, "entry ", path, "checksum")
		refusesAndComesBack(t, c, n, func() { must(t, os.RemoveAll(path)) }, "missing", path)
	})
}

func TestNodeWithDamagedSnapshotsComesBackWithOneCommand(t *testing.T) {
	t.Parallel()
	slow(t, "fills the log until there are two snapshots")
	c := startCluster(t, append([]string{"--log-store", "boltdb"}, cutsItsLog...)...)
	watch := dial(t, c.Endpoints())
	held := lock(t, watch, "held")
	n := followersOf(t, c)[0]
	cutLog(t, held, 1, n) // no longer begins with the first entry
	both := snapshots(t, n)
	if len(both) != 2 {
		t.Fatalf("%s has the snapshots %v, want two", n.ID, both)
	}
	kill(t, n)
	damageSnapshot(t, n, newestOf(t, both))
	start(t, n) // from the other one and the log
	agree(t, c)
	refusesAndComesBack(t, c, n, func() {
		for _, s := range snapshots(t, n) {
			damageSnapshot(t, n, s)
		}
	}, "snapshot", filepath.Join(n.Dir, "damaged-snapshots"))
	heldWith(t, watch, "held", held.Token())
}

// newestOf returns the snapshot with the greatest index.
func newestOf(t *testing.T, snapshots []string) string {
	t.Helper()
	return slices.MaxFunc(snapshots, func(a, b string) int { return cmp.Compare(indexOf(t, a), indexOf(t, b)) })
}

func indexOf(t *testing.T, snapshot string) (index uint64) {
	t.Helper()
	var term uint64
	if _, err := fmt.Sscanf(snapshot, "%d-%d-", &term, &index); err != nil {
		t.Fatalf("snapshot %q: %v", snapshot, err)
	}
	return index
}

// damageSnapshot changes a byte in the middle of a snapshot.
func damageSnapshot(t *testing.T, n *proc.Node, name string) {
	t.Helper()
	path := filepath.Join(n.Dir, "snapshots", name, "state.bin")
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}

// What reseed must not touch.
func TestReseedChangesNothingWhereItMustNot(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	other := startClusterOf(t, 1)
	n := followersOf(t, c)[0]
	fails := func(says string, endpoints []string, args ...string) {
		t.Helper()
		out := locknode(t, endpoints, append([]string{"reseed"}, args...)...)
		if code := out.wait(t); code == 0 {
			t.Errorf("reseed %v succeeded", args)
		}
		if !strings.Contains(out.stderr.String(), says) {
			t.Errorf("reseed %v said %q, want %q", args, out.stderr.String(), says)
		}
	}
	eventually(t, "the directory knows its cluster", func() bool {
		identity, err := os.ReadFile(filepath.Join(n.Dir, "node.json"))
		must(t, err)
		return !bytes.Contains(identity, []byte(`"cluster_id": ""`))
	})
	fails("in use", c.Endpoints(), "--data-dir", n.Dir)
	fails("holds no data of a node", c.Endpoints(), "--data-dir", t.TempDir())
	kill(t, n)
	fails("the data belong to cluster", other.Endpoints(), "--data-dir", n.Dir)
	fails(fmt.Sprintf("is \"n9\", must be %q", n.ID), c.Endpoints(), "--data-dir", n.Dir, "--node-id", "n9")
	damaged := filepath.Join(n.Dir, "node.json")
	good, err := os.ReadFile(damaged)
	must(t, err)
	must(t, os.WriteFile(damaged, bytes.Replace(good, []byte("node_id"), []byte("nodE_id"), 1), 0o600))
	fails("must be given", c.Endpoints(), "--data-dir", n.Dir)
	alive := followersOf(t, c)[0].ID
	fails(fmt.Sprintf("node %q", alive), c.Endpoints(), "--data-dir", n.Dir, "--node-id", alive)
	must(t, os.WriteFile(damaged, good, 0o600))
	start(t, n)
	agree(t, c)

	// One of three nodes is down: the cluster cannot do without a second one.
	gone := followersOf(t, c)[0]
	kill(t, gone)
	rest := followersOf(t, c)
	eventually(t, gone.ID+" is seen to be down", func() bool {
		m := members(t, rest[0])[gone.ID]
		return m != nil && m.GetHealth() == "failed"
	})
	kill(t, rest[0])
	fails("", c.Endpoints(), "--data-dir", rest[0].Dir, "--connect-timeout", "5s") // there is no leader
	start(t, rest[0], gone)
	awaitVoters(t, rest[0], "n1", "n2", "n3")
	agree(t, c)
}

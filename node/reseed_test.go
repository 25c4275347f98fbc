package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The remembered addresses may belong to another cluster by now, with a member of the same
// ID. A directory whose identity is damaged still names its own cluster.
func TestReseedRemovesNobodyFromAnotherCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	c.awaitReady()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"node.json": "damaged", seedsFile: `{"cluster": "theirs", "members": {"n1": "127.0.0.1:1"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Reseed(c.ctx(), c.nodes[0].Client(), Reseeding{DataDir: dir, ID: "n2"})
	if err == nil || !strings.Contains(err.Error(), "the data belong to cluster theirs") {
		t.Errorf("Reseed = %v, want an error that the data are of another cluster", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "node.json")); err != nil || string(b) != "damaged" {
		t.Errorf("the directory was changed: %q, %v", b, err)
	}
}

func TestTheClusterOfTheSeedsIsRemembered(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	c.eventually("both have written down the address and the cluster of the other", func() bool {
		for i, dir := range c.dirs {
			if s := readSeeds(dir); s.Cluster == "" || s.Cluster != c.nodes[i].clusterID() || len(s.Members) != 1 {
				return false
			}
		}
		return true
	})
}

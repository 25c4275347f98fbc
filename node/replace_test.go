package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// All nodes are replaced, one at a time, as the documents say. A client that was given one
// of the first keeps its lock, and a client that sends nothing meanwhile finds the cluster
// again.
func TestClientsOutliveTheReplacementOfAllNodes(t *testing.T) {
	c := startCluster(t, 3)
	dial := func() *client.Client {
		cl, err := client.Dial(t.Context(), []string{c.nodes[0].APIAddr()}, client.SessionTTL(time.Minute)) // longer than a busy machine stands still
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cl.Close() })
		return cl
	}
	holder, idle := dial(), dial()
	g, err := holder.Lock(c.ctx(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if held, err := idle.IsLocked(c.ctx(), "a"); !held || err != nil {
		t.Fatalf("IsLocked: %v, %v", held, err)
	}
	for i := range 3 {
		next, err := Open(t.Context(), Config{
			ID: fmt.Sprintf("n%d", i+4), DataDir: t.TempDir(), Listen: "127.0.0.1:0",
			Join: []string{c.nodes[i+2].GossipAddr()}, Fast: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = next.Close() })
		c.nodes = append(c.nodes, next)
		c.eventually("the new node is a voter", func() bool {
			r := next.raft.Load()
			if r == nil {
				return false
			}
			_, ok := next.voter(r, next.ID())
			return ok
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := c.nodes[i].Leave(ctx); err != nil {
			t.Fatalf("%s leaves: %v", c.nodes[i].ID(), err)
		}
		cancel()
		c.eventually("both clients have found the leader", func() bool {
			for _, n := range c.nodes[i+1:] {
				if n.epoch.Load() != nil {
					return streamsOf(n) == "2"
				}
			}
			return false
		})
	}
	if err := g.Err(); err != nil {
		t.Errorf("the grant: %v", err)
	}
	for name, cl := range map[string]*client.Client{"holder": holder, "idle": idle} {
		if held, err := cl.IsLocked(c.ctx(), "a"); !held || err != nil {
			t.Errorf("IsLocked of the %s client: %v, %v", name, held, err)
		}
	}
	if err := g.Unlock(); err != nil {
		t.Errorf("Unlock: %v", err)
	}
}

// streamsOf is how many streams a node serves, by its own metrics.
func streamsOf(n *Node) string {
	w := httptest.NewRecorder()
	n.metrics.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	_, after, _ := strings.Cut(w.Body.String(), "\nlocknode_streams ")
	count, _, _ := strings.Cut(after, "\n")
	return count
}

package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/locknode/locknode/client"
)

// All nodes are replaced, one at a time, as the documents say. A client with the address of
// one of the first keeps its lock, and a client that sends nothing meanwhile finds the cluster
// again. That one notices at its next keep-alive, so the test takes minutes of virtual time.
func TestClientsOutliveTheReplacementOfAllNodes(t *testing.T) {
	inAnOffice(t, func(t *testing.T, o *office) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		eventually := func(what string, holds func() bool) {
			t.Helper()
			for deadline := time.Now().Add(patience); !holds(); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not within %v: %s", patience, what)
				}
			}
		}
		start := time.Now()
		nodes := o.cluster("n", []string{"h1", "h2", "h3"}, nil)
		dial := func(name string) *client.Client {
			host := o.net.Host(name)
			cl, err := client.Dial(ctx, []string{nodes[0].APIAddr()},
				client.Clock(func() time.Duration { return time.Since(start) }), // virtual time, too
				client.GRPC(grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return host.Dial(ctx, addr) })))
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		holder, idle := dial("holder"), dial("idle")
		defer func() { _ = holder.Close() }()
		defer func() { _ = idle.Close() }()
		g, err := holder.Lock(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if held, err := idle.IsLocked(ctx, "a"); !held || err != nil {
			t.Fatalf("IsLocked: %v, %v", held, err)
		}
		for i := range 3 {
			host := fmt.Sprint("h", i+4)
			next := o.start(fmt.Sprint("n", i+4), host, func(cfg *Config) { cfg.Join = []string{nodes[i+2].GossipAddr()} })
			nodes = append(nodes, next)
			eventually("the new node is a voter", func() bool {
				r := next.raft.Load()
				if r == nil {
					return false
				}
				_, ok := next.voter(r, next.ID())
				return ok
			})
			if err := nodes[i].Leave(ctx); err != nil {
				t.Fatalf("%s leaves: %v", nodes[i].ID(), err)
			}
			eventually("both clients have found the leader", func() bool {
				for _, n := range nodes[i+1:] {
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
			if held, err := cl.IsLocked(ctx, "a"); !held || err != nil {
				t.Errorf("IsLocked of the %s client: %v, %v", name, held, err)
			}
		}
		if err := g.Unlock(); err != nil {
			t.Errorf("Unlock: %v", err)
		}
	})
}

// streamsOf returns how many streams a node serves, by its own metrics.
func streamsOf(n *Node) string {
	w := httptest.NewRecorder()
	n.metrics.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	_, after, _ := strings.Cut(w.Body.String(), "\nlocknode_streams ")
	count, _, _ := strings.Cut(after, "\n")
	return count
}

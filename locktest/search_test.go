package locktest_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// questions counts the calls of Status.
type questions struct{ n atomic.Int64 }

func (q *questions) option() client.Option {
	return client.GRPC(grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/Status") {
			q.n.Add(1)
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}))
}

// TestAClientWithoutALeaderSearchesAtGrowingIntervals: often at first, so that an election
// causes little delay, and about once a second in the end.
func TestAClientWithoutALeaderSearchesAtGrowingIntervals(t *testing.T) {
	bubble(t, func(t *testing.T, c *locktest.Cluster) {
		var q questions
		a := c.Client("a", q.option())
		must(t, lock(t, a, "x").Unlock())
		nodes := c.Nodes()
		c.Kill(nodes[0])
		c.Kill(nodes[1])
		done := make(chan error, 1)
		go func() {
			g, err := a.Lock(t.Context(), "x")
			if err == nil {
				err = g.Unlock()
			}
			done <- err
		}()
		asked := func(d time.Duration) float64 {
			before := q.n.Load()
			time.Sleep(d)
			return float64(q.n.Load()-before) / d.Seconds()
		}
		time.Sleep(2 * time.Second) // nodes report the last leader for a moment
		first := asked(time.Second)
		time.Sleep(time.Minute)
		last := asked(time.Minute)
		t.Logf("questions a second, of a client of three nodes: %.1f in the third second, %.1f after a minute", first, last)
		if last > 5 {
			t.Errorf("after a minute without a leader the client asks %.1f times a second; want about once each node", last)
		}
		c.Restart(nodes[0])
		begin := time.Now()
		must(t, <-done)
		t.Logf("served %v after a majority was back", time.Since(begin))
	})
}

// TestASilentLeaderIsLeftForTheNextOne: its connections stay open, as when a machine loses its
// network. The election is over long before a stream to it breaks.
func TestASilentLeaderIsLeftForTheNextOne(t *testing.T) {
	for seed := range uint64(5) {
		bubble(t, func(t *testing.T, c *locktest.Cluster) {
			a := c.Client("a")
			must(t, lock(t, a, "x").Unlock())
			cut, begin := c.Leader(), c.Now()
			c.Isolate(cut)
			served := make(chan time.Duration)
			go func() {
				g, err := a.Lock(t.Context(), "x")
				if err != nil || g.Unlock() != nil {
					t.Errorf("Lock while another node is elected: %v", err)
				}
				served <- c.Now() - begin
			}()
			c.Eventually("another node leads", func() bool { return c.Leader() != cut })
			moved := c.Now() - begin
			took := <-served
			t.Logf("after the leader was cut off another one led in %v, and the client was served in %v", moved, took)
			if took > max(moved, time.Second)+300*time.Millisecond {
				t.Error("want a second after the last message of the leader, or as soon as there is another one")
			}
			c.Heal()
		}, locktest.Seed(seed))
	}
}

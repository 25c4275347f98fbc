package sim

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// start starts a cluster that ends with the test.
func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustClient(t *testing.T, c *Cluster, name string, opts ...client.Option) *client.Client {
	t.Helper()
	cl, err := c.Client(name, opts...)
	must(t, err)
	return cl
}

func TestAWholeClusterRunsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		a, b := mustClient(t, c, "a"), mustClient(t, c, "b")
		g, err := a.Lock(t.Context(), "orders/42")
		must(t, err)
		if _, err := b.TryLock(t.Context(), "orders/42"); err == nil {
			t.Error("both have the lock")
		}
		leader, err := c.Leader(t.Context())
		must(t, err)
		must(t, c.Kill(leader))
		begin := time.Now()
		must(t, g.Unlock())
		g, err = b.Lock(t.Context(), "orders/42")
		must(t, err)
		t.Logf("%v after the leader was killed", time.Since(begin))
		must(t, c.Start(leader))
		must(t, c.WaitReady(t.Context()))
		must(t, g.Unlock())
		time.Sleep(time.Minute)
		if v, err := c.Same(t.Context()); v != nil || err != nil {
			t.Error(v, err)
		}
	})
}

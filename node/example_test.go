package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/node"
)

// An application that runs a node in its own process. One node is a cluster of
// its own; with BootstrapExpect 3 and Join, three instances of the application
// are.
func Example() {
	dir, err := os.MkdirTemp("", "locknode-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	n, err := node.Open(ctx, node.Config{DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Close()
	c := n.Client(client.Holder("worker-1"))
	defer c.Close()

	// Do waits for the cluster, and then for the lock.
	err = c.Do(ctx, "orders/42", func(ctx context.Context, g *client.Grant) error {
		info, err := c.Get(ctx, "orders/42")
		if err != nil {
			return err
		}
		fmt.Printf("held by %s: %v\n", info.Holders[0].Holder, info.Holders[0].Token == g.Token())
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// held by worker-1: true
	// error: <nil>
}

// A lock that is held too long expires by itself and is taken again. The end of the first
// holder's scope does not release the second grant.
func Example_lockThatExpires() {
	ctx := context.Background()
	c, stop, err := exampleCluster(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	// Wait at most 4 s for the lock; it ends 2 s after it was given.
	lock := c.Mutex("report", client.Wait(4*time.Second), client.TTL(2*time.Second))
	err = lock.Do(ctx, func(_ context.Context, first *client.Grant) error {
		for {
			locked, err := lock.IsLocked(ctx)
			if err != nil {
				return err
			}
			if !locked {
				break
			}
			fmt.Println("the lock is still active")
			time.Sleep(askEvery)
		}
		fmt.Println("the lock has expired")

		second, err := lock.Lock(ctx)
		if err != nil {
			return err
		}
		fmt.Println("taken again, with a larger token:", second.Token() > first.Token())
		fmt.Println("release of the expired hold refused:", errors.Is(first.Unlock(), client.ErrLost))
		locked, err := lock.IsLocked(ctx)
		fmt.Println("the second hold is untouched:", locked, second.Err() == nil)
		return errors.Join(err, second.Unlock())
	})
	fmt.Println("the first hold was lost:", errors.Is(err, client.ErrLost))
	// Output:
	// the lock is still active
	// the lock is still active
	// the lock has expired
	// taken again, with a larger token: true
	// release of the expired hold refused: true
	// the second hold is untouched: true true
	// the first hold was lost: true
}

// askEvery is a second and some more: a lock never ends early, but on a busy
// machine it may end a little late.
const askEvery = 1300 * time.Millisecond

// A lock that is released inside its own scope is free at once.
func Example_lockReleasedByHand() {
	ctx := context.Background()
	c, stop, err := exampleCluster(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	lock := c.Mutex("report", client.Wait(4*time.Second), client.TTL(2*time.Second))
	err = lock.Do(ctx, func(_ context.Context, g *client.Grant) error {
		if err := g.Unlock(); err != nil {
			return err
		}
		locked, err := lock.IsLocked(ctx)
		if err != nil {
			return err
		}
		fmt.Println("is it locked?", locked)

		again, err := lock.TryLock(ctx)
		if err != nil {
			return err
		}
		fmt.Println("taken again at once, with a larger token:", again.Token() > g.Token())
		return again.Unlock()
	})
	fmt.Println("error:", err)
	// Output:
	// is it locked? false
	// taken again at once, with a larger token: true
	// error: <nil>
}

// exampleCluster starts three nodes in this process, on free ports, and returns a
// client that dials them over the network.
func exampleCluster(ctx context.Context) (*client.Client, func(), error) {
	dir, err := os.MkdirTemp("", "locknode-example-")
	if err != nil {
		return nil, nil, err
	}
	stops := []func(){func() { _ = os.RemoveAll(dir) }}
	stop := func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	fail := func(err error) (*client.Client, func(), error) {
		stop()
		return nil, nil, err
	}
	var seeds, endpoints []string
	for i := range 3 {
		n, err := node.Open(ctx, node.Config{
			DataDir: filepath.Join(dir, fmt.Sprint(i)), Listen: "127.0.0.1:0",
			BootstrapExpect: 3, Join: seeds, Fast: true,
			// Long, so that a busy machine does not elect another leader meanwhile.
			Timing: 500 * time.Millisecond,
		})
		if err != nil {
			return fail(err)
		}
		stops = append(stops, func() { _ = n.Close() })
		seeds = append(seeds, n.GossipAddr())
		endpoints = append(endpoints, n.APIAddr())
	}
	c, err := client.Dial(ctx, endpoints, client.Holder("alice"))
	if err != nil {
		return fail(err)
	}
	stops = append(stops, func() { _ = c.Close() })
	// The cluster forms meanwhile; the first operation would also wait for it.
	if _, err := c.IsLocked(ctx, "report"); err != nil {
		return fail(err)
	}
	return c, stop, nil
}

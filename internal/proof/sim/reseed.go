package sim

import (
	"context"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/node"
)

// removeLimit is how long a removal is asked for.
const removeLimit = 5 * time.Second

// Remove lets a node ask for its own removal from the cluster, and does not wait for it. The
// node then ends by itself, which [Cluster.Ended] does not report; it comes back with
// [Cluster.Reseed].
func (c *Cluster) Remove(name string) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	n := m.running()
	if n == nil || ended(n) {
		return fmt.Errorf("remove node %q: it does not run", name)
	}
	m.removed.Store(true)
	c.recorder.Fault("remove "+name, c.Now(), 0)
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
		defer cancel()
		_ = removeMember(ctx, n, name) // the others know the outcome
	})
	return nil
}

// removeMember asks a node to remove a member.
func removeMember(ctx context.Context, n *node.Node, name string) error {
	c := n.Client()
	defer func() { _ = c.Close() }() // it has no session
	return c.RemoveMember(ctx, name)
}

// IsRemoved reports whether [Cluster.Remove] was called for a node and
// [Cluster.Reseed] was not.
func (c *Cluster) IsRemoved(name string) bool {
	m, err := c.member(name)
	return err == nil && m.removed.Load()
}

// Reseed does what the command of that name does: it makes sure that the others have
// removed the node, ends it, and starts it on a disk that has only its name and its cluster.
// The node then joins by itself. Reseed needs a majority without the node: if the others are
// no voters any more, it waits until they have come back.
func (c *Cluster) Reseed(ctx context.Context, name string) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("re-seed: %w", err)
	}
	var last error
	if err := c.eventually(ctx, "the others have removed "+name, func() bool {
		for _, o := range c.nodes {
			n := o.running()
			if o == m || n == nil || ended(n) {
				continue // it would look for a leader in vain
			}
			err := removeMember(ctx, n, name)
			if err == nil || apiv1.CodeOf(err) == apiv1.CodeNoMember {
				return true
			}
			last = err
		}
		return false
	}); err != nil {
		return fmt.Errorf("re-seed node %q: %w: %w", name, err, last)
	}
	if m.running() != nil {
		if err := c.Kill(name); err != nil {
			return fmt.Errorf("re-seed: %w", err)
		}
	}
	m.disk.Reseed()
	m.removed.Store(false)
	return c.Start(name)
}

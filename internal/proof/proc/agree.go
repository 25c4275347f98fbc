//go:build unix

package proc

import (
	"context"
	"fmt"
	"time"
)

// Agree waits until all nodes that run now have been seen at one log index, and
// returns an error if two of them were in different states at the same index, or
// if ctx ends first. It takes long while much is written: the nodes are asked one
// after the other.
func (c *Cluster) Agree(ctx context.Context) error {
	nodes := c.Running()
	seen := map[uint64]map[string]uint64{} // log index → node → digest of all up to there
	for {
		for _, n := range nodes {
			s, err := n.Status(ctx)
			if err != nil {
				continue
			}
			at := seen[s.GetDigestIndex()]
			if at == nil {
				at = map[string]uint64{}
				seen[s.GetDigestIndex()] = at
			}
			at[n.ID] = s.GetDigest()
			for other, digest := range at {
				if digest != s.GetDigest() {
					return fmt.Errorf("at log index %d the states of %s and %s differ: digests %x and %x",
						s.GetDigestIndex(), n.ID, other, s.GetDigest(), digest)
				}
			}
			if len(at) == len(nodes) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the nodes were never seen at the same log index: %w", context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}

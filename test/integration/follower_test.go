//go:build unix

package integration

import (
	"testing"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// What happens when a follower is down or paused for a while.

func TestFollowerThatWasAwayCatchesUp(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c := startCluster(t, "--log-store", store)
		l := startLoad(t, c, patience)
		for _, away := range []struct {
			how  string
			from func(*proc.Node) error
			back func(*proc.Node) error
		}{
			{"paused", (*proc.Node).Pause, (*proc.Node).Resume},
			{"killed", (*proc.Node).Kill, func(n *proc.Node) error { return n.Start() }},
		} {
			n := followersOf(t, c)[0]
			must(t, away.from(n))
			l.progress(t, 100)
			must(t, away.back(n))
			must(t, n.WaitReady(within(t, patience)))
			missed := lastToken(t, c)
			eventually(t, "the follower that was "+away.how+" has caught up", func() bool {
				s := status(t, n)
				return s != nil && s.GetLastToken() >= missed
			})
		}
		l.finish(t)
		agree(t, c)
		// It can also serve.
		for _, n := range c.Nodes() {
			local := dial(t, []string{n.API()}, client.Holder(n.ID))
			must(t, lock(t, local, t.Name()).Unlock())
		}
	})
}

//go:build unix

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// Locknode does not promise to survive a disk that acknowledges a sync without doing it: a
// node cannot detect what it has lost if everything that could show it is on the same disk.
// These tests show what happens, and that the loss can be detected.

// grants acquires locks for an hour and returns their tokens by name.
func grants(t *testing.T, c *client.Client, prefix string, n int) map[string]uint64 {
	t.Helper()
	tokens := map[string]uint64{}
	for i := range n {
		g, err := c.Detached().Acquire(t.Context(), fmt.Sprintf("%s/%d", prefix, i), time.Hour)
		must(t, err)
		tokens[g.Name] = g.Token
	}
	return tokens
}

// gone are those of the grants that are not held any more.
func gone(t *testing.T, c *client.Client, tokens map[string]uint64) (names []string) {
	t.Helper()
	for name, token := range tokens {
		if info := get(t, c, name); len(info.Holders) != 1 || info.Holders[0].Token != token {
			names = append(names, name)
		}
	}
	return names
}

// foundOut is how clients notice that what they had been told is not true any more:
// grants for an hour are gone, and tokens are given that had been given before.
func foundOut(t *testing.T, c *client.Client, acknowledged map[string]uint64) bool {
	t.Helper()
	lost := gone(t, c, acknowledged)
	var last uint64
	for _, token := range acknowledged {
		last = max(last, token)
	}
	next, err := c.Detached().Acquire(t.Context(), t.Name()+"/next", time.Hour)
	must(t, err)
	t.Logf("%d of %d grants are gone; the last token was %d, the next one is %d", len(lost), len(acknowledged), last, next.Token)
	return len(lost) > 0 && next.Token <= last
}

// The part of the log that a lying disk has lost while the mark beside it was
// written: the node knows that it has forgotten, and must not vote.
func TestNodeThatIsKnownToHaveForgottenRefusesToStart(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		l := startLoad(t, c, patience)
		liar := followersOf(t, c)[0]
		d.do(t, "lie on", liar)
		l.progress(t, 50)
		kill(t, liar)
		d.do(t, "lie off", liar)
		mark, err := os.Open(filepath.Join(liar.Dir, "mark"))
		must(t, err)
		must(t, errors.Join(mark.Sync(), mark.Close()))
		d.losePowerOf(t, "powerloss", liar)
		must(t, liar.Start())
		refused(t, liar, "was acknowledged", "locknode reseed --data-dir "+liar.Dir)
		l.progress(t, 50)
		l.finish(t)
		agree(t, c)
	})
}

// One node whose disk has forgotten everything, the mark too, while the others go
// on: it starts as if nothing had been, and is told everything again.
func TestNodeThatHasForgottenIsToldAgainByTheOthers(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		l := startLoad(t, c, patience)
		liar := followersOf(t, c)[0]
		d.do(t, "lie on", liar)
		l.progress(t, 50)
		d.losePower(t, "powerloss", liar)
		d.do(t, "lie off", liar)
		start(t, liar)
		l.progress(t, 50)
		l.finish(t)
		agree(t, c)
	})
}

// One lying disk is enough if the only other node that knows crashes: the one that
// has forgotten and the one that never knew are a majority.
func TestLiesOfOneDiskAndACrashOfAnotherNodeAreFoundOut(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		watch := dial(t, c.Endpoints())
		before := grants(t, watch, "before", 5)
		agree(t, c)
		leader, followers := leaderOf(t, c), followersOf(t, c)
		liar, late := followers[0], followers[1]
		d.do(t, "lie on", liar)
		must(t, late.Pause())
		during := grants(t, watch, "during", 20)
		kill(t, leader)
		d.losePower(t, "powerloss", liar)
		must(t, late.Resume())
		lives(t, c, liar, late)
		if lost := gone(t, watch, before); len(lost) > 0 {
			t.Errorf("gone, though no disk had lied then: %v", lost)
		}
		if !foundOut(t, watch, during) {
			t.Error("acknowledged by a disk that lied, and not found out")
		}
		start(t, leader) // which had it all, and has to give it up
		agree(t, c)
	})
}

// The disks of two of three lie, and all lose power.
func TestLiesOfAMajorityAreFoundOut(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		watch := dial(t, c.Endpoints())
		before := grants(t, watch, "before", 5)
		agree(t, c)
		followers := followersOf(t, c)
		liars, honest := []*proc.Node{leaderOf(t, c), followers[0]}, followers[1]
		d.do(t, "lie on", liars...)
		during := grants(t, watch, "during", 20)
		d.losePower(t, "powerloss", c.Nodes()...)
		lives(t, c, liars...)
		if lost := gone(t, watch, before); len(lost) > 0 {
			t.Errorf("gone, though no disk had lied then: %v", lost)
		}
		if !foundOut(t, watch, during) {
			t.Error("acknowledged by disks that lied, and not found out")
		}
		start(t, honest)
		agree(t, c)
	})
}

// lives starts those of the nodes that do not run, and waits until all of them serve.
func lives(t *testing.T, c *proc.Cluster, nodes ...*proc.Node) {
	t.Helper()
	for _, n := range nodes {
		if !slices.Contains(c.Running(), n) {
			must(t, n.Start())
		}
	}
	for _, n := range nodes {
		must(t, n.WaitReady(within(t, patience)))
	}
}

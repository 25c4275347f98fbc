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

// gone returns the names of the grants that are no longer held.
func gone(t *testing.T, c *client.Client, tokens map[string]uint64) (names []string) {
	t.Helper()
	for name, token := range tokens {
		if info := get(t, c, name); len(info.Holders) != 1 || info.Holders[0].Token != token {
			names = append(names, name)
		}
	}
	return names
}

// detected reports whether clients can notice a loss: grants for an hour are gone, or tokens
// are given a second time.
func detected(t *testing.T, c *client.Client, acknowledged map[string]uint64) bool {
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

// A lying disk has lost a part of the log, and the mark beside it was written: the node detects
// the loss and must not vote.
func TestNodeThatDetectsALostLogRefusesToStart(t *testing.T) {
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

// The disk of one node has lost everything, with the mark, while the others go on: the node
// starts as an empty one and gets everything from the others.
func TestNodeThatLostEverythingGetsItFromTheOthers(t *testing.T) {
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

// One lying disk is enough if the only other node with the entries crashes: the node that has
// lost them and the one that never had them are a majority.
func TestALossByOneLyingDiskAndACrashIsDetected(t *testing.T) {
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
		revive(t, c, liar, late)
		if lost := gone(t, watch, before); len(lost) > 0 {
			t.Errorf("gone, although no disk had lied then: %v", lost)
		}
		if !detected(t, watch, during) {
			t.Error("acknowledged by a disk that lied, and not detected")
		}
		start(t, leader) // which has all entries, and must drop those that the new leader does not have
		agree(t, c)
	})
}

// The disks of two of three lie, and all lose power.
func TestALossByAMajorityOfLyingDisksIsDetected(t *testing.T) {
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
		revive(t, c, liars...)
		if lost := gone(t, watch, before); len(lost) > 0 {
			t.Errorf("gone, although no disk had lied then: %v", lost)
		}
		if !detected(t, watch, during) {
			t.Error("acknowledged by disks that lied, and not detected")
		}
		start(t, honest)
		agree(t, c)
	})
}

// revive starts those of the nodes that do not run, and waits until all of them serve.
func revive(t *testing.T, c *proc.Cluster, nodes ...*proc.Node) {
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

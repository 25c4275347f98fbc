//go:build unix

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proc"
)

// When the log has become long, nodes write a snapshot and forget the entries
// before it. Whoever needs those gets the snapshot instead.

// snapshots are the finished snapshots of a node.
func snapshots(t *testing.T, n *proc.Node) (finished []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.Dir, "snapshots"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") {
			finished = append(finished, e.Name())
		}
	}
	return finished
}

// writeValues changes the values of all grants at once.
func writeValues(t *testing.T, grants []*client.Grant, value []byte) {
	t.Helper()
	errs := make([]error, len(grants))
	var wg sync.WaitGroup
	for i, g := range grants {
		wg.Go(func() { errs[i] = g.SetValue(t.Context(), value) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
}

func TestSnapshotCarriesLocksThroughRestartsAndToWhoWasAway(t *testing.T) {
	t.Parallel()
	slow(t, "a node looks every 30 to 60 seconds whether its log is long enough for a snapshot")
	c := startCluster(t)
	watch := dial(t, c.Endpoints())
	held := lock(t, dial(t, c.Endpoints()), "held")
	arrivals := make(chan arrival, 1)
	standInLine(t, dial(t, c.Endpoints()), "held", 1, arrivals)
	detached, err := watch.Detached().Acquire(t.Context(), "detached", time.Hour)
	must(t, err)
	var kept []*client.Grant
	for i := range 64 {
		kept = append(kept, lock(t, watch, fmt.Sprintf("kept/%02d", i)))
	}
	away := followersOf(t, c)[0]
	missing := status(t, away).GetAppliedIndex()
	kill(t, away)

	// The log is kept in files of 16 MB, and a file is forgotten as a whole: few big
	// entries fill the one with those that the other node misses.
	for round := range 100 {
		writeValues(t, kept, bytes.Repeat([]byte{byte(round)}, 4<<10))
	}
	// And nodes keep the last 6,144 entries. Each of these values is one, because
	// the next waits for its answer.
	for i := 0; status(t, leaderOf(t, c)).GetAppliedIndex() < missing+7_000; i++ {
		for range 100 {
			must(t, held.SetValue(within(t, patience), fmt.Appendf(nil, "%d", i)))
		}
	}
	for _, n := range c.Running() {
		eventually(t, n.ID+" has a snapshot", func() bool { return len(snapshots(t, n)) > 0 })
	}
	value := holder(t, watch, "held").Value

	start(t, away)
	agree(t, c)
	if len(snapshots(t, away)) == 0 {
		t.Errorf("%s caught up without a snapshot, want that the entries it missed are gone", away.ID)
	}
	for life := range 2 {
		kill(t, c.Nodes()...)
		start(t, c.Nodes()...)
		must(t, held.Err())
		h := holder(t, watch, "held")
		if h.Token != held.Token() || string(h.Value) != string(value) {
			t.Errorf("in life %d: got %+v, want token %d and value %s", life+2, h, held.Token(), value)
		}
		heldWith(t, watch, "detached", detached.Token)
		for _, g := range kept {
			heldWith(t, watch, g.Name(), g.Token())
		}
		if got := get(t, watch, "held").Waiters; got != 1 {
			t.Errorf("in life %d: %d wait, want 1", life+2, got)
		}
		agree(t, c)
	}
	// What the table remembers besides: whose token it was, and who is next.
	must(t, watch.Detached().Release(t.Context(), "detached", detached.Token))
	must(t, held.Unlock())
	got := arrive(t, arrivals)
	if got.grant.Token() <= detached.Token {
		t.Errorf("token %d after %d", got.grant.Token(), detached.Token)
	}
	must(t, got.grant.Unlock())
}

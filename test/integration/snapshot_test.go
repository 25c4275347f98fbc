//go:build unix

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// When the log has become long, nodes write a snapshot and remove the entries
// before it. A node that needs those entries gets the snapshot instead.

// snapshots returns the finished snapshots of a node.
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

// cutsItsLog are the arguments of nodes for cutLog, which makes them remove old entries. A
// debug line of Raft shows when they do. A node writes a snapshot
// after 32 MiB of entries, and its log reaches back behind the snapshot before, and 16 MiB
// more. With these values that takes some 3,500 entries.
var cutsItsLog = []string{"--log-level", "debug", "--limits.value-bytes", strconv.Itoa(cutValue)}

const cutValue = 24 << 10

var compacted = regexp.MustCompile(`msg="compacting logs" node=\S+ from=\d+ to=(\d+)`)

// cutLog changes the value of a grant until nodes have two snapshots, and no longer have
// the entries up to one.
func cutLog(t *testing.T, g *client.Grant, upTo uint64, nodes ...*proc.Node) {
	t.Helper()
	cut := func(n *proc.Node) bool {
		all := compacted.FindAllStringSubmatch(n.Logs(), -1)
		if len(all) == 0 {
			return false
		}
		to, err := strconv.ParseUint(all[len(all)-1][1], 10, 64)
		must(t, err)
		return to > upTo
	}
	began := time.Now()
	for i := 0; ; i++ {
		if nodes = slices.DeleteFunc(nodes, cut); len(nodes) == 0 {
			t.Logf("%d values cut the log in %v", i*100, time.Since(began).Round(time.Millisecond))
			return
		}
		if i > 300 {
			t.Fatalf("after %d values of %d bytes %s has its log from entry %d on", i*100, cutValue, nodes[0].ID, upTo)
		}
		for range 100 { // each is an entry, because the next waits for its answer
			must(t, g.SetValue(within(t, patience), bytes.Repeat([]byte{byte(i)}, cutValue)))
		}
	}
}

func TestASnapshotHasTheLocksAfterARestartAndForANodeThatWasDown(t *testing.T) {
	t.Parallel()
	slow(t, "fills the log until there are two snapshots")
	c := startCluster(t, cutsItsLog...)
	watch := dial(t, c.Endpoints())
	held := lock(t, dial(t, c.Endpoints()), "held")
	arrivals := make(chan arrival, 1)
	queueUp(t, dial(t, c.Endpoints()), "held", 1, arrivals)
	detached, err := watch.Detached().Acquire(t.Context(), "detached", time.Hour)
	must(t, err)
	var kept []*client.Grant
	for i := range 64 {
		kept = append(kept, lock(t, watch, fmt.Sprintf("kept/%02d", i)))
	}
	away := followersOf(t, c)[0]
	missing := status(t, away).GetAppliedIndex()
	kill(t, away)

	cutLog(t, held, missing, c.Running()...)
	value := holder(t, watch, "held").Value

	start(t, away)
	agree(t, c)
	if len(snapshots(t, away)) == 0 {
		t.Errorf("%s caught up without a snapshot, want the entries that it missed to be gone", away.ID)
	}
	for run := range 2 {
		kill(t, c.Nodes()...)
		start(t, c.Nodes()...)
		must(t, held.Err())
		h := holder(t, watch, "held")
		if h.Token != held.Token() || string(h.Value) != string(value) {
			t.Errorf("in run %d: held with token %d and %d bytes, want token %d and the %d bytes of before", run+2, h.Token, len(h.Value), held.Token(), len(value))
		}
		heldWith(t, watch, "detached", detached.Token)
		for _, g := range kept {
			heldWith(t, watch, g.Name(), g.Token())
		}
		if got := get(t, watch, "held").Waiters; got != 1 {
			t.Errorf("in run %d: %d wait, want 1", run+2, got)
		}
		agree(t, c)
	}
	// The table also has the last token, and the waiter.
	must(t, watch.Detached().Release(t.Context(), "detached", detached.Token))
	must(t, held.Unlock())
	got := arrive(t, arrivals)
	if got.grant.Token() <= detached.Token {
		t.Errorf("token %d after %d", got.grant.Token(), detached.Token)
	}
	must(t, got.grant.Unlock())
}

package node

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

func TestCheckpointsKeepTheLatestAndEverySixtyFourth(t *testing.T) {
	var c checkpoints
	const last = 100_000
	for i := uint64(1); i <= last; i++ {
		c.note(i, i*7)
	}
	known := func(index uint64) bool {
		got := c.at([]uint64{index})
		if len(got) == 1 && got[0].digest != index*7 {
			t.Fatalf("digest at %d is %d, want %d", index, got[0].digest, index*7)
		}
		return len(got) == 1
	}
	for _, index := range []uint64{last, last - recentCheckpoints + 1, last / 64 * 64, last/64*64 - 1000*64} {
		if !known(index) {
			t.Errorf("index %d is forgotten", index)
		}
	}
	for _, index := range []uint64{0, 1, 64, last - recentCheckpoints, last + 1} {
		if known(index) && index%64 != 0 {
			t.Errorf("index %d is remembered", index)
		}
	}
	some := c.some()
	if len(some) > maxDigestIndexes || some[last] != last*7 {
		t.Errorf("%d indexes are compared, at most %d may be requested; the last one: %v", len(some), maxDigestIndexes, some[last])
	}
	if n := len(c.recent.all) + len(c.coarse.all); n > recentCheckpoints+coarseCheckpoints {
		t.Errorf("%d checkpoints are remembered", n)
	}
}

// Nodes that apply the same entries, each at its own pace, restart from snapshots and compare
// digests at any time never differ.
func TestTheSameLogIsNeverADifference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var log []checkpoint // a log with gaps, as Raft's own entries leave them
		index := uint64(0)
		for range 500 {
			index += 1 + uint64(rng.IntN(3))
			log = append(log, checkpoint{index, rng.Uint64()})
		}
		ids := []string{"a", "b", "c", "d", "e"}[:2+rng.IntN(4)]
		states := map[string]map[uint64]uint64{}
		for _, id := range ids {
			var c checkpoints
			for _, p := range log[rng.IntN(400):][:rng.IntN(100)] { // from its snapshot to the last entry that it has applied
				c.note(p.index, p.digest)
			}
			states[id] = c.some()
		}
		for _, self := range ids {
			if o := judge(self, ids, states); o != nil {
				t.Fatalf("%s is to stop: %+v", self, o)
			}
			for _, peer := range ids {
				if d, _ := differenceOf(peer, states[self], states[peer]); d != nil {
					t.Fatalf("%s differs from %s: %+v", self, peer, d)
				}
			}
		}
	}
}

func TestOnlyAMinorityIsToStop(t *testing.T) {
	good := map[uint64]uint64{10: 1, 20: 2, 30: 3}
	bad := map[uint64]uint64{10: 1, 20: 9, 30: 8}
	worse := map[uint64]uint64{10: 1, 20: 7, 30: 6}
	old := map[uint64]uint64{10: 1} // has not applied what differs
	none := map[uint64]uint64(nil)  // does not answer
	for _, c := range []struct {
		name           string
		self, b, cc, d map[uint64]uint64 // d does not vote
		stop           bool
	}{
		{"all equal", good, good, good, good, false},
		{"one of three differs: it", bad, good, good, good, true},
		{"one of three differs: the others", good, bad, good, good, false},
		{"one answer is no majority", bad, good, none, good, false},
		{"nor is one that is behind", bad, good, old, good, false},
		{"all three differ", bad, good, worse, good, false},
		{"this node is behind", old, good, good, good, false},
		{"a nonvoter does not count", good, good, bad, bad, false},
		{"two of three are wrong alike: nobody can know", good, bad, bad, good, true},
	} {
		states := map[string]map[uint64]uint64{"a": c.self, "b": c.b, "c": c.cc, "d": c.d}
		if got := judge("a", []string{"a", "b", "c"}, states); (got != nil) != c.stop {
			t.Errorf("%s: judge = %+v, want to stop: %v", c.name, got, c.stop)
		}
	}
	states := map[string]map[uint64]uint64{"a": good, "b": good, "c": good, "d": bad}
	if judge("d", []string{"a", "b", "c"}, states) == nil {
		t.Error("a nonvoter that differs from all voters is not to stop")
	}
	if judge("a", []string{"a", "b"}, map[string]map[uint64]uint64{"a": good, "b": bad}) != nil {
		t.Error("one of two nodes stops, and it may be the correct one")
	}
}

func TestADifferenceSaysWhereItBegan(t *testing.T) {
	own := map[uint64]uint64{10: 1, 20: 2, 30: 3, 40: 4}
	d, compared := differenceOf("b", own, map[uint64]uint64{10: 1, 20: 2, 30: 9, 40: 8, 50: 5})
	if want := (difference{peer: "b", equal: 20, index: 30, own: 3, theirs: 9}); !compared || d == nil || *d != want {
		t.Errorf("got %+v, want %+v", d, want)
	}
	if _, compared := differenceOf("b", own, map[uint64]uint64{50: 5}); compared {
		t.Error("two states without an index in common were compared")
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// corrupt applies an entry to one replica that is not in the log.
func corrupt(t *testing.T, n *Node) {
	t.Helper()
	entry := fsm.AppendCommand(fsm.AppendHeader(nil, 1, 0, 0, 1), fsm.OpenSession{Session: fsm.SessionID{7}, TTL: int64(time.Hour)})
	l := &raft.Log{Index: n.appliedIndex(), Term: 1, Type: raft.LogCommand, Data: entry}
	if a, ok := n.machine.Apply(l).(fsm.Applied); !ok || a.Refused != fsm.OK {
		t.Fatalf("the entry was not applied: %+v", a)
	}
}

const divergenceLine = "two nodes are in different states"

// metricOf scrapes one metric without labels.
func metricOf(t *testing.T, n *Node, name string) float64 {
	t.Helper()
	w := httptest.NewRecorder()
	n.metrics.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("metric %s is not exported", name)
	return 0
}

var grown atomic.Int64 // entries by grow, in all clusters

// grow puts some entries through the log.
func (c *testCluster) grow(n *Node, entries int) {
	c.t.Helper()
	for range entries {
		op := detachedOp(fmt.Sprintf("grow/%d", grown.Add(1)), time.Hour)
		if a, err := mux.Do(c.ctx(), (wire{n}).Start, op); err != nil || a.GetError() != nil {
			c.t.Fatalf("acquire = %v, %v", a, err)
		}
	}
}

func TestANodeThatDivergedStopsAndIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader=%v", leads), func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			c := startClusterWith(t, 3, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			victim := c.follower()
			if leads {
				victim = c.leader()
			}
			c.grow(victim, 10)
			c.eventually("states are compared", func() bool { return metricOf(t, victim, "locknode_state_comparisons_total") > 0 })
			if log.count(divergenceLine) > 0 {
				t.Fatal("a difference was found where there is none")
			}
			corrupt(t, victim)
			for _, n := range c.nodes {
				if n != victim {
					c.grow(n, 10)
					break
				}
			}
			select {
			case <-victim.Done():
			case <-time.After(patience):
				t.Fatal("the node whose state differs still runs")
			}
			err := victim.Err()
			if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "locknode reseed --data-dir "+victim.cfg.DataDir) {
				t.Errorf("it ended with %v, want ErrDiverged and the command that re-seeds it", err)
			}
			if log.count(divergenceLine) == 0 {
				t.Error("no node has logged it")
			}
			c.nodes = without(c.nodes, victim)
			c.grow(c.leader(), 10)
			for _, n := range c.nodes {
				if n.Err() != nil {
					t.Errorf("%s of the majority ended, too: %v", n.ID(), n.Err())
				}
			}
			_, err = Open(t.Context(), Config{DataDir: victim.cfg.DataDir, Listen: "127.0.0.1:0", Fast: true})
			if !errors.Is(err, disk.ErrDamaged) || !strings.Contains(err.Error(), "locknode reseed") {
				t.Errorf("opened again: %v, want ErrDamaged and the command that re-seeds it", err)
			}
		})
	}
}

func without(nodes []*Node, n *Node) (rest []*Node) {
	for _, o := range nodes {
		if o != n {
			rest = append(rest, o)
		}
	}
	return rest
}

// With two nodes there is no majority to say which one is correct: both log an error, once,
// and go on.
func TestTwoNodesThatDifferLogAnErrorAndGoOn(t *testing.T) {
	t.Parallel()
	var log logBuffer
	c := startClusterWith(t, 2, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	c.grow(c.leader(), 10)
	corrupt(t, c.follower())
	c.grow(c.leader(), 10)
	for _, n := range c.nodes {
		c.eventually("the metric says so", func() bool { return metricOf(t, n, "locknode_state_diverged") == 1 })
	}
	before := metricOf(t, c.nodes[0], "locknode_state_comparisons_total")
	c.eventually("states are compared again", func() bool {
		return metricOf(t, c.nodes[0], "locknode_state_comparisons_total") >= before+2
	})
	if got := log.count(divergenceLine); got != 2 {
		t.Errorf("the difference was logged %d times, want once by each node", got)
	}
	for _, n := range c.nodes {
		if n.Err() != nil {
			t.Errorf("%s ended: %v", n.ID(), n.Err())
		}
	}
}

func TestAPeerMayNotAskForTooManyDigests(t *testing.T) {
	for n, want := range map[int]apiv1.Code{maxDigestIndexes: apiv1.CodeOK, maxDigestIndexes + 1: apiv1.CodeInvalid} {
		if err := checkDigests(&peerapi.DigestsRequest{Indexes: make([]uint64, n)}); apiv1.CodeOf(err) != want {
			t.Errorf("a request for %d digests: %v, want %v", n, err, want)
		}
	}
}

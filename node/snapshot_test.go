package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/mux"
)

// TestASnapshotComesWithTheBytesOfTheLog: few entries, and large ones.
func TestASnapshotComesWithTheBytesOfTheLog(t *testing.T) {
	const bound = 64 << 10
	cfg := Config{ID: "n1", DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true}
	cfg.seams.SnapshotBytes = bound
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	c := &testCluster{t: t, nodes: []*Node{n}}
	c.awaitReady()
	for round := range 3 {
		before := n.raft.Load().LastIndex()
		for i := range 20 {
			op := detachedOp(fmt.Sprint(round, "/", i), time.Hour)
			op.GetAcquire().Value = make([]byte, 4000)
			if a, err := mux.Do(c.ctx(), n.Start, op); err != nil || a.GetAcquire() == nil {
				t.Fatalf("acquire = %v, %v", a, err)
			}
		}
		c.eventually("a snapshot is there", func() bool {
			all, err := n.stores.Snapshots.List()
			return err == nil && len(all) > 0 && all[0].Index > before
		})
		c.eventually("a start would apply no more than the bound again", func() bool { return n.snapshots.replay() <= bound })
	}
	all, err := n.stores.Snapshots.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	first, err := n.stores.Log.FirstIndex()
	if err != nil || first > all[1].Index+1 {
		t.Errorf("the log begins with entry %d, %v: the snapshot before the last one ends with %d and is of no use without the rest", first, err, all[1].Index)
	}
}

// TestSnapshotsAreNotWrittenAllTheTime: the table is large, the disk slow, and entries
// come without a pause.
func TestSnapshotsAreNotWrittenAllTheTime(t *testing.T) {
	const base, entry = 1000, 100 + entryCost
	for name, c := range map[string]struct {
		size     int64
		took     time.Duration
		fails    bool
		from, to int // so many are tried in 1000 s, with an entry every 10 ms
	}{
		"a small table": {size: 100, took: time.Millisecond, from: 900, to: 1000},
		"a large table": {size: 4 * 100_000 * entry / 10, took: time.Millisecond, from: 9, to: 10},
		"a slow disk":   {size: 100, took: 20 * time.Second, from: 9, to: 11},
		"a broken one":  {size: 100, took: time.Millisecond, fails: true, from: 900, to: 1000},
		"nothing of it": {size: 1 << 40, took: time.Millisecond, from: 1, to: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				s := newSnapshots(base, func() time.Duration { return time.Since(begin) })
				ctx, cancel := context.WithCancel(t.Context())
				tried, running := 0, 0
				go s.run(ctx, func() error {
					tried++
					if running++; running > 1 {
						t.Error("two snapshots at once")
					}
					defer func() { running-- }()
					s.begin()
					defer s.end()
					at := s.applied.Load()
					time.Sleep(c.took)
					if c.fails {
						return errors.New("no space")
					}
					s.taken(at, 1, c.size, c.took)
					return nil
				})
				for range 100_000 {
					s.add(100)
					time.Sleep(10 * time.Millisecond)
				}
				synctest.Wait()
				if tried < c.from || tried > c.to {
					t.Errorf("%d snapshots in %v, want %d to %d", tried, time.Since(begin), c.from, c.to)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

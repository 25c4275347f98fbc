package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/internal/seam"
)

// TestASnapshotComesWithTheBytesOfTheLog, not with the number of entries: they are few and
// large.
func TestASnapshotComesWithTheBytesOfTheLog(t *testing.T) {
	t.Parallel()
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
			if a, err := mux.Do(c.ctx(), (wire{n}).Start, op); err != nil || a.GetAcquire() == nil {
				t.Fatalf("acquire = %v, %v", a, err)
			}
		}
		c.eventually("a snapshot is written", func() bool {
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
		t.Errorf("the log begins with entry %d, %v: the snapshot before the last one ends with %d and needs the entries after it", first, err, all[1].Index)
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
		from, to int // of attempts in 1000 s, with an entry every 10 ms
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

// sizedLog knows how many bytes of entries it holds.
type sizedLog struct {
	*raft.InmemStore
	mu    sync.Mutex
	sizes map[uint64]int
	bytes int
}

func (s *sizedLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *sizedLog) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	for _, l := range logs {
		s.sizes[l.Index] = len(l.Data)
		s.bytes += len(l.Data)
	}
	s.mu.Unlock()
	return s.InmemStore.StoreLogs(logs)
}

func (s *sizedLog) DeleteRange(from, to uint64) error {
	s.mu.Lock()
	for i := from; i <= to; i++ {
		s.bytes -= s.sizes[i]
		delete(s.sizes, i)
	}
	s.mu.Unlock()
	return s.InmemStore.DeleteRange(from, to)
}

// TestTheLogStaysShortHoweverLargeItsEntriesAre: 2 MB a second in entries of 128 kB, with
// snapshots after 8 MiB. The log holds no more than three times what is written between two
// snapshots, as docs/operations.md says, and reaches back to the older snapshot.
func TestTheLogStaysShortHoweverLargeItsEntriesAre(t *testing.T) {
	const bound = 8 << 20
	seconds := 60
	if !testall.On() { // the race detector takes minutes for more
		seconds = 20
	}
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1, simnet.Options{})
		defer network.Close()
		host := network.Host("n1")
		log := &sizedLog{InmemStore: raft.NewInmemStore(), sizes: map[uint64]int{}}
		snaps := raft.NewInmemSnapshotStore()
		n, err := Open(seam.With(t.Context(), seam.Node{Network: host, Memory: &disk.Memory{Log: log, Stable: log, Snapshots: snaps}, SnapshotBytes: bound}), Config{
			ID: "n1", Listen: host.IP().String() + ":7400", HTTPAddr: "off", Insecure: true, BootstrapExpect: 1,
			Limits: fsm.Limits{ValueBytes: 32 << 10},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := &testCluster{t: t, nodes: []*Node{n}}
		defer c.closeSimulated(network)
		c.awaitReady()
		most, largest := 0, 0
		var older, newest uint64 // where the last two snapshots end
		for i := range seconds * 16 {
			for j := range 4 { // refused or not: all of them are in an entry
				op := detachedOp(fmt.Sprint(j), time.Second)
				op.GetAcquire().Value = make([]byte, 31<<10)
				wire{n}.Start(&mux.Call{Op: op, Done: func(*apiv1.Answer) {}})
			}
			time.Sleep(time.Second / 16)
			log.mu.Lock()
			most = max(most, log.bytes)
			for _, size := range log.sizes {
				largest = max(largest, size)
			}
			log.mu.Unlock()
			all, err := snaps.List()
			if err == nil && len(all) > 0 && all[0].Index != newest {
				older, newest = newest, all[0].Index
			}
			first, err2 := n.stores.Log.FirstIndex()
			if err := errors.Join(err, err2); err != nil || older > 0 && first > older+1 {
				t.Fatalf("after %v the log begins with entry %d, %v: the older snapshot ends with %d", time.Duration(i)*time.Second/16, first, err, older)
			}
		}
		t.Logf("the log held %d MiB at most, in entries of up to %d kB; the last snapshots end with %d and %d", most>>20, largest>>10, older, newest)
		if most > 3*bound {
			t.Errorf("the log held %d MiB, want at most three times the %d MiB between two snapshots", most>>20, bound>>20)
		}
		if older == 0 || largest < 64<<10 {
			t.Error("the test shows nothing: there are fewer than two snapshots, or the entries are small")
		}
	})
}

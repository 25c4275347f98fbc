package node

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var (
	benchLocks = flag.Int("locks", 20_000, "how many locks BenchmarkRestart has held")
	benchDir   = flag.String("restart-dir", "", "directory for BenchmarkRestart; empty: a temporary one")
)

// BenchmarkRestart measures how long a node with many locks takes from its start until
// it is ready: most of it is reading the snapshot and applying the log after it.
//
//	go test ./node -run - -bench Restart -benchtime 3x -locks 1000000
func BenchmarkRestart(b *testing.B) {
	dir := *benchDir
	if dir == "" {
		dir = b.TempDir()
	}
	cfg := Config{ID: "n1", DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true}
	open := func() *Node {
		n, err := Open(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := n.WaitReady(context.Background()); err != nil {
			b.Fatal(err)
		}
		return n
	}
	n := open()
	began := time.Now()
	fillTable(b, n, *benchLocks)
	filled := time.Since(began)
	last := n.raft.Load().LastIndex()
	for b.Loop() {
		b.StopTimer()
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		n = open()
	}
	if got := n.state.Load().Grants; got < *benchLocks {
		b.Errorf("%d locks are held after the restart, want %d", got, *benchLocks)
	}
	snaps, _ := n.stores.Snapshots.List()
	var at raft.SnapshotMeta
	if len(snaps) > 0 {
		at = *snaps[0]
	}
	b.Logf("%d locks were taken in %v: %d entries, the last snapshot at entry %d with %d bytes", *benchLocks, filled.Round(time.Millisecond), last, at.Index, at.Size)
	if err := n.Close(); err != nil {
		b.Fatal(err)
	}
}

// fillTable acquires that many locks, which are never released.
func fillTable(b *testing.B, n *Node, locks int) {
	c := n.Client()
	defer func() { _ = c.Close() }() // it releases none of the locks
	const workers = 2000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < locks; i += workers {
				if _, err := c.Detached().Acquire(context.Background(), fmt.Sprintf("bench/restart/%07d", i), 24*time.Hour); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

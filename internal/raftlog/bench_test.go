package raftlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// BenchmarkAppend appends, and cuts the front now and then as raft does after a snapshot.
// It reports the median, and beside it that of one pwrite and one fdatasync of as many
// bytes into a file of the same disk that is written already: what the disk takes by itself.
func BenchmarkAppend(b *testing.B) {
	for _, shape := range []struct{ entries, size int }{{1, 256}, {64, 256}, {1, 16 << 10}, {64, 16 << 10}} {
		b.Run(fmt.Sprintf("%dx%d", shape.entries, shape.size), func(b *testing.B) {
			dir := b.TempDir()
			mark, err := OpenMark(OS{}, filepath.Join(dir, "mark"))
			if err != nil {
				b.Fatal(err)
			}
			l, err := Open(Options{Dir: filepath.Join(dir, "log"), Mark: mark})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = errors.Join(l.Close(), mark.Close()) }()
			bytes := make([]byte, shape.entries*int(recordSize(int64(shape.size))))
			bare, err := OS{}.Create(filepath.Join(dir, "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer bare.Close()
			if err := errors.Join(writeAll(bare, bytes, 0), bare.Sync()); err != nil {
				b.Fatal(err)
			}
			var took [2][]time.Duration
			next := uint64(1)
			for i := 0; b.Loop(); i++ {
				logs := make([]*raft.Log, 0, shape.entries)
				for range shape.entries {
					logs = append(logs, &raft.Log{Index: next, Term: 1, Data: make([]byte, shape.size)})
					next++
				}
				do := [2]func() error{
					func() error { return l.StoreLogs(logs) },
					func() error { return errors.Join(writeAll(bare, bytes, 0), bare.Sync()) },
				}
				for j := range do {
					k := (i + j) % 2 // in turn, so that a busy disk hurts both alike
					start := time.Now()
					if err := do[k](); err != nil {
						b.Fatal(err)
					}
					took[k] = append(took[k], time.Since(start))
				}
				if i%(20<<20/len(bytes)+1) == 0 && next > 1000 {
					if err := l.DeleteRange(1, next-500); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(0, "ns/op") // of both together: says nothing
			for k, name := range []string{"append-ns", "disk-ns"} {
				slices.Sort(took[k])
				b.ReportMetric(float64(took[k][len(took[k])/2].Nanoseconds()), name)
			}
		})
	}
}

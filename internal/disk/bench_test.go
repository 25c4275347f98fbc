package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/locknode/locknode/internal/proof/rafttest"
	"github.com/locknode/locknode/internal/raftlog"
)

// rawLog opens a log store without any guard.
func rawLog(b *testing.B, kind string) raft.LogStore {
	b.Helper()
	dir := b.TempDir()
	if kind == LogStoreWAL {
		mark, err := raftlog.OpenMark(raftlog.OS{}, filepath.Join(dir, markFile))
		if err != nil {
			b.Fatal(err)
		}
		w, err := raftlog.Open(raftlog.Options{Dir: filepath.Join(dir, logDir), Mark: mark})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = errors.Join(w.Close(), mark.Close()) })
		return w
	}
	s, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "log.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkStoreLogs appends one entry of 200 bytes or of 64 KiB (a full batch of
// commands), raw and through all guards in turn, so that a busy disk hurts both
// alike, and reports the median of each. The store "memory" shows the cost of the
// guards alone.
func BenchmarkStoreLogs(b *testing.B) {
	for _, size := range []int{200, 64 << 10} {
		for _, kind := range []string{"memory", LogStoreWAL, LogStoreBolt} {
			b.Run(fmt.Sprintf("size=%d/%s", size, kind), func(b *testing.B) { benchStore(b, kind, size) })
		}
	}
}

func benchStore(b *testing.B, kind string, size int) {
	stores := map[string]raft.LogStore{}
	if kind == "memory" {
		stores["raw"] = &ring{}
		m := memory()
		m.Log = &ring{}
		stores["guarded"] = mustOpen(b, StoreOptions{NodeID: "a", Memory: m}).Log
	} else {
		stores["raw"] = rawLog(b, kind)
		stores["guarded"] = mustOpen(b, StoreOptions{Dir: b.TempDir(), LogStore: kind}).Log
	}
	data := make([]byte, size)
	took := map[string][]time.Duration{}
	for i := uint64(1); b.Loop(); i++ {
		order := []string{"raw", "guarded"}
		if i%2 == 0 {
			order = []string{"guarded", "raw"}
		}
		for _, name := range order {
			start := time.Now()
			if err := stores[name].StoreLogs([]*raft.Log{{Index: i, Term: 1, Data: data}}); err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], time.Since(start))
		}
	}
	b.ReportMetric(0, "ns/op") // of both together: says nothing
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), name+"-ns")
	}
}

// ring forgets all but the last entry.
type ring struct{ last raft.Log }

func (r *ring) FirstIndex() (uint64, error)        { return r.last.Index, nil }
func (r *ring) LastIndex() (uint64, error)         { return r.last.Index, nil }
func (r *ring) GetLog(_ uint64, l *raft.Log) error { *l = r.last; return nil }
func (r *ring) StoreLog(l *raft.Log) error         { r.last = *l; return nil }
func (r *ring) StoreLogs(l []*raft.Log) error      { r.last = *l[len(l)-1]; return nil }
func (r *ring) DeleteRange(uint64, uint64) error   { return nil }

// BenchmarkOpen is a start with 6,000 entries of 200 bytes: every one is read.
func BenchmarkOpen(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			o := StoreOptions{Dir: b.TempDir(), LogStore: kind}
			s := mustOpen(b, o)
			for i := uint64(1); i <= 6000; i += 100 {
				if err := s.Log.StoreLogs(rafttest.Entries(i, i+99, 0)); err != nil {
					b.Fatal(err)
				}
			}
			mustClose(b, s)
			for b.Loop() {
				mustClose(b, mustOpen(b, o))
			}
		})
	}
}

// BenchmarkGate is what each read and write of a connection asks.
func BenchmarkGate(b *testing.B) {
	s := mustOpen(b, StoreOptions{NodeID: "a", Memory: memory()})
	for b.Loop() {
		if s.Gate() != nil {
			b.Fatal("closed")
		}
	}
}

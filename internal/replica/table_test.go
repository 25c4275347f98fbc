package replica

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/fsm"
)

const second = 1_000_000_000

// host is the session in which the tests acquire; its deadline is far off.
var host = fsm.SessionID{0: 0xff}

func opensHost() fsm.Command { return fsm.OpenSession{Session: host, TTL: 24 * 3600 * second} }

// detached is an acquire that is answered at once.
func detached(sequence uint64, lock string, ttl int64) fsm.Acquire {
	return fsm.Acquire{
		ID:    fsm.RequestID{Session: host, Sequence: sequence},
		Wants: []fsm.Want{{Lock: lock, Mode: fsm.Exclusive}}, TTL: ttl, Detached: true,
	}
}

func logEntry(index uint64, stamp fsm.Instant, commands ...fsm.Command) *raft.Log {
	data := fsm.AppendHeader(nil, 1, stamp, 0, len(commands))
	for _, c := range commands {
		data = fsm.AppendCommand(data, c)
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
}

var _ raft.FSM = (*Table)(nil)

func TestTableAppliesAndTells(t *testing.T) {
	var seen []fsm.Applied
	m := New(func(a fsm.Applied) { seen = append(seen, a) })
	first := m.Apply(logEntry(3, second, opensHost(), detached(1, "a", 9*second))).(fsm.Applied)
	if first.Index != 3 || first.Results[1].Code != fsm.OK || first.NextDue != 10*second {
		t.Fatalf("first entry: %+v", first)
	}
	for _, kind := range []raft.LogType{raft.LogNoop, raft.LogBarrier, raft.LogConfiguration} {
		if got := m.Apply(&raft.Log{Index: 4, Type: kind}); got != nil {
			t.Fatalf("raft's own entry of type %v: %+v", kind, got)
		}
	}
	last := m.Apply(logEntry(5, second, fsm.Release{Token: 1}, fsm.EndSession{Session: host})).(fsm.Applied)
	if last.NextDue != 0 {
		t.Fatalf("next due %d in an empty table", last.NextDue)
	}
	if want := []fsm.Applied{first, last}; !reflect.DeepEqual(seen, want) {
		t.Fatalf("observed %+v, want %+v", seen, want)
	}
	if bad := m.Apply(&raft.Log{Index: 6, Type: raft.LogCommand, Data: []byte("?")}).(fsm.Applied); bad.Refused != fsm.Malformed {
		t.Fatalf("bytes that are no entry: %+v", bad)
	}
}

var errFull = errors.New("no space left")

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	room              int
	closed, cancelled bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.Len()+len(p) > s.room {
		return 0, errFull
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "1-2-3" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func TestTableSnapshotsAndRestores(t *testing.T) {
	m := New(nil)
	m.Apply(logEntry(1, second, opensHost(), detached(1, "a", 9*second)))
	image, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(logEntry(2, second, fsm.Release{Token: 1})) // not in the image
	full := &sink{room: 10}
	if err := image.Persist(full); !errors.Is(err, errFull) || !full.cancelled || full.closed {
		t.Fatalf("persist to a full sink: %v, %+v", err, full)
	}
	good := &sink{room: 1 << 20}
	if err := image.Persist(good); err != nil || good.cancelled || !good.closed {
		t.Fatalf("persist: %v, %+v", err, good)
	}
	image.Release()

	restored := 0
	other := New(nil)
	other.OnRestore(func() { restored++ })
	other.Apply(logEntry(1, second, opensHost(), detached(1, "b", 9*second)))
	if err := other.Restore(io.NopCloser(strings.NewReader("rubbish"))); err == nil || restored != 0 {
		t.Fatalf("restore rubbish: %v, told %d times", err, restored)
	}
	other.View(func(table *fsm.Table) {
		if table.Lock("b").HolderCount != 1 {
			t.Fatal("a restore that failed changed the table")
		}
	})
	if err := other.Restore(io.NopCloser(&good.Buffer)); err != nil || restored != 1 {
		t.Fatalf("restore: %v, told %d times", err, restored)
	}
	other.View(func(table *fsm.Table) {
		if table.Lock("a").HolderCount != 1 || table.Lock("b").HolderCount != 0 {
			t.Fatalf("restored: %+v, %+v", table.Lock("a"), table.Lock("b"))
		}
	})
}

// A broken invariant stops the node, not the process.
func TestBrokenTableStopsTheNode(t *testing.T) {
	observed := 0
	m := New(func(fsm.Applied) { observed++ })
	var told []error
	m.OnBroken(func(err error) { told = append(told, err) })
	m.Apply(logEntry(1, second, opensHost(), detached(1, "a", 9*second)))
	m.table = nil // whatever it is asked for, it panics
	err, ok := m.Apply(logEntry(2, second, fsm.Release{Token: 1})).(error)
	if !ok || !strings.Contains(err.Error(), "apply entry 2 of term 1: lock table is broken") {
		t.Fatalf("apply on a broken table: %v", err)
	}
	if again, ok := m.Apply(logEntry(3, second)).(error); !ok || !errors.Is(again, err) {
		t.Fatalf("apply after that: %v", again)
	}
	if len(told) != 1 || !errors.Is(told[0], err) || observed != 1 {
		t.Fatalf("told %v, observed %d", told, observed)
	}
	if _, got := m.Snapshot(); !errors.Is(got, err) {
		t.Fatalf("snapshot of a broken table: %v", got)
	}
	if m.View(func(table *fsm.Table) { t.Errorf("view of a broken table: %+v", table.Stats()) }) {
		t.Fatal("view of a broken table answers true")
	}
}

// Readers beside apply, snapshots and restores. Run with -race.
func TestTableIsSafeForConcurrentUse(t *testing.T) {
	m := New(nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				m.View(func(table *fsm.Table) {
					_, _ = table.Session(host)
					table.Lock("a")
					table.List("", "", 10)
					table.NextDeadline()
					table.Stats()
				})
			}
		})
	}
	for i := range uint64(300) {
		m.Apply(logEntry(i+1, fsm.Instant(i)*second/4, opensHost(), detached(2*i+1, "a", 9*second), detached(2*i+2, "b", second),
			fsm.Release{ID: fsm.RequestID{Session: host, Sequence: 1 << 40}, Lock: "a", Token: 1}))
		if i%20 != 0 {
			continue
		}
		image, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		out := &sink{room: 1 << 20}
		if err := image.Persist(out); err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(io.NopCloser(&out.Buffer)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

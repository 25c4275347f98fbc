package fsm

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

func logEntry(index uint64, stamp int64, commands ...Command) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: encode(1, stamp, 0, commands...)}
}

var _ raft.FSM = (*Machine)(nil)

func TestMachineAppliesAndTells(t *testing.T) {
	var seen []Applied
	m := NewMachine(func(a Applied) { seen = append(seen, a) })
	first := m.Apply(logEntry(3, second, opensHost(), detached(1, "a", 9*second, 0))).(Applied)
	if first.Index != 3 || first.Results[1].Code != OK || first.NextDue != 10*second {
		t.Fatalf("first entry: %+v", first)
	}
	for _, kind := range []raft.LogType{raft.LogNoop, raft.LogBarrier, raft.LogConfiguration} {
		if got := m.Apply(&raft.Log{Index: 4, Type: kind}); got != nil {
			t.Fatalf("raft's own entry of type %v: %+v", kind, got)
		}
	}
	last := m.Apply(logEntry(5, second, Release{Token: 1}, EndSession{Session: host})).(Applied)
	if last.NextDue != 0 {
		t.Fatalf("next due %d in an empty table", last.NextDue)
	}
	if want := []Applied{first, last}; !reflect.DeepEqual(seen, want) {
		t.Fatalf("observed %+v, want %+v", seen, want)
	}
	if bad := m.Apply(&raft.Log{Index: 6, Type: raft.LogCommand, Data: []byte("?")}).(Applied); bad.Refused != Malformed {
		t.Fatalf("bytes that are no entry: %+v", bad)
	}
}

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

func TestMachineSnapshotsAndRestores(t *testing.T) {
	m := NewMachine(nil)
	m.Apply(logEntry(1, second, opensHost(), detached(1, "a", 9*second, 0)))
	image, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(logEntry(2, second, Release{Token: 1})) // not in the image
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
	other := NewMachine(nil)
	other.OnRestore(func() { restored++ })
	other.Apply(logEntry(1, second, opensHost(), detached(1, "b", 9*second, 0)))
	if err := other.Restore(io.NopCloser(strings.NewReader("rubbish"))); err == nil || restored != 0 {
		t.Fatalf("restore rubbish: %v, told %d times", err, restored)
	}
	other.View(func(table *Table) {
		if table.Lock("b").HolderCount != 1 {
			t.Fatal("a restore that failed changed the table")
		}
	})
	if err := other.Restore(io.NopCloser(&good.Buffer)); err != nil || restored != 1 {
		t.Fatalf("restore: %v, told %d times", err, restored)
	}
	other.View(func(table *Table) {
		if table.Lock("a").HolderCount != 1 || table.Lock("b").HolderCount != 0 {
			t.Fatalf("restored: %+v, %+v", table.Lock("a"), table.Lock("b"))
		}
	})
}

// A broken invariant stops the machine, not the process.
func TestBrokenTableStopsTheMachine(t *testing.T) {
	observed := 0
	m := NewMachine(func(Applied) { observed++ })
	var told []error
	m.OnBroken(func(err error) { told = append(told, err) })
	m.Apply(logEntry(1, second, opensHost(), detached(1, "a", 9*second, 0)))
	m.table.requests.delete(2) // the lock's holder is gone
	err, ok := m.Apply(logEntry(2, second, Release{Token: 1})).(error)
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
	if m.View(func(table *Table) { t.Errorf("view of a broken table: %+v", table.Stats()) }) {
		t.Fatal("view of a broken table answers true")
	}
}

// Readers beside apply, snapshots and restores. Run with -race.
func TestMachineIsSafeForConcurrentUse(t *testing.T) {
	m := NewMachine(nil)
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
				m.View(func(table *Table) {
					_, _ = table.Session(genSession(0))
					table.Lock("a")
					table.List("", "", 10)
					table.NextDeadline()
					table.Stats()
				})
			}
		})
	}
	for i := range uint64(300) {
		m.Apply(logEntry(i+1, int64(i)*second/4, everyCommand()...))
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
